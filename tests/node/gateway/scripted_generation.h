// A GenerationService that says what a test tells it to, so that the HTTP door is tested alone.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "node/gateway/generation.h"
#include "tests/node/gateway/http_client.h"
#include "tests/node/gateway/loop_thread.h"

namespace muselet::testing {

class ScriptedGeneration : public GenerationService {
 public:
  struct Call {
    GenerationRequest request;
    std::unique_ptr<GenerationSink> sink;
  };
  // Runs on the loop after each Start; may call the sink's methods, the last one included.
  using Script = std::function<void(const RequestId& id, const GenerationRequest& request,
                                    GenerationSink& sink)>;

  explicit ScriptedGeneration(EventLoop& loop) : loop_(loop) {}

  RequestId Start(GenerationRequest request, std::unique_ptr<GenerationSink> sink) override {
    const RequestId id = {0, ++started_};
    calls_[id] = std::make_unique<Call>(Call{std::move(request), std::move(sink)});
    loop_.Post([this, id] {
      const auto found = calls_.find(id);
      if (found == calls_.end()) return;
      if (script) script(id, found->second->request, *found->second->sink);
      Notify();
    });
    return id;
  }
  void Cancel(const RequestId& request) override {
    calls_.erase(request);
    std::lock_guard<std::mutex> lock(mutex_);
    ++cancelled_;
    changed_.notify_all();
  }
  std::vector<ServedModel> Models() const override { return models; }
  Status Ready() const override { return ready; }
  void Tokenize(const std::string&, std::variant<ChatPrompt, TextPrompt> prompt,
                TokenizeCallback callback) override {
    const auto* text = std::get_if<TextPrompt>(&prompt);
    Tokenized result;
    for (const char c : text != nullptr ? text->text : std::string("chat")) {
      result.ids.push_back(c);
      result.texts.emplace_back(1, c);
    }
    loop_.Post([callback = std::move(callback), result = std::move(result)] { callback(result); });
  }
  void Detokenize(const std::string&, std::vector<TokenId> ids,
                  DetokenizeCallback callback) override {
    std::string text;
    for (const TokenId id : ids) text += static_cast<char>(id);
    loop_.Post([callback = std::move(callback), text = std::move(text), count = ids.size()] {
      callback(count > 0 ? Result<std::string>(text) : InvalidArgument("no tokens"));
    });
  }

  // From the test's thread.
  bool WaitForCancels(int count) {
    std::unique_lock<std::mutex> lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] { return cancelled_ >= count; });
  }
  bool WaitForScripts(int count) {
    std::unique_lock<std::mutex> lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] { return scripted_ >= count; });
  }
  // On the loop.
  GenerationSink& sink(uint64_t number) { return *calls_.at(RequestId{0, number})->sink; }
  bool runs(uint64_t number) const { return calls_.count(RequestId{0, number}) > 0; }
  void Forget(const RequestId& id) { calls_.erase(id); }

  Script script;
  std::vector<ServedModel> models = {{"smol", 2048, 1, true, true}};
  Status ready;

 private:
  void Notify() {
    std::lock_guard<std::mutex> lock(mutex_);
    ++scripted_;
    changed_.notify_all();
  }

  EventLoop& loop_;
  uint64_t started_ = 0;
  std::map<RequestId, std::unique_ptr<Call>> calls_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int cancelled_ = 0;  // guarded by mutex_, as scripted_
  int scripted_ = 0;
};

inline GeneratedToken MakeToken(TokenId id, const std::string& text, float logprob = -0.5F) {
  GeneratedToken token;
  token.sampled.id = id;
  token.sampled.logprob = logprob;
  token.sampled.top = {{id, logprob}, {id + 100, -2.25F}};
  token.text = text;
  token.top_texts = {text, "~" + text};
  return token;
}

inline void SendStart(const RequestId& id, GenerationSink& sink,
                      std::vector<TokenId> prompt_ids = {1, 2, 3}) {
  GenerationStart start;
  start.request = id;
  start.model = "smol";
  start.numerics_id = "cpu-f32";
  start.prompt_ids = std::move(prompt_ids);
  sink.OnStart(start);
}
inline void SendText(GenerationSink& sink, uint32_t choice, const std::string& text, TokenId id,
                     FinishReason finish = FinishReason::kNone) {
  ChoiceUpdate update;
  update.choice = choice;
  update.text = text;
  update.tokens = {MakeToken(id, text)};
  update.finish = finish;
  sink.OnUpdate(update);
}
// "Hello world" in two tokens for each choice.
inline void SayHello(const RequestId& id, const GenerationRequest& request, GenerationSink& sink) {
  SendStart(id, sink);
  for (uint32_t c = 0; c < request.choices; ++c) SendText(sink, c, "Hello", 11);
  for (uint32_t c = 0; c < request.choices; ++c)
    SendText(sink, c, " world", 12, FinishReason::kLength);
  sink.OnDone({3, 2 * request.choices, 1});
}

}  // namespace muselet::testing
