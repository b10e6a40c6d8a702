#include "node/gateway/active_request.h"

#include <algorithm>
#include <utility>

#include "node/gateway/generation_service.h"
#include "node/text/text_model.h"

namespace muselet {
namespace {

constexpr double kMicrosecond = 1e-6;

RequestOutcome OutcomeOf(StatusCode code, bool answered) {
  switch (code) {
    case StatusCode::kInvalidArgument:
    case StatusCode::kNotFound:
    case StatusCode::kPermissionDenied:
      return RequestOutcome::kInvalid;
    case StatusCode::kResourceExhausted:
      return RequestOutcome::kRefused;
    case StatusCode::kUnavailable:
      return answered ? RequestOutcome::kError : RequestOutcome::kRefused;
    case StatusCode::kDeadlineExceeded:
      return RequestOutcome::kDeadline;
    case StatusCode::kCancelled:
      return RequestOutcome::kCancelled;
    default:
      return RequestOutcome::kError;
  }
}

}  // namespace

ActiveRequest::ActiveRequest(GenerationRequest request_in, std::unique_ptr<GenerationSink> sink,
                             int64_t now_us, const GatewayMetrics::PerModel& metrics)
    : request(std::move(request_in)),
      prompt_param(PromptParam(request.prompt)),
      started_us(now_us),
      sink_(std::move(sink)),
      metrics_(metrics) {
  metrics_.in_flight.Add(1);
}

ActiveRequest::~ActiveRequest() {
  // The gateway itself goes: nobody asked for an end, but the gauge must not stay up.
  if (!closed_) metrics_.in_flight.Add(-1);
}

void ActiveRequest::Admit(const RequestId& id, PreparedPrompt prompt, const RequestRecord& record,
                          const std::string& numerics_id) {
  const Tokenizer* tokenizer = TokenizerOf(model->text.get());
  rules_.stop_strings = request.stop_strings;
  rules_.stop_token_ids = request.stop_token_ids;
  rules_.min_tokens = record.stop.min_tokens;
  rules_.include_stop = request.include_stop_in_output;
  rules_.show_control_tokens = !request.skip_special_tokens;
  scored_ = record.sampling.prompt_logprobs >= 0;
  prompt_only_ = request.max_tokens == 0U;
  start_.request = request.fixed ? request.fixed->id : id;
  start_.model = model->id;
  start_.numerics_id = numerics_id;
  start_.seed = record.sampling.seed;
  start_.prompt_ids = std::move(prompt.ids);
  usage_.prompt_tokens = static_cast<uint32_t>(start_.prompt_ids.size());
  last_token_us_.assign(record.choices, 0);
  choices_.reserve(record.choices);
  for (uint32_t i = 0; i < record.choices; ++i) {
    choices_.emplace_back(tokenizer, rules_, i);
    if (request.echo) choices_.back().Prepend(prompt.text);
  }
  metrics_.prompt_tokens.Increment(usage_.prompt_tokens);
  metrics_.request_prompt_tokens.Observe(usage_.prompt_tokens);
}

void ActiveRequest::BeginAnswer(std::vector<SampledToken> scores) {
  if (begun_ || closed_) return;
  begun_ = true;
  if (scored_) {
    const Tokenizer* tokenizer = TokenizerOf(model->text.get());
    for (size_t i = 0; i < start_.prompt_ids.size(); ++i) {
      SampledToken token;
      if (i > 0 && i <= scores.size()) token = std::move(scores[i - 1]);
      token.id = start_.prompt_ids[i];
      start_.prompt_tokens.push_back(Describe(tokenizer, std::move(token)));
    }
  }
  sink_->OnStart(start_);
}

void ActiveRequest::CountTicket(bool first, int64_t waited_us) {
  if (first) {
    metrics_.queue_time.Observe(static_cast<double>(waited_us) * kMicrosecond);
  } else {
    metrics_.retries.Increment();
  }
}

std::vector<uint32_t> ActiveRequest::Deliver(Delivered delivered, int64_t now_us) {
  std::vector<uint32_t> stopped;
  if (!begun_) {
    // Choice 0 brings the scores of the prompt, which come first.
    if (delivered.sequence.choice != 0) {
      held_.push_back(std::move(delivered));
      return stopped;
    }
    BeginAnswer(std::move(delivered.prompt_logprobs));
  }
  held_.push_back(std::move(delivered));
  while (!held_.empty()) {
    const uint32_t choice = held_.front().sequence.choice;
    if (PassOn(std::move(held_.front()), now_us)) stopped.push_back(choice);
    held_.pop_front();
  }
  return stopped;
}

bool ActiveRequest::PassOn(Delivered delivered, int64_t now_us) {
  ChoiceText& choice = choices_[delivered.sequence.choice];
  if (closed_ || choice.finished()) return false;
  if (prompt_only_) delivered.tokens.clear();
  usage_.cached_prompt_tokens =
      std::max(usage_.cached_prompt_tokens, delivered.cached_prompt_tokens);
  if (delivered.finish == FinishReason::kLength) length_ = true;
  // An echo alone ends by length, whatever the one token that had to be computed was.
  const bool ends = delivered.finish != FinishReason::kNone;
  const FinishReason finish = ends && prompt_only_ ? FinishReason::kLength : delivered.finish;
  delivered.finish = finish;
  if (!request.resume.empty() && PassOnSeen(delivered, now_us)) return choice.finished();
  return PassOnUpdate(choice.Push(std::move(delivered.tokens), delivered.finish), now_us);
}

bool ActiveRequest::PassOnUpdate(ChoiceText::Outcome outcome, int64_t now_us) {
  const ChoiceUpdate& update = outcome.update;
  CountTokens(update.choice, update.tokens.size(), now_us);
  if (!update.tokens.empty() || !update.text.empty() || update.finish != FinishReason::kNone)
    sink_->OnUpdate(update);
  return outcome.stopped;
}

bool ActiveRequest::PassOnSeen(Delivered& delivered, int64_t now_us) {
  const uint32_t index = delivered.sequence.choice;
  ChoiceText& choice = choices_[index];
  const ResumePoint& point = request.resume[index];
  const bool all = point.stage != ResumePoint::Stage::kTokens;
  const size_t left = point.tokens > choice.tokens() ? point.tokens - choice.tokens() : 0;
  const size_t count = all ? delivered.tokens.size() : std::min(left, delivered.tokens.size());
  if (!all && count == 0) return false;
  const auto begin = std::make_move_iterator(delivered.tokens.begin());
  std::vector<SampledToken> seen(begin, begin + static_cast<ptrdiff_t>(count));
  delivered.tokens.erase(delivered.tokens.begin(),
                         delivered.tokens.begin() + static_cast<ptrdiff_t>(count));
  ChoiceText::Outcome outcome =
      choice.Push(std::move(seen), all ? delivered.finish : FinishReason::kNone);
  outcome.update.text_seen = true;
  outcome.update.finish_seen = point.stage == ResumePoint::Stage::kFinished;
  PassOnUpdate(std::move(outcome), now_us);
  const bool rest = !delivered.tokens.empty() || delivered.finish != FinishReason::kNone;
  return all || choice.finished() || !rest;
}

void ActiveRequest::CountTokens(uint32_t choice, size_t tokens, int64_t now_us) {
  if (tokens == 0) return;
  if (usage_.generation_tokens == 0)
    metrics_.time_to_first_token.Observe(static_cast<double>(now_us - started_us) * kMicrosecond);
  usage_.generation_tokens += static_cast<uint32_t>(tokens);
  metrics_.generation_tokens.Increment(static_cast<double>(tokens));
  int64_t& last_us = last_token_us_[choice];
  if (last_us != 0) {
    // Tokens that came in one message share the time since the one before.
    const double each = static_cast<double>(now_us - last_us) * kMicrosecond / tokens;
    for (size_t i = 0; i < tokens; ++i) metrics_.inter_token.Observe(each);
  }
  last_us = now_us;
}

void ActiveRequest::Finish(int64_t now_us) {
  if (closed_) return;
  Close(length_ ? RequestOutcome::kLength : RequestOutcome::kStop, now_us);
  sink_->OnDone(usage_);
}

void ActiveRequest::Fail(const GenerationError& error, int64_t now_us) {
  if (closed_) return;
  Close(OutcomeOf(error.status.code(), usage_.generation_tokens > 0), now_us);
  sink_->OnError(error);
}

void ActiveRequest::Close(RequestOutcome outcome, int64_t now_us) {
  if (closed_) return;
  closed_ = true;
  metrics_.in_flight.Add(-1);
  metrics_.requests[static_cast<size_t>(outcome)].Increment();
  metrics_.end_to_end.Observe(static_cast<double>(now_us - started_us) * kMicrosecond);
  if (start_.prompt_ids.empty()) return;
  metrics_.cached_prompt_tokens.Increment(usage_.cached_prompt_tokens);
  metrics_.request_generation_tokens.Observe(usage_.generation_tokens);
}

}  // namespace muselet
