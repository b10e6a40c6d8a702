#include "base/json.h"
#include "node/gateway/openai_answer.h"

namespace muselet {
namespace {

constexpr std::string_view kDone = "data: [DONE]\n\n";
constexpr std::string_view kKeepAlive = ": keep-alive\n\n";

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
  }

 private:
  void OnChoice(Prompt& prompt, Choice& choice, const ChoiceUpdate& update) override {
    if (prefix_.empty()) {
      prefix_ = "data: " + Envelope(chat() ? "chat.completion.chunk" : "text_completion");
      prefix_ += R"("choices":[)";
    }
    out_.clear();
    prompt.usage.prompt_tokens = static_cast<uint32_t>(prompt.start.prompt_ids.size());
    if (!choice.begun && chat()) AppendRole(prompt, choice);
    prompt.usage.generation_tokens += static_cast<uint32_t>(update.tokens.size());
    const bool finished = update.finish != FinishReason::kNone;
    const bool shows_tokens = tokens_shown() && !update.tokens.empty();
    const bool echoes = !choice.begun && request_.generation.echo && request_.logprobs;
    if (!update.text.empty() || (!finished && (shows_tokens || echoes))) {
      AppendChunk(prompt, choice, update, true, FinishReason::kNone);
      if (finished) AppendChunk(prompt, choice, update, false, update.finish);
    } else if (finished) {
      AppendChunk(prompt, choice, update, true, update.finish);
    }
    if (!out_.empty()) exchange_->Write(out_);
  }

  void AppendRole(const Prompt& prompt, const Choice& choice) {
    out_ += prefix_;
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
    out_ += prefix_;
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

  std::string prefix_;  // of each chunk, up to the choice
  std::string out_;     // reused
};

}  // namespace

std::shared_ptr<OpenAiAnswer> MakeStreamAnswer(OpenAiRequest request, HttpExchangePtr exchange,
                                               GenerationService& service, EventLoop& loop) {
  return std::make_shared<StreamAnswer>(std::move(request), std::move(exchange), service, loop);
}

}  // namespace muselet
