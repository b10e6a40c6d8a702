// Stand-ins for what a gateway talks to: a byte-level tokenizer, a scheduler that hands out
// tickets, a node that computes a pure function of the record one token a Step, a sink that
// remembers. All on one event loop that the test turns by hand.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comms/event_loop.h"
#include "comms/message_socket.h"
#include "node/gateway/generation.h"
#include "node/text/text_model.h"

namespace muselet::testing {

constexpr TokenId kEndToken = 256;
constexpr uint32_t kByteVocab = 258;

// One token a byte; 256 is "<end>", 257 is "<start>", both control.
class ByteTokenizer final : public Tokenizer {
 public:
  ByteTokenizer() {
    for (int i = 0; i < 256; ++i) bytes_.push_back(std::string(1, static_cast<char>(i)));
    bytes_.push_back("<end>");
    bytes_.push_back("<start>");
  }
  Result<std::vector<TokenId>> Encode(std::string_view text, SpecialTokens,
                                      std::span<const TextRange>) const override {
    std::vector<TokenId> ids;
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
  }
  std::string_view TokenBytes(TokenId id) const override {
    return id >= 0 && id < kEndToken ? std::string_view(bytes_[id]) : std::string_view();
  }
  std::string_view TokenText(TokenId id) const override {
    return id >= 0 && id < static_cast<TokenId>(bytes_.size()) ? std::string_view(bytes_[id])
                                                               : std::string_view();
  }
  bool IsControl(TokenId id) const override { return id >= kEndToken; }
  uint32_t vocab_size() const override { return kByteVocab; }
  std::optional<TokenId> bos() const override { return 257; }
  bool adds_bos() const override { return false; }
  std::optional<TokenId> FindToken(std::string_view) const override { return std::nullopt; }

 private:
  std::vector<std::string> bytes_;
};

class JoinTemplate final : public ChatTemplate {
 public:
  Result<RenderedPrompt> Render(const ChatTemplateInput& input) const override {
    RenderedPrompt prompt;
    for (const Json& message : input.messages) {
      if (!message.contains("content")) return InvalidArgument("a message has no content");
      prompt.text += message["content"].get<std::string>() + "\n";
    }
    return prompt;
  }
};

inline std::shared_ptr<const TextModel> ByteTextModel() {
  auto text = std::make_shared<TextModel>();
  text->tokenizer = std::make_unique<ByteTokenizer>();
  text->chat_template = std::make_unique<JoinTemplate>();
  return text;
}

// Turns `loop` until `done` holds; false after five seconds of waiting in vain.
inline bool TurnUntil(EventLoop& loop, const std::function<bool()>& done) {
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  while (!done()) {
    if (std::chrono::steady_clock::now() > give_up) return false;
    loop.io().run_one_for(std::chrono::milliseconds(20));
  }
  return true;
}

// What the fake model says at `index`: a letter that depends on the whole record, so that a wrong
// index, seed or choice shows.
inline TokenId PureToken(const Submit& submit, size_t index) {
  uint64_t mix = submit.sampling.seed * 31 + submit.sequence.choice * 7 + index * 1000003;
  for (const TokenId id : submit.prompt) mix = mix * 131 + static_cast<uint64_t>(id);
  return static_cast<TokenId>('a' + (mix >> 7) % 26);
}

class FakeNode {
 public:
  FakeNode(EventLoop& loop, WireContext& context, const std::string& name,
           const std::string& endpoint)
      : name_(name) {
    auto server = MessageServer::Bind(
        loop, context, {name, RequestId::Random().low}, endpoint,
        [this](const std::string& peer, Envelope envelope) { On(peer, std::move(envelope)); });
    CHECK(server.ok(), server.status().message());
    server_ = std::move(*server);
  }
  const std::string& endpoint() const { return server_->endpoint(); }

  // One token of each sequence, as a step of a replica would give it.
  void Step() {
    std::map<std::string, Tokens> out;
    for (auto entry = running.begin(); entry != running.end();) {
      Submit& submit = entry->second.submit;
      const size_t index = submit.generated.size();
      TokenUpdate update;
      update.sequence = submit.sequence;
      update.attempt = submit.attempt;
      update.first_index = static_cast<uint32_t>(index);
      const TokenId id = script ? script(submit, index) : PureToken(submit, index);
      update.tokens.push_back({id, -0.5F, {}});
      submit.generated.push_back(id);
      if (index == 0 && submit.sampling.prompt_logprobs >= 0) {
        for (size_t i = 1; i < submit.prompt.size(); ++i)
          update.prompt_logprobs.push_back({submit.prompt[i], -1.0F - static_cast<float>(i), {}});
      }
      const bool ends =
          std::count(submit.stop.end_tokens.begin(), submit.stop.end_tokens.end(), id) > 0 &&
          index >= submit.stop.min_tokens;
      if (ends)
        update.finish = FinishReason::kStop;
      else if (submit.generated.size() >= submit.stop.max_tokens)
        update.finish = FinishReason::kLength;
      const bool over = update.finish != FinishReason::kNone;
      out[entry->second.peer].updates.push_back(std::move(update));
      entry = over ? running.erase(entry) : std::next(entry);
    }
    for (auto& [peer, tokens] : out) (void)server_->Send(peer, std::move(tokens));
  }

  struct Running {
    std::string peer;
    Submit submit;
  };
  std::map<SequenceId, Running> running;
  std::vector<Submit> submits;
  std::vector<Cancel> cancels;
  std::function<TokenId(const Submit&, size_t)> script;  // instead of PureToken
  bool deaf = false;                                     // takes nothing in, answers nothing

 private:
  void On(const std::string& peer, Envelope envelope) {
    if (deaf) return;
    if (std::holds_alternative<Hello>(envelope.body)) {
      (void)server_->Send(peer, Welcome{name_});
    } else if (auto* submit = std::get_if<Submit>(&envelope.body)) {
      submits.push_back(*submit);
      running[submit->sequence] = {peer, std::move(*submit)};
    } else if (auto* cancel = std::get_if<Cancel>(&envelope.body)) {
      cancels.push_back(*cancel);
      running.erase(cancel->sequence);
    }
  }

  std::string name_;
  std::unique_ptr<MessageServer> server_;
};

class FakeScheduler {
 public:
  FakeScheduler(EventLoop& loop, WireContext& context, const std::string& endpoint) {
    auto server = MessageServer::Bind(
        loop, context, {"s0", RequestId::Random().low}, endpoint,
        [this](const std::string& peer, Envelope envelope) { On(peer, std::move(envelope)); });
    CHECK(server.ok(), server.status().message());
    server_ = std::move(*server);
  }
  const std::string& endpoint() const { return server_->endpoint(); }
  void Send(Message message) { (void)server_->Send(gateway_, std::move(message)); }

  std::string node;  // endpoint of the next tickets; empty: places wait
  std::string replica = "r0";
  std::vector<Place> places;
  std::vector<Release> releases;
  std::optional<Refused> refusal;  // answers all places

 private:
  void On(const std::string& peer, Envelope envelope) {
    gateway_ = peer;
    if (std::holds_alternative<Hello>(envelope.body)) {
      Send(Welcome{"s0"});
      Send(ModelTable{{{"bytes", "fake-numerics", 1, 64}}});
    } else if (auto* place = std::get_if<Place>(&envelope.body)) {
      places.push_back(*place);
      if (refusal) {
        refusal->request = place->request;
        refusal->attempt = place->attempt;
        Send(*refusal);
      } else if (!node.empty()) {
        Send(Ticket{place->request, place->attempt, replica, node, 1, {}});
      }
    } else if (auto* release = std::get_if<Release>(&envelope.body)) {
      releases.push_back(*release);
    }
  }

  std::string gateway_;
  std::unique_ptr<MessageServer> server_;
};

// What a client of the gateway saw.
struct Seen {
  std::optional<GenerationStart> start;
  std::vector<ChoiceUpdate> updates;
  std::optional<GenerationUsage> done;
  std::optional<GenerationError> error;
  int ends = 0;
  bool over() const { return ends > 0; }

  std::string Text(uint32_t choice = 0) const {
    std::string text;
    for (const ChoiceUpdate& update : updates) {
      if (update.choice == choice) text += update.text;
    }
    return text;
  }
  std::vector<TokenId> Ids(uint32_t choice = 0) const {
    std::vector<TokenId> ids;
    for (const ChoiceUpdate& update : updates) {
      if (update.choice != choice) continue;
      for (const GeneratedToken& token : update.tokens) ids.push_back(token.sampled.id);
    }
    return ids;
  }
  FinishReason Finish(uint32_t choice = 0) const {
    for (const ChoiceUpdate& update : updates) {
      if (update.choice == choice && update.finish != FinishReason::kNone) return update.finish;
    }
    return FinishReason::kNone;
  }
};

class SeeingSink final : public GenerationSink {
 public:
  explicit SeeingSink(std::shared_ptr<Seen> seen) : seen_(std::move(seen)) {}
  void OnStart(const GenerationStart& start) override { seen_->start = start; }
  void OnUpdate(const ChoiceUpdate& update) override { seen_->updates.push_back(update); }
  void OnDone(const GenerationUsage& usage) override {
    seen_->done = usage;
    ++seen_->ends;
  }
  void OnError(const GenerationError& error) override {
    seen_->error = error;
    ++seen_->ends;
  }

 private:
  std::shared_ptr<Seen> seen_;
};

}  // namespace muselet::testing
