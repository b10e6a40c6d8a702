// Resumed answers, what surfaces give to requests, audits.
#include "node/gateway/admission.h"
#include "tests/node/gateway/generation_service_fixture.h"

namespace muselet {
namespace {

using testing::FakeNode;
using testing::GenerationServiceTest;
using testing::Seen;
using testing::TurnUntil;

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

}  // namespace
}  // namespace muselet
