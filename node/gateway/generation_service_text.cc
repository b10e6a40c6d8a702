// Tokenizing and detokenizing for clients, and the work on prompts.
#include <utility>

#include "base/clock.h"
#include "node/gateway/generation_service.h"
#include "node/gateway/prompt_text.h"
#include "node/gateway/text_pool.h"
#include "node/text/tokenizer.h"

namespace muselet {
namespace {

// Prompts up to this size are tokenized on the loop: handing them over would take longer.
constexpr size_t kInlinePromptBytes = 4096;

}  // namespace

void GatewayService::Prepare(const GatewayModel& model, PromptVariant prompt, int64_t now_unix_us,
                             std::function<void(Result<PreparedPrompt>)> done) {
  const bool small = PromptBytes(prompt) <= kInlinePromptBytes;
  auto work = [text = model.text, prompt = std::make_shared<PromptVariant>(std::move(prompt)),
               now_unix_us] { return PreparePrompt(text.get(), *prompt, now_unix_us); };
  // What is posted may be run after the service has gone.
  const std::weak_ptr<const bool> alive = alive_;
  if (small) {
    loop_.Post([alive, work, done] {
      if (!alive.expired()) done(work());
    });
    return;
  }
  const bool taken = pool_->Submit([&loop = loop_, alive, work, done] {
    loop.Post([alive, done, result = std::make_shared<Result<PreparedPrompt>>(work())] {
      if (!alive.expired()) done(std::move(*result));
    });
  });
  if (taken) return;
  loop_.Post([alive, done] {
    if (!alive.expired()) done(ResourceExhausted("too many prompts are being read; retry later"));
  });
}

void GatewayService::Tokenize(const std::string& model_id,
                              std::variant<ChatPrompt, TextPrompt> prompt,
                              TokenizeCallback callback) {
  const GatewayModel* model = FindModel(model_id);
  const std::weak_ptr<const bool> alive = alive_;
  if (model == nullptr) {
    loop_.Post([callback = std::move(callback), model_id] {
      callback(NotFound("The model '" + model_id + "' does not exist"));
    });
    return;
  }
  PromptVariant any = std::visit([](auto& kind) { return PromptVariant(std::move(kind)); }, prompt);
  Prepare(*model, std::move(any), Clock::Real().UnixUs(),
          [text = model->text, callback = std::move(callback)](Result<PreparedPrompt> prepared) {
            if (!prepared.ok()) {
              callback(prepared.status());
              return;
            }
            Tokenized tokenized;
            tokenized.ids = std::move(prepared->ids);
            for (const TokenId id : tokenized.ids)
              tokenized.texts.emplace_back(TokenizerOf(text.get())->TokenText(id));
            callback(std::move(tokenized));
          });
}

void GatewayService::Detokenize(const std::string& model_id, std::vector<TokenId> ids,
                                DetokenizeCallback callback) {
  const GatewayModel* model = FindModel(model_id);
  Status fault;
  if (model == nullptr) {
    fault = NotFound("The model '" + model_id + "' does not exist");
  } else if (TokenizerOf(model->text.get()) == nullptr) {
    fault = InvalidArgument("model " + model_id + " has no tokenizer");
  } else {
    for (const TokenId id : ids) {
      if (id >= 0 && static_cast<uint32_t>(id) < model->vocab_size) continue;
      fault = InvalidArgument("tokens holds id " + std::to_string(id) +
                              ", which is not in the vocabulary");
      break;
    }
  }
  loop_.Post([fault, text = model ? model->text : nullptr, ids = std::move(ids),
              callback = std::move(callback)] {
    if (!fault.ok()) {
      callback(fault);
    } else {
      callback(TextOf(*TokenizerOf(text.get()), ids, true));
    }
  });
}

}  // namespace muselet
