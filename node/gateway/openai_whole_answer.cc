#include "base/json.h"
#include "node/gateway/openai_answer.h"

namespace muselet {
namespace {

// Gathers everything and answers once.
class WholeAnswer final : public OpenAiAnswer {
 public:
  WholeAnswer(OpenAiRequest request, HttpExchangePtr exchange, GenerationService& service,
              EventLoop& loop)
      : OpenAiAnswer(std::move(request), std::move(exchange), service, loop) {}

 private:
  void OnChoice(Prompt&, Choice& choice, const ChoiceUpdate& update) override {
    choice.text += update.text;
    if (tokens_shown())
      choice.tokens.insert(choice.tokens.end(), update.tokens.begin(), update.tokens.end());
    if (update.finish == FinishReason::kNone) return;
    choice.finish = update.finish;
    choice.stop_string = update.stop_string;
    choice.stop_token = update.stop_token;
  }

  void OnComplete() override {
    HttpResponse response;
    std::string& body = response.body;
    body = Envelope(chat() ? "chat.completion" : "text_completion");
    body += R"("choices":[)";
    for (Choice& choice : choices_) {
      if (choice.index > 0) body += ',';
      AppendChoice(prompts_[choice.index / request_.generation.choices], choice, body);
    }
    body += R"(],"usage":)";
    AppendUsage(TotalUsage(), body);
    if (chat()) AppendPromptParts(prompts_.front(), body);
    body += '}';
    exchange_->Respond(std::move(response));
  }

  void OnFault(const ApiError& error) override { exchange_->Respond(ResponseOf(error)); }

  void AppendChoice(const Prompt& prompt, Choice& choice, std::string& body) const {
    body += R"({"index":)";
    AppendInteger(choice.index, body);
    body += chat() ? R"(,"message":{"role":"assistant","content":)" : R"(,"text":)";
    AppendJsonString(choice.text, body);
    if (chat()) body += R"(,"refusal":null})";
    body += R"(,"logprobs":)";
    AppendLogprobs(prompt, choice, choice.tokens, true, body);
    body += R"(,"finish_reason":)";
    AppendFinishReason(choice.finish, body);
    body += R"(,"stop_reason":)";
    AppendStopReason(choice.stop_string, choice.stop_token, body);
    if (request_.return_token_ids) {
      body += R"(,"token_ids":)";
      AppendTokenIds(choice.tokens, body);
    }
    if (!chat()) AppendPromptParts(prompt, body);
    body += '}';
  }

  void AppendPromptParts(const Prompt& prompt, std::string& body) const {
    if (request_.return_token_ids) {
      body += R"(,"prompt_token_ids":)";
      AppendTokenIds(prompt.start.prompt_ids, body);
    }
    if (request_.prompt_logprobs.has_value()) {
      body += R"(,"prompt_logprobs":)";
      AppendPromptLogprobs(prompt.start.prompt_tokens, body);
    }
  }
};

}  // namespace

std::shared_ptr<OpenAiAnswer> MakeWholeAnswer(OpenAiRequest request, HttpExchangePtr exchange,
                                              GenerationService& service, EventLoop& loop) {
  return std::make_shared<WholeAnswer>(std::move(request), std::move(exchange), service, loop);
}

}  // namespace muselet
