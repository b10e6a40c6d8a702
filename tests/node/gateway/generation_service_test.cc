#include "node/gateway/generation_service.h"

#include <gtest/gtest.h>

#include <numeric>

#include "tests/node/gateway/generation_service_fixture.h"

namespace muselet {
namespace {

using testing::FakeNode;
using testing::GenerationServiceTest;
using testing::kEndToken;
using testing::TurnUntil;

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
