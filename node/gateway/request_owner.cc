#include "node/gateway/request_owner.h"

#include <algorithm>
#include <utility>

namespace muselet {
namespace {

bool Retryable(StatusCode code) {
  return code == StatusCode::kUnavailable || code == StatusCode::kResourceExhausted;
}

}  // namespace

RequestOwner::RequestOwner(const RequestOwnerOptions& options)
    : options_(options),
      scheduler_up_(options.schedulers, false),
      budget_(options.limits.retry_share, options.limits.retry_reserve) {}

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
  budget_.AddRequest();
  Request request;
  request.deadline_us = now_us_ + input.record.timeout_us - input.record.waited_us;
  request.attempt_began_us = now_us_;
  request.next_place_us = now_us_;
  request.unfinished = input.record.choices;
  request.choices.resize(input.record.choices);
  request.record = std::move(input.record);
  const auto [entry, added] = requests_.emplace(id, std::move(request));
  CHECK(added, "request id drawn twice: ", id.ToString());
  TakeName(entry->second);
  TryPlace(entry->second);
}

void RequestOwner::Handle(const CancelRequest& input) {
  const auto found = requests_.find(input.request);
  if (found == requests_.end()) return;
  CancelChoices(found->second);
  SendRelease(found->second);
  Erase(input.request);
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
    const SequenceId sequence = {request.wire, input.sequence.choice};
    out_.to_nodes.push_back({request.endpoint, Cancel{sequence, request.attempt}});
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
    if (request.phase == Phase::kWaiting || request.scheduler != input.scheduler) continue;
    if (request.phase == Phase::kPlaced) {
      // Asked again under this number, after it heard our Release of it, it would say nothing.
      ++request.attempt;
      request.phase = Phase::kWaiting;
      request.next_place_us = now_us_;
      TryPlace(request);
    } else if (const std::optional<uint32_t> other = PickScheduler(request)) {
      // It runs on; another scheduler finds it on its node and tells if that is lost.
      request.scheduler = *other;
      SendPlace(request);
    }
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
  if (request.phase == Phase::kRunning) return AskIfQuiet(request);
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

// Its last tokens, or the word that it is lost, may have been lost themselves. A scheduler answers
// with what it knows, and learns the rest from the node's reports.
void RequestOwner::AskIfQuiet(Request& request) {
  if (now_us_ - request.heard_us < options_.quiet_us) return;
  request.heard_us = now_us_;
  const std::optional<uint32_t> other = PickScheduler(request);
  if (!scheduler_up_[request.scheduler] && other) request.scheduler = *other;
  SendPlace(request);
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
  Request* const found = Find(ticket.request);
  if (found == nullptr) {
    ++counters_.late_messages;
    out_.to_schedulers.push_back({scheduler, Release{ticket.request, ticket.attempt}});
    return;
  }
  Request& request = *found;
  TellQuota(scheduler, request, ticket.quota);
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
  const RequestRecord& record = request.record;
  if (record.is_audit() &&
      (ticket.replica == record.avoid || ticket.numerics_id != record.numerics_id)) {
    End(record.request, Unavailable("no other replica computes alike"));
    return;
  }
  request.phase = Phase::kRunning;
  request.heard_us = now_us_;
  request.scheduler = scheduler;
  request.endpoint = ticket.endpoint;
  request.replica = ticket.replica;
  request.numerics_id = ticket.numerics_id;
  request.progressed = false;
  out_.events.push_back(
      Ticketed{record.request, request.attempts == 1, now_us_ - request.attempt_began_us});
  SubmitChoices(request, ticket);
}

void RequestOwner::OnRefused(uint32_t scheduler, const Refused& refused) {
  Request* const found = Find(refused.request);
  if (found == nullptr || found->phase != Phase::kPlaced || found->attempt != refused.attempt ||
      found->scheduler != scheduler) {
    ++counters_.late_messages;
    return;
  }
  Request& request = *found;
  TellQuota(scheduler, request, refused.quota);
  ++request.refusals;
  const bool begun = request.attempts > 1 && !request.record.is_audit();
  // Where no other replica is left, those that failed are better than none.
  request.avoid.clear();
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
  End(request.record.request, Status(refused.code, refused.message), refused.retry_after_us);
}

void RequestOwner::OnLost(uint32_t scheduler, const Lost& lost) {
  Request* const request = Find(lost.request);
  if (request == nullptr || request->attempt != lost.attempt || request->scheduler != scheduler ||
      request->phase == Phase::kWaiting) {
    ++counters_.late_messages;
    return;
  }
  EndAttempt(*request, Unavailable("the replica was lost: " + lost.reason), lost.suspect);
}

void RequestOwner::OnTokens(const std::string& endpoint, TokenUpdate& update) {
  Request* const found = Find(update.sequence.request);
  const bool current = found != nullptr && found->phase == Phase::kRunning &&
                       found->attempt == update.attempt && found->endpoint == endpoint &&
                       update.sequence.choice < found->choices.size() &&
                       !found->choices[update.sequence.choice].finished;
  if (!current) {
    ++counters_.late_messages;
    // It still computes for nobody: our Cancel went astray.
    if (update.finish == FinishReason::kNone)
      out_.to_nodes.push_back({endpoint, Cancel{update.sequence, update.attempt}});
    return;
  }
  Request& request = *found;
  request.heard_us = now_us_;
  if (!AcceptTokens(request, update)) {
    ++counters_.gaps;
    EndAttempt(request, Unavailable("tokens of the node were lost on the way"));
    return;
  }
  const Choice& choice = request.choices[update.sequence.choice];
  // The end is told with the last token; a doubled message must not end the sequence earlier.
  FinishReason finish = update.finish;
  if (finish == FinishReason::kError || finish == FinishReason::kCancelled) {
    EndEarly(request, update);
    return;
  }
  if (finish == FinishReason::kDeadline) {
    CancelChoices(request);
    End(request.record.request, DeadlineExceeded("the request's time is over"));
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

void RequestOwner::EndEarly(Request& request, const TokenUpdate& update) {
  if (update.finish == FinishReason::kCancelled)
    return EndAttempt(request, Unavailable("the node gave the sequence up"));
  const bool unnamed = update.error_code == StatusCode::kOk;
  const Status why(unnamed ? StatusCode::kInternal : update.error_code, update.error);
  const bool fault = why.code() == StatusCode::kInternal || why.code() == StatusCode::kDataLoss;
  EndAttempt(request, why, fault);
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
  delivered.sequence = {request.record.request, update.sequence.choice};
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

}  // namespace muselet
