#include "base/json.h"
#include "node/gateway/openai_answer.h"

namespace muselet {
namespace {

constexpr std::string_view kDone = "data: [DONE]\n\n";
constexpr std::string_view kKeepAlive = ": keep-alive\n\n";
// Each event's id tells how much of each choice went before it; more of them are not resumed.
constexpr size_t kResumedChoicesMax = 64;

// Writes each update as it comes. The head waits for the first one, so that a refusal is still an
// ordinary answer with its status.
class StreamAnswer final : public OpenAiAnswer {
 public:
  StreamAnswer(OpenAiRequest request, HttpExchangePtr exchange, GenerationService& service,
               EventLoop& loop)
      : OpenAiAnswer(std::move(request), std::move(exchange), service, loop) {
    HttpStreamHead head;
    head.headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}};
    head.keep_alive = kKeepAlive;
    exchange_->BeginStream(std::move(head));
    resumable_ = request_.origin.has_value() && choices_.size() <= kResumedChoicesMax;
    points_ = resume();
    points_.resize(choices_.size());
  }

 private:
  void OnChoice(Prompt& prompt, Choice& choice, const ChoiceUpdate& update) override {
    if (prefix_.empty()) {
      prefix_ = "data: " + Envelope(chat() ? "chat.completion.chunk" : "text_completion");
      prefix_ += R"("choices":[)";
    }
    out_.clear();
    prompt.usage.prompt_tokens = static_cast<uint32_t>(prompt.start.prompt_ids.size());
    if (!choice.begun && chat() && !update.text_seen) AppendRole(prompt, choice);
    prompt.usage.generation_tokens += static_cast<uint32_t>(update.tokens.size());
    const bool finished = update.finish != FinishReason::kNone;
    Advance(choice, update);
    if (update.text_seen) {
      std::string skipped;  // its length counts in the positions of later tokens
      if (tokens_shown()) AppendLogprobs(prompt, choice, update.tokens, !choice.begun, skipped);
      if (finished && !update.finish_seen) AppendFinish(prompt, choice, update);
      if (!out_.empty()) exchange_->Write(out_);
      return;
    }
    const bool shows_tokens = tokens_shown() && !update.tokens.empty();
    const bool echoes = !choice.begun && request_.generation.echo && request_.logprobs;
    if (!update.text.empty() || (!finished && (shows_tokens || echoes))) {
      AppendChunk(prompt, choice, update, true, FinishReason::kNone);
      if (finished) AppendFinish(prompt, choice, update);
    } else if (finished) {
      points_[choice.index].stage = ResumePoint::Stage::kFinished;
      AppendChunk(prompt, choice, update, true, update.finish);
    }
    if (!out_.empty()) exchange_->Write(out_);
  }

  void Advance(const Choice& choice, const ChoiceUpdate& update) {
    ResumePoint& point = points_[choice.index];
    if (!update.text_seen) point.tokens += static_cast<uint32_t>(update.tokens.size());
    if (update.finish != FinishReason::kNone && point.stage == ResumePoint::Stage::kTokens)
      point.stage = ResumePoint::Stage::kText;
  }

  void AppendFinish(const Prompt& prompt, Choice& choice, const ChoiceUpdate& update) {
    points_[choice.index].stage = ResumePoint::Stage::kFinished;
    AppendChunk(prompt, choice, update, false, update.finish);
  }

  void AppendEventStart() {
    if (resumable_) {
      out_ += "id: ";
      out_ += request_.origin->token;
      AppendPosition(points_, out_);
      out_ += '\n';
    }
    out_ += prefix_;
  }

  void AppendRole(const Prompt& prompt, const Choice& choice) {
    AppendEventStart();
    out_ += R"({"index":)";
    AppendInteger(choice.index, out_);
    out_ += R"(,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}])";
    if (request_.return_token_ids) {
      out_ += R"(,"prompt_token_ids":)";
      AppendTokenIds(prompt.start.prompt_ids, out_);
    }
    AppendTail();
  }

  // `content` is false for the closing chunk of an update whose text went before.
  void AppendChunk(const Prompt& prompt, Choice& choice, const ChoiceUpdate& update, bool content,
                   FinishReason finish) {
    AppendEventStart();
    out_ += R"({"index":)";
    AppendInteger(choice.index, out_);
    AppendText(content ? std::string_view(update.text) : std::string_view(), finish);
    out_ += R"(,"logprobs":)";
    if (content && tokens_shown()) {
      AppendLogprobs(prompt, choice, update.tokens, !choice.begun, out_);
    } else {
      out_ += "null";
    }
    out_ += R"(,"finish_reason":)";
    AppendFinishReason(finish, out_);
    if (finish != FinishReason::kNone) {
      out_ += R"(,"stop_reason":)";
      AppendStopReason(update.stop_string, update.stop_token, out_);
    }
    if (request_.return_token_ids) {
      out_ += R"(,"token_ids":)";
      AppendTokenIds(content ? std::span<const GeneratedToken>(update.tokens)
                             : std::span<const GeneratedToken>(),
                     out_);
      if (!chat() && !choice.begun && content) {
        out_ += R"(,"prompt_token_ids":)";
        AppendTokenIds(prompt.start.prompt_ids, out_);
      }
    }
    out_ += "}]";
    AppendTail();
  }

  void AppendText(std::string_view text, FinishReason finish) {
    if (!chat()) {
      out_ += R"(,"text":)";
      AppendJsonString(text, out_);
    } else if (text.empty() && finish != FinishReason::kNone) {
      out_ += R"(,"delta":{})";
    } else {
      out_ += R"(,"delta":{"content":)";
      AppendJsonString(text, out_);
      out_ += '}';
    }
  }

  void AppendTail() {
    if (request_.continuous_usage) {
      out_ += R"(,"usage":)";
      AppendUsage(TotalUsage(), out_);
    } else if (request_.include_usage) {
      out_ += R"(,"usage":null)";
    }
    out_ += "}\n\n";
  }

  void OnComplete() override {
    out_.clear();
    if (request_.include_usage) {
      out_ += "data: " + Envelope(chat() ? "chat.completion.chunk" : "text_completion");
      out_ += R"("choices":[],"usage":)";
      AppendUsage(TotalUsage(), out_);
      out_ += "}\n\n";
    }
    out_ += kDone;
    exchange_->Write(out_);
    exchange_->End();
  }

  void OnFault(const ApiError& error) override {
    if (!exchange_->head_sent()) return exchange_->Respond(ResponseOf(error));
    out_ = "data: " + BodyOf(error) + "\n\n";
    out_ += kDone;
    exchange_->Write(out_);
    exchange_->End();
  }

  bool resumable_ = false;
  std::vector<ResumePoint> points_;  // by choice: what has been written
  std::string prefix_;               // of each chunk, up to the choice
  std::string out_;                  // reused
};

}  // namespace

std::shared_ptr<OpenAiAnswer> MakeStreamAnswer(OpenAiRequest request, HttpExchangePtr exchange,
                                               GenerationService& service, EventLoop& loop) {
  return std::make_shared<StreamAnswer>(std::move(request), std::move(exchange), service, loop);
}

}  // namespace muselet
