#include "node/gateway/openai_answer.h"

#include "base/clock.h"
#include "base/json.h"

namespace muselet {

class OpenAiAnswer::Sink final : public GenerationSink {
 public:
  Sink(std::shared_ptr<OpenAiAnswer> answer, size_t prompt)
      : answer_(std::move(answer)), prompt_(prompt) {}
  void OnStart(const GenerationStart& start) override { answer_->HandleStart(prompt_, start); }
  void OnUpdate(const ChoiceUpdate& update) override { answer_->HandleUpdate(prompt_, update); }
  void OnDone(const GenerationUsage& usage) override { answer_->HandleDone(prompt_, usage); }
  void OnError(const GenerationError& error) override { answer_->HandleError(prompt_, error); }

 private:
  std::shared_ptr<OpenAiAnswer> answer_;
  size_t prompt_;
};

OpenAiAnswer::OpenAiAnswer(OpenAiRequest request, HttpExchangePtr exchange,
                           GenerationService& service, EventLoop& loop)
    : request_(std::move(request)),
      exchange_(std::move(exchange)),
      service_(service),
      loop_(loop),
      created_unix_s_(request_.origin ? request_.origin->created_unix_s
                                      : Clock::Real().UnixUs() / 1'000'000) {
  prompts_.resize(request_.prompts.size());
  choices_.resize(prompts_.size() * request_.generation.choices);
  for (size_t i = 0; i < choices_.size(); ++i) choices_[i].index = static_cast<uint32_t>(i);
  prompts_left_ = prompts_.size();
}

void OpenAiAnswer::Begin(OpenAiRequest request, HttpExchangePtr exchange,
                         GenerationService& service, EventLoop& loop) {
  auto answer = request.stream
                    ? MakeStreamAnswer(std::move(request), std::move(exchange), service, loop)
                    : MakeWholeAnswer(std::move(request), std::move(exchange), service, loop);
  answer->StartAll();
}

void OpenAiAnswer::StartAll() {
  // Weak: once the service lets go of the sinks there is nothing to cancel.
  exchange_->OnAbandoned([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->CancelAll();
  });
  for (size_t i = 0; i < prompts_.size(); ++i) {
    GenerationRequest one = request_.generation;
    one.prompt = std::move(request_.prompts[i]);
    if (request_.origin) one.fixed = request_.fixed[i];
    if (!resume().empty()) {
      const auto begin = resume().begin() + static_cast<ptrdiff_t>(i * one.choices);
      one.resume.assign(begin, begin + one.choices);
    }
    prompts_[i].id = service_.Start(std::move(one), std::make_unique<Sink>(shared_from_this(), i));
  }
  id_ = request_.origin ? request_.fixed.front().id : prompts_.front().id;
}

const std::vector<ResumePoint>& OpenAiAnswer::resume() const {
  static const std::vector<ResumePoint> kNone;
  return request_.origin ? request_.origin->resume : kNone;
}

void OpenAiAnswer::HandleStart(size_t prompt, const GenerationStart& start) {
  if (ended_) return;
  prompts_[prompt].start = start;
  if (!fingerprint_.empty()) return;
  fingerprint_ = start.numerics_id;
}

void OpenAiAnswer::HandleUpdate(size_t prompt, const ChoiceUpdate& update) {
  if (ended_ || update.choice >= request_.generation.choices) return;
  Choice& choice = choices_[prompt * request_.generation.choices + update.choice];
  OnChoice(prompts_[prompt], choice, update);
  choice.begun = true;
}

void OpenAiAnswer::HandleDone(size_t prompt, const GenerationUsage& usage) {
  if (ended_ || prompts_[prompt].done) return;
  prompts_[prompt].done = true;
  prompts_[prompt].usage = usage;
  if (--prompts_left_ > 0) return;
  ended_ = true;
  OnComplete();
}

void OpenAiAnswer::HandleError(size_t prompt, const GenerationError& error) {
  if (ended_) return;
  prompts_[prompt].done = true;
  ended_ = true;
  ApiError fault = ErrorOf(error);
  if (fault.param == "max_tokens" && request_.max_completion_tokens)
    fault.param = "max_completion_tokens";
  OnFault(fault);
  if (prompts_.size() == 1) return;
  // The other prompts' answers are worth nothing now. Later, since the service is calling us.
  loop_.Post([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->CancelAll();
  });
}

void OpenAiAnswer::CancelAll() {
  ended_ = true;
  const auto self = shared_from_this();  // cancelling drops the sinks that hold us
  for (Prompt& prompt : prompts_) {
    if (!std::exchange(prompt.done, true)) service_.Cancel(prompt.id);
  }
}

std::string OpenAiAnswer::Envelope(std::string_view object) const {
  std::string out = R"({"id":")";
  out += chat() ? "chatcmpl-" : "cmpl-";
  out += id_.ToString();
  out += R"(","object":")";
  out += object;
  out += R"(","created":)";
  AppendInteger(static_cast<uint64_t>(created_unix_s_), out);
  out += R"(,"model":)";
  AppendJsonString(request_.generation.model, out);
  out += R"(,"system_fingerprint":)";
  if (fingerprint_.empty()) {
    out += "null";
  } else {
    AppendJsonString(fingerprint_, out);
  }
  out += ',';
  return out;
}

void OpenAiAnswer::AppendLogprobs(const Prompt& prompt, Choice& choice,
                                  std::span<const GeneratedToken> tokens, bool first,
                                  std::string& out) const {
  if (!request_.logprobs) {
    out += "null";
  } else if (chat()) {
    AppendChatLogprobs(tokens, style(), out);
  } else if (first && request_.generation.echo) {
    std::vector<GeneratedToken> all = prompt.start.prompt_tokens;
    all.insert(all.end(), tokens.begin(), tokens.end());
    AppendCompletionLogprobs(all, style(), !prompt.start.prompt_tokens.empty(), choice.text_offset,
                             out);
  } else {
    AppendCompletionLogprobs(tokens, style(), false, choice.text_offset, out);
  }
}

GenerationUsage OpenAiAnswer::TotalUsage() const {
  GenerationUsage total;
  for (const Prompt& prompt : prompts_) {
    total.prompt_tokens += prompt.usage.prompt_tokens;
    total.generation_tokens += prompt.usage.generation_tokens;
    total.cached_prompt_tokens += prompt.usage.cached_prompt_tokens;
  }
  return total;
}

void AppendStopReason(const std::string& stop_string, const std::optional<TokenId>& stop_token,
                      std::string& out) {
  if (!stop_string.empty()) {
    AppendJsonString(stop_string, out);
  } else if (stop_token.has_value()) {
    AppendInteger(static_cast<uint64_t>(*stop_token), out);
  } else {
    out += "null";
  }
}

}  // namespace muselet
