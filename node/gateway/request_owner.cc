#include "node/gateway/request_owner.h"

#include <algorithm>
#include <utility>

namespace muselet {
namespace {

bool Retryable(StatusCode code) {
  return code == StatusCode::kUnavailable || code == StatusCode::kResourceExhausted;
}

// How a choice that has already produced `generated` ends, if it does: an attempt can break off
// between its last token and the word that it was the last.
FinishReason FinishOf(const StopRules& stop, const std::vector<TokenId>& generated) {
  const bool may_end = !generated.empty() && generated.size() > stop.min_tokens;
  if (may_end && std::count(stop.end_tokens.begin(), stop.end_tokens.end(), generated.back()))
    return FinishReason::kStop;
  return generated.size() >= stop.max_tokens ? FinishReason::kLength : FinishReason::kNone;
}

}  // namespace

RequestOwner::RequestOwner(const RequestOwnerOptions& options)
    : options_(options), scheduler_up_(options.schedulers, false) {}

OwnerOutput RequestOwner::Step(OwnerInput input, int64_t now_us) {
  out_ = OwnerOutput();
  now_us_ = now_us;
  std::visit([this](auto& value) { Handle(value); }, input);
  return std::move(out_);
}

size_t RequestOwner::RunningOn(const std::string& endpoint) const {
  return static_cast<size_t>(
      std::count_if(requests_.begin(), requests_.end(), [&](const auto& entry) {
        return entry.second.phase == Phase::kRunning && entry.second.endpoint == endpoint;
      }));
}

void RequestOwner::Handle(StartRequest& input) {
  const RequestId id = input.record.request;
  if (requests_.size() >= options_.limits.requests_max) {
    out_.events.push_back(
        Ended{id,
              ResourceExhausted("too many requests in flight in this gateway (limit " +
                                std::to_string(options_.limits.requests_max) + "); retry later"),
              1'000'000});
    return;
  }
  Request request;
  request.deadline_us = now_us_ + input.record.timeout_us;
  request.attempt_began_us = now_us_;
  request.next_place_us = now_us_;
  request.unfinished = input.record.choices;
  request.choices.resize(input.record.choices);
  request.record = std::move(input.record);
  const auto [entry, added] = requests_.emplace(id, std::move(request));
  CHECK(added, "request id drawn twice: ", id.ToString());
  TryPlace(entry->second);
}

void RequestOwner::Handle(const CancelRequest& input) {
  const auto found = requests_.find(input.request);
  if (found == requests_.end()) return;
  CancelChoices(found->second);
  SendRelease(found->second);
  requests_.erase(found);
}

void RequestOwner::Handle(const EndAll& input) {
  while (!requests_.empty()) {
    CancelChoices(requests_.begin()->second);
    End(RequestId(requests_.begin()->first), input.status);
  }
}

void RequestOwner::Handle(const StopChoice& input) {
  const auto found = requests_.find(input.sequence.request);
  if (found == requests_.end()) return;
  Request& request = found->second;
  if (input.sequence.choice >= request.choices.size()) return;
  Choice& choice = request.choices[input.sequence.choice];
  if (choice.finished) return;
  if (request.phase == Phase::kRunning) {
    out_.to_nodes.push_back({request.endpoint, Cancel{input.sequence, request.attempt}});
  }
  choice.finished = true;
  if (--request.unfinished == 0) End(input.sequence.request, OkStatus());
}

void RequestOwner::Handle(const SchedulerUp& input) {
  scheduler_up_[input.scheduler] = true;
  for (auto& [id, request] : requests_) {
    if (request.phase != Phase::kWaiting && request.scheduler == input.scheduler) {
      // It restarted and knows nothing of the request: a waiting one is to be placed, a running one
      // to be found on its node, so that its loss can be told.
      SendPlace(request);
      request.next_place_us = now_us_ + options_.place_repeat_us;
    } else if (request.phase == Phase::kWaiting) {
      TryPlace(request);
    }
  }
}

void RequestOwner::Handle(const SchedulerDown& input) {
  scheduler_up_[input.scheduler] = false;
  for (auto& [id, request] : requests_) {
    if (request.phase != Phase::kPlaced || request.scheduler != input.scheduler) continue;
    request.phase = Phase::kWaiting;
    request.next_place_us = now_us_;
    TryPlace(request);
  }
}

void RequestOwner::Handle(FromScheduler& input) {
  if (const auto* ticket = std::get_if<Ticket>(&input.message)) {
    OnTicket(input.scheduler, *ticket);
  } else if (const auto* refused = std::get_if<Refused>(&input.message)) {
    OnRefused(input.scheduler, *refused);
  } else if (const auto* lost = std::get_if<Lost>(&input.message)) {
    OnLost(input.scheduler, *lost);
  }
}

void RequestOwner::Handle(FromNode& input) {
  auto* tokens = std::get_if<Tokens>(&input.message);
  if (tokens == nullptr) return;
  for (TokenUpdate& update : tokens->updates) OnTokens(input.endpoint, update);
}

void RequestOwner::Handle(const NodeLost& input) {
  std::vector<RequestId> affected;
  for (const auto& [id, request] : requests_) {
    if (request.phase == Phase::kRunning && request.endpoint == input.endpoint)
      affected.push_back(id);
  }
  for (const RequestId& id : affected)
    EndAttempt(requests_.at(id), Unavailable("the node was lost: " + input.reason));
}

void RequestOwner::Handle(const ReplicasReady& input) {
  replicas_ready_[input.model] = input.count;
}

void RequestOwner::Handle(const OwnerTick&) {
  std::vector<RequestId> ids;
  ids.reserve(requests_.size());
  for (const auto& [id, request] : requests_) ids.push_back(id);
  for (const RequestId& id : ids) TickRequest(requests_.at(id));
}

void RequestOwner::TickRequest(Request& request) {
  if (now_us_ >= request.deadline_us) {
    CancelChoices(request);
    End(request.record.request,
        DeadlineExceeded("the request's time is over (timeout " +
                         std::to_string(request.record.timeout_us / 1000) + " ms)"));
    return;
  }
  if (request.phase == Phase::kRunning) return;
  if (now_us_ - request.attempt_began_us >= options_.limits.place_timeout_us) {
    End(request.record.request, Unavailable(WhyNoPlace(request) + "; retry later"), 1'000'000);
    return;
  }
  if (now_us_ < request.next_place_us) return;
  if (request.phase == Phase::kWaiting) {
    TryPlace(request);
  } else {
    SendPlace(request);
    request.next_place_us = now_us_ + options_.place_repeat_us;
  }
}

std::string RequestOwner::WhyNoPlace(const Request& request) const {
  if (request.phase != Phase::kPlaced) return "no scheduler is reachable";
  const std::string& model = request.record.model;
  const auto known = replicas_ready_.find(model);
  if (known == replicas_ready_.end())
    return "the scheduler found no replica of " + model + " in time";
  if (known->second == 0) return "no replica of " + model + " is ready";
  return "all replicas of " + model + " (" + std::to_string(known->second) +
         " ready) were full until the place timeout";
}

void RequestOwner::OnTicket(uint32_t scheduler, const Ticket& ticket) {
  const auto found = requests_.find(ticket.request);
  if (found == requests_.end()) {
    ++counters_.late_messages;
    out_.to_schedulers.push_back({scheduler, Release{ticket.request, ticket.attempt}});
    return;
  }
  Request& request = found->second;
  if (request.phase == Phase::kRunning && ticket.attempt == request.attempt &&
      request.scheduler == scheduler)
    return;  // it found the request again, after a restart
  if (request.phase == Phase::kRunning || ticket.attempt != request.attempt ||
      (request.phase == Phase::kPlaced && request.scheduler != scheduler)) {
    ++counters_.late_messages;
    // Our scheduler knows from the newer Place; another one must be told.
    if (request.scheduler != scheduler)
      out_.to_schedulers.push_back({scheduler, Release{ticket.request, ticket.attempt}});
    return;
  }
  request.phase = Phase::kRunning;
  request.scheduler = scheduler;
  request.endpoint = ticket.endpoint;
  request.progressed = false;
  out_.events.push_back(
      Ticketed{ticket.request, ticket.attempt, now_us_ - request.attempt_began_us});
  SubmitChoices(request, ticket);
}

void RequestOwner::OnRefused(uint32_t scheduler, const Refused& refused) {
  const auto found = requests_.find(refused.request);
  if (found == requests_.end() || found->second.phase != Phase::kPlaced ||
      found->second.attempt != refused.attempt || found->second.scheduler != scheduler) {
    ++counters_.late_messages;
    return;
  }
  Request& request = found->second;
  ++request.refusals;
  const bool begun = request.failures > 0;
  const auto up =
      static_cast<uint32_t>(std::count(scheduler_up_.begin(), scheduler_up_.end(), true));
  if (Retryable(refused.code) && (begun || request.refusals < up)) {
    // A stream that has begun waits for a place until the place timeout; a new request asks each
    // scheduler once. A scheduler answers one attempt once, so the question needs a new number.
    request.phase = Phase::kWaiting;
    request.next_place_us =
        now_us_ + (begun ? std::clamp(refused.retry_after_us, options_.retry_backoff_us,
                                      options_.place_repeat_us)
                         : 0);
    ++request.attempt;
    TryPlace(request);
    return;
  }
  End(refused.request, Status(refused.code, refused.message), refused.retry_after_us);
}

void RequestOwner::OnLost(uint32_t scheduler, const Lost& lost) {
  const auto found = requests_.find(lost.request);
  if (found == requests_.end() || found->second.attempt != lost.attempt ||
      found->second.scheduler != scheduler || found->second.phase == Phase::kWaiting) {
    ++counters_.late_messages;
    return;
  }
  EndAttempt(found->second, Unavailable("the replica was lost: " + lost.reason));
}

void RequestOwner::OnTokens(const std::string& endpoint, TokenUpdate& update) {
  const auto found = requests_.find(update.sequence.request);
  const bool current = found != requests_.end() && found->second.phase == Phase::kRunning &&
                       found->second.attempt == update.attempt &&
                       found->second.endpoint == endpoint &&
                       update.sequence.choice < found->second.choices.size() &&
                       !found->second.choices[update.sequence.choice].finished;
  if (!current) {
    ++counters_.late_messages;
    // It still computes for nobody: our Cancel went astray.
    if (update.finish == FinishReason::kNone)
      out_.to_nodes.push_back({endpoint, Cancel{update.sequence, update.attempt}});
    return;
  }
  Request& request = found->second;
  if (!AcceptTokens(request, update)) {
    ++counters_.gaps;
    EndAttempt(request, Unavailable("tokens of the node were lost on the way"));
    return;
  }
  const Choice& choice = request.choices[update.sequence.choice];
  // The end is told with the last token; a doubled message must not end the sequence earlier.
  FinishReason finish = update.finish;
  if (finish == FinishReason::kError || finish == FinishReason::kCancelled) {
    EndAttempt(request, finish == FinishReason::kError
                            ? Status(update.error_code == StatusCode::kOk ? StatusCode::kInternal
                                                                          : update.error_code,
                                     update.error)
                            : Unavailable("the node gave the sequence up"));
    return;
  }
  if (finish == FinishReason::kDeadline) {
    CancelChoices(request);
    End(update.sequence.request, DeadlineExceeded("the request's time is over"));
    return;
  }
  // `tokens` may have been moved from, its size has not changed.
  const size_t end = update.first_index + update.tokens.size();
  if (end > choice.generated.size()) {
    finish = FinishReason::kLength;
  } else if (end < choice.generated.size()) {
    finish = FinishReason::kNone;
  }
  if (finish != FinishReason::kNone) FinishChoice(request, update.sequence.choice, finish);
}

bool RequestOwner::AcceptTokens(Request& request, TokenUpdate& update) {
  Choice& choice = request.choices[update.sequence.choice];
  const size_t next = choice.generated.size();
  if (update.first_index > next) return false;
  const size_t known = std::min(next - update.first_index, update.tokens.size());
  for (size_t i = 0; i < known; ++i) {
    ++counters_.duplicate_tokens;
    if (choice.generated[update.first_index + i] != update.tokens[i].id)
      ++counters_.mismatched_tokens;
  }
  // More than was asked for is no answer to this request.
  const size_t room = request.record.stop.max_tokens - next;
  const size_t fresh = std::min(update.tokens.size() - known, room);
  if (fresh == 0) return true;
  Delivered delivered;
  delivered.sequence = update.sequence;
  delivered.tokens.assign(std::make_move_iterator(update.tokens.begin() + known),
                          std::make_move_iterator(update.tokens.begin() + known + fresh));
  for (const SampledToken& token : delivered.tokens) choice.generated.push_back(token.id);
  delivered.cached_prompt_tokens = next == 0 ? update.cached_prompt_tokens : 0;
  if (!choice.prompt_scored && !update.prompt_logprobs.empty()) {
    choice.prompt_scored = true;
    delivered.prompt_logprobs = std::move(update.prompt_logprobs);
  }
  request.progressed = true;
  out_.events.push_back(std::move(delivered));
  return true;
}

void RequestOwner::FinishChoice(Request& request, uint32_t choice, FinishReason finish) {
  const RequestId id = request.record.request;
  request.choices[choice].finished = true;
  // The reason travels with the last tokens where they were accepted in this very step.
  auto* last = out_.events.empty() ? nullptr : std::get_if<Delivered>(&out_.events.back());
  if (last != nullptr && last->sequence == SequenceId{id, choice}) {
    last->finish = finish;
  } else {
    Delivered delivered;
    delivered.sequence = {id, choice};
    delivered.finish = finish;
    out_.events.push_back(std::move(delivered));
  }
  if (--request.unfinished == 0) End(id, OkStatus());
}

std::optional<uint32_t> RequestOwner::PickScheduler(const Request& request) const {
  const auto count = static_cast<uint32_t>(scheduler_up_.size());
  for (uint32_t i = 0; i < count; ++i) {
    const auto candidate =
        static_cast<uint32_t>((request.record.request.low + request.refusals + i) % count);
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
  place.request = record.request;
  place.attempt = request.attempt;
  place.model = record.model;
  place.surface = record.surface;
  place.request_class = record.request_class;
  place.choices = request.unfinished;
  place.prompt_tokens = static_cast<uint32_t>(record.prompt.size() + most);
  place.max_tokens = static_cast<uint32_t>(record.stop.max_tokens - least);
  place.timeout_us = std::max<int64_t>(1, request.deadline_us - now_us_);
  place.block_hashes = HashBlocks(record.cache_salt, record.prompt);
  out_.to_schedulers.push_back({request.scheduler, std::move(place)});
}

void RequestOwner::SubmitChoices(Request& request, const Ticket& ticket) {
  const RequestRecord& record = request.record;
  for (uint32_t i = 0; i < request.choices.size(); ++i) {
    const Choice& choice = request.choices[i];
    if (choice.finished) continue;
    Submit submit;
    submit.sequence = {record.request, i};
    submit.attempt = request.attempt;
    submit.epoch = ticket.epoch;
    submit.replica = ticket.replica;
    submit.surface = record.surface;
    submit.request_class = record.request_class;
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
    out_.to_nodes.push_back(
        {request.endpoint, Cancel{{request.record.request, i}, request.attempt}});
  }
}

void RequestOwner::SendRelease(const Request& request) {
  if (request.phase == Phase::kWaiting) return;
  out_.to_schedulers.push_back(
      {request.scheduler, Release{request.record.request, request.attempt}});
}

void RequestOwner::EndAttempt(Request& request, const Status& why) {
  const RequestId id = request.record.request;
  CancelChoices(request);
  if (!Retryable(why.code()) || request.failures + 1 >= options_.limits.attempts_max) {
    End(id, request.failures == 0
                ? why
                : why.WithContext("attempt " + std::to_string(request.failures + 1)));
    return;
  }
  SendRelease(request);
  out_.events.push_back(Reattempted{id, request.attempt, why, request.endpoint});
  const bool progressed = request.progressed;
  request.phase = Phase::kWaiting;
  request.progressed = false;
  request.refusals = 0;
  request.endpoint.clear();
  request.attempt_began_us = now_us_;
  request.next_place_us =
      now_us_ + (progressed ? 0 : options_.retry_backoff_us << request.failures);
  ++request.failures;
  ++request.attempt;
  ++counters_.retries;
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

void RequestOwner::End(const RequestId& id, Status status, int64_t retry_after_us) {
  const auto found = requests_.find(id);
  SendRelease(found->second);
  out_.events.push_back(Ended{id, std::move(status), retry_after_us});
  requests_.erase(found);
}

}  // namespace muselet
