// The attempts of a request: asking for a place, handing the record to a node, giving up, going on.
#include <algorithm>
#include <utility>

#include "node/gateway/request_owner.h"

namespace muselet {
namespace {

// A request whose replicas fail this often is taken for the cause.
constexpr uint32_t kFaultsMax = 2;
constexpr int64_t kBudgetRetryUs = 1'000'000;
constexpr size_t kJoinsRemembered = 65'536;

// How a choice that has already produced `generated` ends, if it does: an attempt can break off
// between its last token and the word that it was the last.
FinishReason FinishOf(const StopRules& stop, const std::vector<TokenId>& generated) {
  const bool may_end = !generated.empty() && generated.size() > stop.min_tokens;
  if (may_end && std::count(stop.end_tokens.begin(), stop.end_tokens.end(), generated.back()))
    return FinishReason::kStop;
  return generated.size() >= stop.max_tokens ? FinishReason::kLength : FinishReason::kNone;
}

}  // namespace

std::optional<uint32_t> RequestOwner::PickScheduler(const Request& request) const {
  const auto count = static_cast<uint32_t>(scheduler_up_.size());
  for (uint32_t i = 0; i < count; ++i) {
    const auto candidate = static_cast<uint32_t>((request.wire.low + request.refusals + i) % count);
    if (scheduler_up_[candidate]) return candidate;
  }
  return std::nullopt;
}

void RequestOwner::TryPlace(Request& request) {
  if (now_us_ < request.next_place_us) return;
  const std::optional<uint32_t> scheduler = PickScheduler(request);
  if (!scheduler) return;
  request.phase = Phase::kPlaced;
  request.scheduler = *scheduler;
  request.next_place_us = now_us_ + options_.place_repeat_us;
  SendPlace(request);
}

void RequestOwner::SendPlace(const Request& request) {
  const RequestRecord& record = request.record;
  size_t least = record.stop.max_tokens;
  size_t most = 0;
  for (const Choice& choice : request.choices) {
    if (choice.finished) continue;
    least = std::min(least, choice.generated.size());
    most = std::max(most, choice.generated.size());
  }
  Place place;
  place.request = request.wire;
  place.attempt = request.attempt;
  place.model = record.model;
  place.surface = record.surface;
  place.request_class = record.request_class;
  place.choices = request.unfinished;
  place.prompt_tokens = static_cast<uint32_t>(record.prompt.size() + most);
  place.max_tokens = static_cast<uint32_t>(record.stop.max_tokens - least);
  place.timeout_us = std::max<int64_t>(1, request.deadline_us - now_us_);
  place.block_hashes = HashBlocks(record.cache_salt, record.prompt);
  place.avoid = request.avoid;
  if (record.is_audit()) place.avoid.push_back(record.avoid);
  place.alone = request.faults > 0;
  out_.to_schedulers.push_back({request.scheduler, std::move(place)});
}

void RequestOwner::SubmitChoices(Request& request, const Ticket& ticket) {
  const RequestRecord& record = request.record;
  for (uint32_t i = 0; i < request.choices.size(); ++i) {
    const Choice& choice = request.choices[i];
    if (choice.finished) continue;
    Submit submit;
    submit.sequence = {request.wire, i};
    submit.attempt = request.attempt;
    submit.epoch = ticket.epoch;
    submit.replica = ticket.replica;
    submit.surface = record.surface;
    submit.request_class = record.request_class;
    submit.share = record.share;
    submit.cache_salt = record.cache_salt;
    submit.timeout_us = std::max<int64_t>(1, request.deadline_us - now_us_);
    submit.prompt = record.prompt;
    submit.generated = choice.generated;
    submit.sampling = record.sampling;
    // The prompt is the same for all choices: one of them scores it, once.
    if (i > 0 || choice.prompt_scored) submit.sampling.prompt_logprobs = -1;
    submit.stop = record.stop;
    out_.to_nodes.push_back({request.endpoint, std::move(submit)});
  }
}

void RequestOwner::CancelChoices(const Request& request) {
  if (request.phase != Phase::kRunning) return;
  for (uint32_t i = 0; i < request.choices.size(); ++i) {
    if (request.choices[i].finished) continue;
    out_.to_nodes.push_back({request.endpoint, Cancel{{request.wire, i}, request.attempt}});
  }
}

void RequestOwner::SendRelease(const Request& request) {
  if (request.phase == Phase::kWaiting) return;
  uint64_t generated = 0;
  for (const Choice& choice : request.choices) generated += choice.generated.size();
  out_.to_schedulers.push_back(
      {request.scheduler, Release{request.wire, request.attempt, generated}});
}

std::optional<Ended> RequestOwner::LastAttempt(Request& request, const Status& why, bool fault) {
  const RequestId id = request.record.request;
  if (fault && ++request.faults >= kFaultsMax) {
    ++counters_.poisoned;
    return Ended{id,
                 Internal("replicas failed by this request " + std::to_string(request.faults) +
                          " times; it is not tried again. The last one said: " + why.message()),
                 0, "poisoned_request"};
  }
  const bool retryable = why.code() == StatusCode::kUnavailable ||
                         why.code() == StatusCode::kResourceExhausted || fault;
  const Status told =
      request.attempts == 1 ? why : why.WithContext("attempt " + std::to_string(request.attempts));
  if (request.record.is_audit() || !retryable) return Ended{id, told, 0, {}};
  if (!request.progressed && request.failures + 1 >= options_.limits.attempts_max)
    return Ended{id, told, 0, {}};
  // Work that gets on is no storm, however often it is interrupted.
  if ((fault || !request.progressed) && !budget_.Take(now_us_)) {
    ++counters_.budget_refusals;
    return Ended{id,
                 Unavailable("too many requests are being tried again; this one ended with: " +
                             why.message()),
                 kBudgetRetryUs, "retry_budget_exhausted"};
  }
  return std::nullopt;
}

void RequestOwner::EndAttempt(Request& request, const Status& why, bool fault) {
  const RequestId id = request.record.request;
  CancelChoices(request);
  if (auto ended = LastAttempt(request, why, fault))
    return End(id, std::move(ended->status), ended->retry_after_us, ended->code);
  SendRelease(request);
  out_.events.push_back(Reattempted{id, request.attempt, why, request.endpoint});
  if (fault && !request.replica.empty()) request.avoid.push_back(request.replica);
  BeginAttempt(request);
  for (uint32_t i = 0; i < request.choices.size(); ++i) {
    const Choice& choice = request.choices[i];
    const FinishReason finish = FinishOf(request.record.stop, choice.generated);
    if (choice.finished || finish == FinishReason::kNone) continue;
    const bool last = request.unfinished == 1;
    FinishChoice(request, i, finish);
    if (last) return;
  }
  TryPlace(request);
}

void RequestOwner::BeginAttempt(Request& request) {
  DropJoinName(request);
  const bool progressed = std::exchange(request.progressed, false);
  request.phase = Phase::kWaiting;
  request.refusals = 0;
  request.endpoint.clear();
  request.replica.clear();
  request.attempt_began_us = now_us_;
  const int64_t backoff_us = std::min(options_.retry_backoff_us << std::min(request.failures, 16U),
                                      options_.place_repeat_us);
  request.next_place_us = now_us_ + (progressed ? 0 : backoff_us);
  request.failures = progressed ? 0 : request.failures + 1;
  ++request.attempts;
  ++request.attempt;
  ++counters_.retries;
}

void RequestOwner::End(const RequestId& id, Status status, int64_t retry_after_us,
                       std::string_view code) {
  const Request& request = requests_.at(id);
  SendRelease(request);
  if (status.ok()) TellAudit(request);
  out_.events.push_back(Ended{id, std::move(status), retry_after_us, code});
  Erase(id);
}

void RequestOwner::TellAudit(const Request& request) {
  // Ids are random: a part of them is a fair choice, and the same one in a test that runs again.
  constexpr double kPart = 1.0 / (uint64_t{1} << 53);
  const double draw = static_cast<double>(request.record.request.high >> 11) * kPart;
  const bool told = request.record.is_audit() || request.replica.empty();
  if (told || draw >= options_.audit_fraction) return;
  AuditCase audit{request.record, {}, request.replica};
  audit.record.numerics_id = request.numerics_id;
  for (const Choice& choice : request.choices) audit.generated.push_back(choice.generated);
  out_.events.push_back(std::move(audit));
}

RequestOwner::Request* RequestOwner::Find(const RequestId& wire) {
  const auto joining = joining_.find(wire);
  const auto found = requests_.find(joining == joining_.end() ? wire : joining->second);
  return found == requests_.end() || found->second.wire != wire ? nullptr : &found->second;
}

void RequestOwner::TakeName(Request& request) {
  const RequestRecord& record = request.record;
  request.wire = record.request;
  if (record.join == RequestId()) return;
  // Whoever goes by this name here already keeps it; the answers are the same.
  if (joining_.contains(record.join) || requests_.contains(record.join)) return;
  ++counters_.joins;
  request.wire = record.join;
  joining_[record.join] = record.request;
  const auto [last, fresh] = join_attempts_.emplace(record.join, record.join_attempt);
  if (!fresh) last->second = std::max(last->second + 1, record.join_attempt);
  request.attempt = last->second;
  if (!fresh) return;
  join_order_.push_back(record.join);
  if (join_order_.size() <= kJoinsRemembered) return;
  join_attempts_.erase(join_order_.front());
  join_order_.pop_front();
}

void RequestOwner::DropJoinName(Request& request) {
  if (request.wire == request.record.request) return;
  const auto last = join_attempts_.find(request.wire);
  if (last != join_attempts_.end()) last->second = std::max(last->second, request.attempt);
  joining_.erase(request.wire);
  request.wire = request.record.request;
}

void RequestOwner::Erase(const RequestId& id) {
  DropJoinName(requests_.at(id));
  requests_.erase(id);
}

void RequestOwner::TellQuota(uint32_t scheduler, const Request& request, const QuotaState& quota) {
  if (quota == QuotaState()) return;  // there are none
  out_.events.push_back(QuotaTold{scheduler, request.record.surface, quota});
}

}  // namespace muselet
