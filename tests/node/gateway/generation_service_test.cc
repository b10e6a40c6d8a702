#include "node/gateway/generation_service.h"

#include <gtest/gtest.h>

#include <numeric>

#include "node/gateway/admission.h"
#include "tests/node/gateway/gateway_fakes.h"

namespace muselet {
namespace {

using testing::ByteTextModel;
using testing::FakeNode;
using testing::FakeScheduler;
using testing::kByteVocab;
using testing::kEndToken;
using testing::SeeingSink;
using testing::Seen;
using testing::TurnUntil;

class GenerationServiceTest : public ::testing::Test {
 protected:
  GenerationServiceTest()
      : metrics_(registry_, "g0", {"bytes", "raw"}),
        scheduler_(loop_, context_, "tcp://127.0.0.1:0"),
        node_(loop_, context_, "n0", "tcp://127.0.0.1:0") {
    scheduler_.node = node_.endpoint();
    options_.name = "g0";
    options_.cluster = "test";
    options_.schedulers = {scheduler_.endpoint()};
    options_.gateway.heartbeat_interval_us = 20'000;
    options_.gateway.peer_timeout_us = 400'000;
    options_.models = {{"bytes", ByteTextModel(), 64, kByteVocab, {kEndToken}},
                       {"raw", nullptr, 64, kByteVocab, {kEndToken}}};
  }

  void Begin() {
    auto service = GatewayService::Start(options_, {"g0", 7}, loop_, context_, metrics_);
    ASSERT_TRUE(service.ok()) << service.status().message();
    service_ = std::move(*service);
    ASSERT_TRUE(TurnUntil(loop_, [&] { return service_->Models()[0].replicas_ready == 1; }));
  }

  static GenerationRequest TextRequest(const std::string& text, uint32_t max_tokens) {
    GenerationRequest request;
    request.model = "bytes";
    request.prompt = TextPrompt{text};
    request.max_tokens = max_tokens;
    request.has_seed = true;
    request.sampling.seed = 5;
    return request;
  }

  std::shared_ptr<Seen> Ask(GenerationRequest request) {
    auto seen = std::make_shared<Seen>();
    last_id_ = service_->Start(std::move(request), std::make_unique<SeeingSink>(seen));
    EXPECT_FALSE(seen->over());
    return seen;
  }

  // Steps `node` until the request ends or `limit` steps have been made.
  bool StepUntilOver(FakeNode& node, const Seen& seen, int limit = 200) {
    for (int i = 0; i < limit && !seen.over(); ++i) {
      node.Step();
      const size_t before = seen.updates.size();
      TurnUntil(loop_, [&] {
        return seen.over() || seen.updates.size() > before || node.running.empty();
      });
    }
    return TurnUntil(loop_, [&] { return seen.over(); });
  }

  bool AwaitSubmit(FakeNode& node, size_t count = 1) {
    return TurnUntil(loop_, [&] { return node.submits.size() >= count; });
  }

  // A node that says `text` byte by byte, then the end token.
  static std::function<TokenId(const Submit&, size_t)> Say(const std::string& text) {
    return [text](const Submit&, size_t index) {
      return index < text.size() ? static_cast<unsigned char>(text[index]) : kEndToken;
    };
  }

  EventLoop loop_{"test"};
  WireContext context_;
  MetricRegistry registry_;
  GatewayMetrics metrics_;
  FakeScheduler scheduler_;
  FakeNode node_;
  GatewayServiceOptions options_;
  std::unique_ptr<GatewayService> service_;
  RequestId last_id_;
};

// What a client that has `point` of the answer is told.
std::string Unseen(const Seen& seen) {
  std::string text;
  for (const ChoiceUpdate& update : seen.updates) {
    if (!update.text_seen) text += update.text;
    if (update.finish != FinishReason::kNone && !update.finish_seen) text += "|";
  }
  return text;
}

TEST_F(GenerationServiceTest, AResumedAnswerGoesOnWhereTheClientStopped) {
  Begin();
  node_.script = Say("h\xC3\xA9llo w\xE2\x82\xACrld, stop here");
  const auto request = [&] {
    GenerationRequest request = TextRequest("hello", 40);
    request.stop_strings = {" here"};
    request.fixed = FixedParts{{4, 4}, 5, 0, true};
    return request;
  };
  const auto whole = Ask(request());
  ASSERT_TRUE(AwaitSubmit(node_));
  EXPECT_EQ(node_.submits[0].sequence.request, (RequestId{4, 4}));
  ASSERT_TRUE(StepUntilOver(node_, *whole));
  const std::string text = whole->Text();
  ASSERT_EQ(text, "h\xC3\xA9llo w\xE2\x82\xACrld, stop");
  EXPECT_EQ(whole->start->request, (RequestId{4, 4}));
  const auto resume = [&](ResumePoint point) {
    GenerationRequest again = request();
    again.resume = {point};
    const size_t submits = node_.submits.size();
    const auto seen = Ask(std::move(again));
    EXPECT_TRUE(AwaitSubmit(node_, submits + 1));
    EXPECT_TRUE(StepUntilOver(node_, *seen));
    return Unseen(*seen);
  };
  std::string before;
  uint32_t tokens = 0;
  for (const ChoiceUpdate& update : whole->updates) {
    EXPECT_EQ(resume({tokens, ResumePoint::Stage::kTokens}), text.substr(before.size()) + "|");
    before += update.text;
    tokens += static_cast<uint32_t>(update.tokens.size());
  }
  EXPECT_EQ(resume({tokens, ResumePoint::Stage::kText}), "|");
  EXPECT_EQ(resume({tokens, ResumePoint::Stage::kFinished}), "");
  EXPECT_EQ(resume({1000, ResumePoint::Stage::kTokens}), "|") << "more than there is";
}

TEST_F(GenerationServiceTest, ASurfaceGivesItsClassShareSaltAndTime) {
  SurfaceOptions surface;
  surface.name = "glasses";
  surface.request_class = RequestClass::kRealtime;
  surface.share = 2.5;
  surface.timeout_us = 30'000'000;
  surface.prefix_salt = "family";
  SurfaceOptions phone = surface;
  phone.name = "phone";
  SurfaceOptions other;
  other.name = "other";
  options_.surfaces = {surface, phone, other};
  Begin();
  const auto submit_of = [&](const std::string& name, int64_t timeout_us) {
    GenerationRequest request = TextRequest("hello", 4);
    request.surface = name;
    request.timeout_us = timeout_us;
    const size_t submits = node_.submits.size();
    const auto seen = Ask(std::move(request));
    EXPECT_TRUE(AwaitSubmit(node_, submits + 1));
    EXPECT_TRUE(StepUntilOver(node_, *seen));
    return node_.submits.back();
  };
  const Submit glasses = submit_of("glasses", 0);
  EXPECT_EQ(glasses.request_class, RequestClass::kRealtime);
  EXPECT_EQ(glasses.share, 2.5);
  EXPECT_LE(glasses.timeout_us, 30'000'000);
  EXPECT_GT(glasses.timeout_us, 20'000'000);
  EXPECT_EQ(submit_of("phone", 0).cache_salt, glasses.cache_salt);
  const Submit stranger = submit_of("other", 5'000'000);
  EXPECT_NE(stranger.cache_salt, glasses.cache_salt);
  EXPECT_LE(stranger.timeout_us, 5'000'000);
  EXPECT_EQ(stranger.request_class, RequestClass::kInteractive);
  const auto place = scheduler_.places.back();
  EXPECT_EQ(place.surface, "other");

  GenerationRequest unknown = TextRequest("hello", 4);
  unknown.surface = "nobody";
  const auto seen = Ask(std::move(unknown));
  ASSERT_TRUE(TurnUntil(loop_, [&] { return seen->over(); }));
  EXPECT_EQ(seen->error->status.code(), StatusCode::kPermissionDenied);
  EXPECT_EQ(seen->error->status.message(), "surface 'nobody' is not known to this gateway");
}

TEST_F(GenerationServiceTest, ASurfaceLimitsWhatTemplatesAreToldOfThought) {
  SurfaceOptions surface;
  const auto budget = [&](Json given) {
    GenerationRequest request;
    ChatPrompt chat;
    if (!given.is_null()) chat.template_kwargs["thinking_budget"] = std::move(given);
    request.prompt = std::move(chat);
    LimitThought(surface, request);
    return std::get<ChatPrompt>(request.prompt).template_kwargs.dump();
  };
  EXPECT_EQ(budget(nullptr), "{}");
  EXPECT_EQ(budget(500), R"({"thinking_budget":500})");
  surface.reasoning_tokens_max = 256;
  EXPECT_EQ(budget(nullptr), R"({"thinking_budget":256})");
  EXPECT_EQ(budget(500), R"({"thinking_budget":256})");
  EXPECT_EQ(budget(-1), R"({"thinking_budget":0})");
  surface.reasoning_tokens_default = 64;
  EXPECT_EQ(budget(nullptr), R"({"thinking_budget":64})");
  EXPECT_EQ(budget(100), R"({"thinking_budget":100})");
}

TEST_F(GenerationServiceTest, AnAuditThatDiffersIsCounted) {
  FakeNode other(loop_, context_, "n1", "tcp://127.0.0.1:0");
  options_.gateway.audit_fraction = 1;
  Begin();
  const auto audited = [&](bool wrong) {
    scheduler_.node = node_.endpoint();
    scheduler_.replica = "r0";
    const size_t submits = node_.submits.size();
    const auto seen = Ask(TextRequest("hello", 6));
    EXPECT_TRUE(AwaitSubmit(node_, submits + 1));
    scheduler_.node = other.endpoint();
    scheduler_.replica = "r1";
    other.script = nullptr;
    if (wrong) {
      other.script = [](const Submit& submit, size_t index) {
        return index == 3 ? 'X' : testing::PureToken(submit, index);
      };
    }
    const size_t audits = other.submits.size();
    EXPECT_TRUE(StepUntilOver(node_, *seen));
    EXPECT_TRUE(AwaitSubmit(other, audits + 1));
    EXPECT_EQ(scheduler_.places.back().avoid, std::vector<std::string>{"r0"});
    EXPECT_EQ(other.submits.back().request_class, RequestClass::kBatch);
    const size_t releases = scheduler_.releases.size();
    EXPECT_TRUE(TurnUntil(loop_, [&] {
      other.Step();
      return scheduler_.releases.size() > releases;
    }));
  };
  const auto count = [&](const std::string& line) {
    return registry_.Text().find(line) != std::string::npos;
  };
  audited(false);
  EXPECT_TRUE(count("muselet_audits_total{gateway=\"g0\",result=\"match\"} 1"));
  EXPECT_TRUE(count("muselet_audit_mismatches_total{gateway=\"g0\"} 0"));
  audited(true);
  EXPECT_TRUE(count("muselet_audits_total{gateway=\"g0\",result=\"mismatch\"} 1"));
  EXPECT_TRUE(count("muselet_audit_mismatches_total{gateway=\"g0\"} 1"));
}

TEST_F(GenerationServiceTest, AWordToDrainIsPassedOnIfItIsForThisGateway) {
  int asked = 0;
  options_.drain_asked = [&] { ++asked; };
  Begin();
  scheduler_.Send(Drain{"g1"});
  scheduler_.Send(Drain{"g0"});
  EXPECT_TRUE(TurnUntil(loop_, [&] { return asked > 0; }));
  EXPECT_EQ(asked, 1);
}

TEST_F(GenerationServiceTest, StreamsAnAnswerAndReleasesEverything) {
  Begin();
  EXPECT_TRUE(service_->Ready().code() == StatusCode::kUnavailable);  // "raw" has no replica
  const auto seen = Ask(TextRequest("hello", 6));
  ASSERT_TRUE(AwaitSubmit(node_));
  ASSERT_TRUE(StepUntilOver(node_, *seen));
  ASSERT_TRUE(seen->start && seen->done);
  EXPECT_EQ(seen->start->request, last_id_);
  EXPECT_EQ(seen->start->numerics_id, "fake-numerics");
  EXPECT_EQ(seen->start->seed, 5U);
  EXPECT_EQ(seen->start->prompt_ids.size(), 5U);
  EXPECT_EQ(seen->Text().size(), 6U);
  EXPECT_EQ(seen->Finish(), FinishReason::kLength);
  EXPECT_EQ(seen->done->prompt_tokens, 5U);
  EXPECT_EQ(seen->done->generation_tokens, 6U);
  EXPECT_TRUE(TurnUntil(loop_, [&] { return scheduler_.releases.size() == 1; }));
  EXPECT_EQ(service_->requests_in_flight(), 0U);
  EXPECT_NE(registry_.Text().find("muselet_requests_total"), std::string::npos);
}

TEST_F(GenerationServiceTest, KeepsTheEndTokenOutOfTheText) {
  node_.script = Say("done.");
  Begin();
  const auto seen = Ask(TextRequest("x", 20));
  ASSERT_TRUE(AwaitSubmit(node_));
  ASSERT_TRUE(StepUntilOver(node_, *seen));
  EXPECT_EQ(seen->Text(), "done.");
  EXPECT_EQ(seen->Finish(), FinishReason::kStop);
  EXPECT_EQ(seen->Ids().back(), kEndToken);
  EXPECT_EQ(seen->done->generation_tokens, 6U);
}

TEST_F(GenerationServiceTest, NeverShowsHalfACharacter) {
  node_.script = Say("gr\xC3\xBC\xC3\x9F");
  Begin();
  const auto seen = Ask(TextRequest("x", 20));
  ASSERT_TRUE(AwaitSubmit(node_));
  ASSERT_TRUE(StepUntilOver(node_, *seen));
  EXPECT_EQ(seen->Text(), "gr\xC3\xBC\xC3\x9F");
  for (const ChoiceUpdate& update : seen->updates) {
    EXPECT_FALSE(update.text.ends_with("\xC3"));
  }
  EXPECT_EQ(seen->updates[2].tokens[0].text, "\xC3");
}

TEST_F(GenerationServiceTest, StopsAtAStopStringAndCancelsOnTheNode) {
  node_.script = Say("one STOP two");
  Begin();
  GenerationRequest request = TextRequest("x", 20);
  request.stop_strings = {"STOP"};
  const auto seen = Ask(std::move(request));
  ASSERT_TRUE(AwaitSubmit(node_));
  ASSERT_TRUE(StepUntilOver(node_, *seen));
  EXPECT_EQ(seen->Text(), "one ");
  EXPECT_EQ(seen->Finish(), FinishReason::kStop);
  EXPECT_EQ(seen->updates.back().stop_string, "STOP");
  EXPECT_EQ(seen->done->generation_tokens, 8U);
  EXPECT_TRUE(TurnUntil(loop_, [&] { return node_.cancels.size() == 1; }));
  EXPECT_TRUE(node_.running.empty());
}

TEST_F(GenerationServiceTest, HeedsMinTokensForStopStringsAndCanIncludeThem) {
  node_.script = Say("aXbXc");
  Begin();
  GenerationRequest request = TextRequest("x", 20);
  request.stop_strings = {"X"};
  request.min_tokens = 3;
  request.include_stop_in_output = true;
  const auto seen = Ask(std::move(request));
  ASSERT_TRUE(AwaitSubmit(node_));
  EXPECT_EQ(node_.submits[0].stop.min_tokens, 3U);
  ASSERT_TRUE(StepUntilOver(node_, *seen));
  EXPECT_EQ(seen->Text(), "aXbX");
}

TEST_F(GenerationServiceTest, IgnoresTheEndTokenWhenToldButNotStopTokenIds) {
  Begin();
  GenerationRequest request = TextRequest("x", 20);
  request.ignore_eos = true;
  request.stop_token_ids = {'c'};
  node_.script = Say("abcd");
  const auto seen = Ask(std::move(request));
  ASSERT_TRUE(AwaitSubmit(node_));
  EXPECT_EQ(node_.submits[0].stop.end_tokens, std::vector<TokenId>{'c'});
  ASSERT_TRUE(StepUntilOver(node_, *seen));
  EXPECT_EQ(seen->Text(), "ab");
  EXPECT_EQ(seen->updates.back().stop_token, 'c');
}

TEST_F(GenerationServiceTest, EchoesThePromptWithItsLogprobs) {
  Begin();
  GenerationRequest request = TextRequest("abc", 2);
  request.echo = true;
  request.choices = 2;
  request.sampling.logprobs = 0;
  const auto seen = Ask(std::move(request));
  ASSERT_TRUE(AwaitSubmit(node_, 2));
  EXPECT_GE(node_.submits[0].sampling.prompt_logprobs + node_.submits[1].sampling.prompt_logprobs,
            -1);
  ASSERT_TRUE(StepUntilOver(node_, *seen));
  ASSERT_EQ(seen->start->prompt_tokens.size(), 3U);
  EXPECT_EQ(seen->start->prompt_tokens[0].text, "a");
  EXPECT_FLOAT_EQ(seen->start->prompt_tokens[1].sampled.logprob, -2.0F);
  for (uint32_t choice = 0; choice < 2; ++choice) {
    EXPECT_EQ(seen->Text(choice).substr(0, 3), "abc");
    EXPECT_EQ(seen->Text(choice).size(), 5U);
  }
  EXPECT_EQ(seen->done->generation_tokens, 4U);
}

TEST_F(GenerationServiceTest, EchoAloneGeneratesNothing) {
  Begin();
  GenerationRequest request = TextRequest("abc", 0);
  request.echo = true;
  const auto seen = Ask(std::move(request));
  ASSERT_TRUE(AwaitSubmit(node_));
  ASSERT_TRUE(StepUntilOver(node_, *seen));
  EXPECT_EQ(seen->Text(), "abc");
  EXPECT_EQ(seen->Finish(), FinishReason::kLength);
  EXPECT_EQ(seen->done->generation_tokens, 0U);
}

TEST_F(GenerationServiceTest, RendersChatsAndTokenizesBigPromptsInThePool) {
  options_.models[0].context_tokens = 50'000;
  Begin();
  GenerationRequest request = TextRequest("", 1);
  ChatPrompt chat;
  chat.messages = Json::array({{{"role", "user"}, {"content", std::string(40, 'q')}}});
  request.prompt = chat;
  const auto small = Ask(request);
  ASSERT_TRUE(AwaitSubmit(node_, 1));
  EXPECT_EQ(node_.submits[0].prompt.size(), 41U);
  chat.messages[0]["content"] = std::string(9000, 'q');
  request.prompt = chat;
  const auto big = Ask(request);
  ASSERT_TRUE(TurnUntil(loop_, [&] { return big->over(); }));
  // The replica's own context counts, which the scheduler's table tells: 64.
  EXPECT_EQ(big->error->param, "messages");
  EXPECT_NE(big->error->status.message().find("9001"), std::string::npos);
  ASSERT_TRUE(StepUntilOver(node_, *small));
}

TEST_F(GenerationServiceTest, RefusesWhatCannotBeServedNamingTheField) {
  Begin();
  const auto refuse = [&](const std::string& param,
                          const std::function<void(GenerationRequest&)>& spoil) {
    GenerationRequest request = TextRequest("abc", 4);
    spoil(request);
    const auto seen = Ask(std::move(request));
    ASSERT_TRUE(TurnUntil(loop_, [&] { return seen->over(); })) << param;
    ASSERT_TRUE(seen->error) << param;
    EXPECT_EQ(seen->error->param, param);
    EXPECT_EQ(seen->ends, 1);
  };
  refuse("model", [](auto& r) { r.model = "nope"; });
  refuse("n", [](auto& r) { r.choices = 0; });
  refuse("n", [](auto& r) { r.choices = 1000; });
  refuse("temperature", [](auto& r) { r.sampling.temperature = -1; });
  refuse("temperature", [](auto& r) { r.sampling.temperature = std::nanf(""); });
  refuse("top_p", [](auto& r) { r.sampling.top_p = 0; });
  refuse("logprobs", [](auto& r) { r.sampling.logprobs = 1000; });
  refuse("stop", [](auto& r) { r.stop_strings = {""}; });
  refuse("stop_token_ids", [](auto& r) { r.stop_token_ids = {9999}; });
  refuse("logit_bias", [](auto& r) { r.sampling.logit_bias = {{-1, 1.0F}}; });
  refuse("prompt", [](auto& r) { r.prompt = TokenPrompt{{1, 258}}; });
  refuse("prompt", [](auto& r) { r.prompt = TextPrompt{""}; });
  refuse("prompt", [](auto& r) { r.prompt = TextPrompt{std::string(64, 'x')}; });
  refuse("prompt", [](auto& r) { r.model = "raw"; });
  refuse("max_tokens", [](auto& r) { r.max_tokens = 0; });
  refuse("max_tokens", [](auto& r) { r.max_tokens = 62; });  // 3 + 62 > 64
  refuse("min_tokens", [](auto& r) { r.min_tokens = 5; });
  EXPECT_TRUE(scheduler_.places.empty());
  EXPECT_EQ(service_->requests_in_flight(), 0U);
}

TEST_F(GenerationServiceTest, ServesTokenIdsWithoutATokenizer) {
  Begin();
  GenerationRequest request = TextRequest("", 3);
  request.model = "raw";
  request.prompt = TokenPrompt{{1, 2, 3}};
  const auto seen = Ask(std::move(request));
  ASSERT_TRUE(AwaitSubmit(node_));
  ASSERT_TRUE(StepUntilOver(node_, *seen));
  EXPECT_EQ(seen->Text(), "");
  EXPECT_EQ(seen->Ids().size(), 3U);
}

TEST_F(GenerationServiceTest, GivesTheRestOfTheContextWhenNoMaximumIsNamed) {
  Begin();
  GenerationRequest request = TextRequest("0123456789", 1);
  request.max_tokens.reset();
  request.has_seed = false;
  const auto seen = Ask(std::move(request));
  ASSERT_TRUE(AwaitSubmit(node_));
  EXPECT_EQ(node_.submits[0].stop.max_tokens, 54U);
  EXPECT_NE(node_.submits[0].sampling.seed, 5U);
  EXPECT_EQ(node_.submits[0].sampling.seed, seen->start->seed);
}

// What was asked for by name fits exactly or is refused with the numbers; a default is cut.
TEST_F(GenerationServiceTest, FillsTheContextToTheLastToken) {
  Begin();
  GenerationRequest over = TextRequest("abc", 62);
  const auto refused = Ask(std::move(over));
  ASSERT_TRUE(TurnUntil(loop_, [&] { return refused->over(); }));
  EXPECT_EQ(refused->error->status.message(),
            "This model's maximum context length is 64 tokens, answer included, and prompt has 3 "
            "tokens: max_tokens may be at most 61, not 62. Leave it out to use what is left.");
  Ask(TextRequest("abc", 61));
  ASSERT_TRUE(AwaitSubmit(node_));
  EXPECT_EQ(node_.submits.back().stop.max_tokens, 61U);
  GenerationRequest preset = TextRequest("abc", 1);
  preset.max_tokens.reset();
  preset.max_tokens_default = 1000;
  Ask(std::move(preset));
  ASSERT_TRUE(TurnUntil(loop_, [&] { return node_.submits.size() == 2; }));
  EXPECT_EQ(node_.submits.back().stop.max_tokens, 61U);
}

TEST_F(GenerationServiceTest, CancelSilencesTheSinkAndFreesTheNode) {
  Begin();
  const auto seen = Ask(TextRequest("hello", 20));
  ASSERT_TRUE(AwaitSubmit(node_));
  node_.Step();
  ASSERT_TRUE(TurnUntil(loop_, [&] { return seen->updates.size() == 1; }));
  service_->Cancel(last_id_);
  EXPECT_TRUE(
      TurnUntil(loop_, [&] { return node_.running.empty() && !scheduler_.releases.empty(); }));
  EXPECT_EQ(seen->updates.size(), 1U);
  EXPECT_EQ(seen->ends, 0);
  EXPECT_EQ(service_->requests_in_flight(), 0U);
}

TEST_F(GenerationServiceTest, ASinkMayCancelFromWithinItsCallbacks) {
  class Canceller final : public GenerationSink {
   public:
    Canceller(GatewayService*& service, int& calls) : service_(service), calls_(calls) {}
    void OnStart(const GenerationStart& start) override {
      ++calls_;
      service_->Cancel(start.request);
    }
    void OnUpdate(const ChoiceUpdate&) override { ++calls_; }
    void OnDone(const GenerationUsage&) override { ++calls_; }
    void OnError(const GenerationError&) override { ++calls_; }

   private:
    GatewayService*& service_;
    int& calls_;
  };
  Begin();
  GatewayService* raw = service_.get();
  int calls = 0;
  service_->Start(TextRequest("hello", 3), std::make_unique<Canceller>(raw, calls));
  ASSERT_TRUE(TurnUntil(loop_, [&] { return calls == 1 && service_->requests_in_flight() == 0; }));
  const auto seen = Ask(TextRequest("hello", 3));
  ASSERT_TRUE(AwaitSubmit(node_));
  ASSERT_TRUE(StepUntilOver(node_, *seen));
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(node_.submits.size(), 1U);
}

TEST_F(GenerationServiceTest, ASilentNodeIsLeftForAnotherOneAndTheClientSeesOneStream) {
  Begin();
  const auto seen = Ask(TextRequest("hello", 8));
  ASSERT_TRUE(AwaitSubmit(node_));
  for (int i = 0; i < 3; ++i) node_.Step();
  ASSERT_TRUE(TurnUntil(loop_, [&] { return seen->Ids().size() == 3; }));
  FakeNode other(loop_, context_, "n1", "tcp://127.0.0.1:0");
  scheduler_.node = other.endpoint();
  node_.deaf = true;
  ::testing::internal::CaptureStderr();
  const bool submitted = AwaitSubmit(other);
  const std::string log = ::testing::internal::GetCapturedStderr();
  ASSERT_TRUE(submitted);
  EXPECT_NE(log.find("an attempt of a request ended early"), std::string::npos) << log;
  EXPECT_NE(log.find("request=\"" + last_id_.ToString() + "\"  attempt=0"), std::string::npos)
      << log;
  EXPECT_NE(log.find("node=\"" + node_.endpoint() + "\""), std::string::npos) << log;
  EXPECT_EQ(other.submits[0].attempt, 1U);
  EXPECT_EQ(other.submits[0].generated, seen->Ids());
  node_.Step();  // it was only slow: what it says now is late
  ASSERT_TRUE(StepUntilOver(other, *seen));
  std::vector<TokenId> expected;
  for (size_t i = 0; i < 8; ++i) expected.push_back(testing::PureToken(other.submits[0], i));
  EXPECT_EQ(seen->Ids(), expected);
  EXPECT_EQ(seen->ends, 1);
}

TEST_F(GenerationServiceTest, RefusalsReachTheClientWithTheirRetryTime) {
  Begin();
  Refused refusal;
  refusal.code = StatusCode::kResourceExhausted;
  refusal.message = "the line is full";
  refusal.retry_after_us = 2'000'000;
  scheduler_.refusal = refusal;
  const auto seen = Ask(TextRequest("hello", 8));
  ASSERT_TRUE(TurnUntil(loop_, [&] { return seen->over(); }));
  EXPECT_EQ(seen->error->status, ResourceExhausted("the line is full"));
  EXPECT_EQ(seen->error->retry_after_us, 2'000'000);
}

TEST_F(GenerationServiceTest, RefusesBeyondItsOwnLimit) {
  options_.gateway.request.requests_max = 2;
  scheduler_.node.clear();
  Begin();
  const auto first = Ask(TextRequest("a", 1));
  const auto second = Ask(TextRequest("b", 1));
  const auto third = Ask(TextRequest("c", 1));
  ASSERT_TRUE(TurnUntil(loop_, [&] { return third->over(); }));
  EXPECT_EQ(third->error->status.code(), StatusCode::kResourceExhausted);
  EXPECT_FALSE(first->over() || second->over());
}

TEST_F(GenerationServiceTest, TokenizesAndDetokenizes) {
  Begin();
  std::optional<GenerationService::Tokenized> tokenized;
  service_->Tokenize("bytes", TextPrompt{"hi"}, [&](auto result) { tokenized = *result; });
  std::optional<std::string> text;
  service_->Detokenize("bytes", {'h', 'i'}, [&](auto result) { text = *result; });
  std::optional<Status> fault;
  service_->Detokenize("bytes", {-1}, [&](auto result) { fault = result.status(); });
  ASSERT_TRUE(TurnUntil(loop_, [&] { return tokenized && text && fault; }));
  EXPECT_EQ(tokenized->ids, (std::vector<TokenId>{'h', 'i'}));
  EXPECT_EQ(tokenized->texts, (std::vector<std::string>{"h", "i"}));
  EXPECT_EQ(*text, "hi");
  EXPECT_EQ(fault->code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace muselet
