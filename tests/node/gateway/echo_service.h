// A GenerationService without a cluster: answers with the bytes of the prompt, one token a turn of
// the loop. What is asked of it can be looked at.
#pragma once

#include <atomic>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "comms/event_loop.h"
#include "node/gateway/generation.h"

namespace muselet::testing {

class EchoService final : public GenerationService {
 public:
  explicit EchoService(EventLoop& loop) : loop_(loop) {}

  RequestId Start(GenerationRequest request, std::unique_ptr<GenerationSink> sink) override {
    const RequestId id = RequestId::Random();
    {
      const std::lock_guard lock(mutex_);
      last_request_ = request;
    }
    started.fetch_add(1);
    open_[id] = {std::move(request), std::move(sink), 0};
    loop_.Post([this, id] { Begin(id); });
    return id;
  }
  void Cancel(const RequestId& request) override {
    const auto found = open_.find(request);
    if (found == open_.end()) return;
    cancelled.fetch_add(1);
    // Its sink may be the caller.
    loop_.Post([sink = std::shared_ptr<GenerationSink>(std::move(found->second.sink))] {});
    open_.erase(found);
  }
  std::vector<ServedModel> Models() const override { return {{"echo", 64, 1, true, true}}; }
  Status Ready() const override { return ready ? OkStatus() : Unavailable("no replica"); }
  void Tokenize(const std::string&, std::variant<ChatPrompt, TextPrompt>,
                TokenizeCallback callback) override {
    loop_.Post([callback] { callback(Tokenized()); });
  }
  void Detokenize(const std::string&, std::vector<TokenId>, DetokenizeCallback callback) override {
    loop_.Post([callback] { callback(std::string()); });
  }

  // Any thread.
  GenerationRequest last_request() const {
    const std::lock_guard lock(mutex_);
    return last_request_;
  }
  std::atomic<bool> ready = true;
  std::atomic<bool> endless = false;  // answers never end
  std::atomic<int> started = 0;
  std::atomic<int> cancelled = 0;

 private:
  struct Open {
    GenerationRequest request;
    std::unique_ptr<GenerationSink> sink;
    size_t said = 0;
  };

  static std::string PromptOf(const GenerationRequest& request) {
    if (const auto* chat = std::get_if<ChatPrompt>(&request.prompt)) {
      std::string text;
      for (const Json& turn : chat->messages)
        text += turn["role"].get<std::string>() + ":" + turn["content"].get<std::string>() + ";";
      return text;
    }
    if (const auto* text = std::get_if<TextPrompt>(&request.prompt)) return text->text;
    std::string text;
    for (const TokenId id : std::get<TokenPrompt>(request.prompt).ids)
      text += static_cast<char>(id);
    return text;
  }

  void Begin(const RequestId& id) {
    const auto found = open_.find(id);
    if (found == open_.end()) return;
    if (found->second.request.model != "echo") {
      const auto sink = std::move(found->second.sink);
      open_.erase(found);
      return sink->OnError({NotFound("no such model"), "model", 0});
    }
    GenerationStart start;
    start.request = id;
    start.model = "echo";
    found->second.sink->OnStart(start);
    loop_.Post([this, id] { Say(id); });
  }

  // As a model would: an endless answer as fast as the loop turns fills any queue.
  void SayLater(const RequestId& id) {
    auto timer = std::make_shared<boost::asio::steady_timer>(loop_.io());
    timer->expires_after(std::chrono::milliseconds(1));
    timer->async_wait([this, id, timer](const boost::system::error_code&) { Say(id); });
  }

  void Say(const RequestId& id) {
    const auto found = open_.find(id);
    if (found == open_.end()) return;
    Open& open = found->second;
    const std::string text = PromptOf(open.request);
    const bool last = !endless && open.said + 1 >= text.size();
    for (uint32_t choice = 0; choice < open.request.choices; ++choice) {
      ChoiceUpdate update;
      update.choice = choice;
      update.text = text.substr(open.said % text.size(), 1);
      SampledToken token{static_cast<TokenId>(update.text[0]), -0.25F, {}};
      if (open.request.sampling.logprobs > 0) token.top.push_back({65, -1.5F});
      update.tokens.push_back({token, update.text, {}});
      if (last) update.finish = FinishReason::kLength;
      open.sink->OnUpdate(update);
      if (open_.count(id) == 0) return;
    }
    ++open.said;
    if (endless) return SayLater(id);
    if (!last) return loop_.Post([this, id] { Say(id); });
    const auto sink = std::move(open.sink);
    const auto said = static_cast<uint32_t>(open.said);
    const uint32_t choices = open.request.choices;
    open_.erase(found);
    sink->OnDone({said, said * choices, 0});
  }

  EventLoop& loop_;
  std::map<RequestId, Open> open_;
  mutable std::mutex mutex_;
  GenerationRequest last_request_;
};

}  // namespace muselet::testing
