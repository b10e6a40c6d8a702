#include "node/rank/rank_codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "comms/message_socket.h"
#include "rank.pb.h"
#include "tests/node/rank/rank_fixture.h"
#include "tests/support/fixtures.h"

namespace muselet {
namespace {

using ::testing::HasSubstr;
using testing::TestJoin;
using testing::TestLimits;
using testing::TestPlan;
using testing::TestResult;
using testing::TestStart;

namespace pb = rank::v1;

RankStep TestStep() {
  return {3, 9, 3'000'000, TestPlan(7), {TestStart()}};
}

std::vector<RankMessage> AllMessages() {
  return {TestJoin(1),
          RankPut{1, "tensor-0/1", std::string("\0\xFF", 2)},
          RankReady{2},
          RankDone{3, 4, 5, Internal("the model gave up"), {}},
          RankDone{3, 4, 5, OkStatus(), TestResult()},
          RankFault{4, "a peer is gone"},
          RankAlive{5, 6, 7},
          RankForm{6, 2, {{"n0", "10.0.0.1"}, {"n1", "10.0.0.2"}}, 30'000'000},
          RankValue{7, "k", "v"},
          RankStart{8},
          TestStep(),
          RankAbort{9, "rank 1 is silent"},
          RankAbort{9, "the leader stops", /*on_purpose=*/true},
          RankRefused{1, "mixed releases"},
          LeaderAlive{10, "rank 1 (node n1)"}};
}

TEST(RankCodec, BringsEveryMessageAcross) {
  for (const RankMessage& message : AllMessages()) {
    const std::string bytes = EncodeRankMessage(message);
    const Result<RankMessage> read = DecodeRankMessage(bytes, TestLimits());
    ASSERT_TRUE(read.ok()) << RankMessageName(message) << ": " << read.status().message();
    EXPECT_EQ(read->index(), message.index());
    EXPECT_EQ(EncodeRankMessage(*read), bytes) << RankMessageName(message);
  }
}

TEST(RankCodec, KeepsTheStepAsTheRanksNeedIt) {
  const auto read = DecodeRankMessage(EncodeRankMessage(TestStep()), TestLimits());
  ASSERT_TRUE(read.ok()) << read.status().message();
  const auto& step = std::get<RankStep>(*read);
  const StepPlan plan = TestPlan(7);
  EXPECT_EQ(step.epoch, 3U);
  EXPECT_EQ(step.step, 9U);
  EXPECT_EQ(step.plan.number, 7U);
  EXPECT_EQ(step.plan.tokens, plan.tokens);
  EXPECT_EQ(step.plan.block_tables, plan.block_tables);
  ASSERT_EQ(step.plan.slices.size(), 2U);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(step.plan.slices[i].slot, plan.slices[i].slot);
    EXPECT_EQ(step.plan.slices[i].first_position, plan.slices[i].first_position);
    EXPECT_EQ(step.plan.slices[i].row_begin, plan.slices[i].row_begin);
    EXPECT_EQ(step.plan.slices[i].row_count, plan.slices[i].row_count);
    EXPECT_EQ(step.plan.slices[i].logits_rows, plan.slices[i].logits_rows);
    EXPECT_EQ(step.plan.slices[i].samples, plan.slices[i].samples);
    EXPECT_EQ(step.plan.slices[i].table_begin[0], plan.slices[i].table_begin[0]);
    EXPECT_EQ(step.plan.slices[i].table_count[0], plan.slices[i].table_count[0]);
  }
  ASSERT_EQ(step.starts.size(), 1U);
  EXPECT_EQ(step.starts[0].sampling, TestStart().sampling);
  EXPECT_EQ(step.starts[0].stop, TestStart().stop);
  EXPECT_EQ(step.starts[0].tokens, TestStart().tokens);
  EXPECT_EQ(step.starts[0].token_limit, 43U);
}

TEST(RankCodec, KeepsTheResultOfTheSamplingRank) {
  const auto read =
      DecodeRankMessage(EncodeRankMessage(RankDone{3, 4, 5, {}, TestResult()}), TestLimits());
  ASSERT_TRUE(read.ok());
  const StepResult& result = std::get<RankDone>(*read).result;
  ASSERT_EQ(result.slices.size(), 2U);
  EXPECT_FALSE(result.slices[0].sampled);
  EXPECT_EQ(result.slices[0].fault, InvalidArgument("no token is left"));
  EXPECT_TRUE(result.slices[1].sampled);
  EXPECT_EQ(result.slices[1].token, TestResult().slices[1].token);
  EXPECT_EQ(result.slices[1].prompt_logprobs, TestResult().slices[1].prompt_logprobs);
}

// What a step with one change says when it is read.
std::string FaultOfStep(const std::function<void(RankStep&)>& change) {
  RankStep step = TestStep();
  change(step);
  const auto read = DecodeRankMessage(EncodeRankMessage(step), TestLimits());
  return read.ok() ? "" : read.status().message();
}

TEST(RankCodec, RefusesStepsThatWouldReachOutsideTheirMemory) {
  EXPECT_EQ(FaultOfStep([](RankStep&) {}), "");
  const std::vector<std::pair<std::string, std::function<void(RankStep&)>>> cases = {
      {"vocabulary", [](RankStep& s) { s.plan.tokens[1] = 100; }},
      {"vocabulary", [](RankStep& s) { s.plan.tokens[1] = kTokenFromEarlierPlan; }},
      {"vocabulary", [](RankStep& s) { s.plan.tokens[1] = -2; }},
      {"slot", [](RankStep& s) { s.plan.slices[1].slot = 8; }},
      {"named twice", [](RankStep& s) { s.plan.slices[1].slot = 0; }},
      {"rows", [](RankStep& s) { s.plan.slices[1].row_count = 4; }},
      {"rows", [](RankStep& s) { s.plan.slices[1].row_count = 0; }},
      {"rows of no slice", [](RankStep& s) { s.plan.tokens.push_back(1); }},
      {"context", [](RankStep& s) { s.plan.slices[0].first_position = 256; }},
      {"context", [](RankStep& s) { s.plan.slices[0].first_position = 0xFFFFFFFF; }},
      {"logits", [](RankStep& s) { s.plan.slices[0].logits_rows = 2; }},
      {"logits", [](RankStep& s) { s.plan.slices[0].logits_rows = 0; }},
      {"cover", [](RankStep& s) { s.plan.slices[0].first_position = 32; }},
      {"no block 64", [](RankStep& s) { s.plan.block_tables[1] = 64; }},
      {"beyond", [](RankStep& s) { s.plan.block_tables.pop_back(); }},
      {"entries of no slice", [](RankStep& s) { s.plan.block_tables.push_back(0); }},
      {"table_counts",
       [](RankStep& s) {
         s.plan.slices[0].table_count = {2, 2};
       }},
      {"slices", [](RankStep& s) { s.plan.slices.clear(); }},
      {"tokens", [](RankStep& s) { s.plan.tokens.resize(65); }},
      {"slot", [](RankStep& s) { s.starts[0].slot = 8; }},
      {"starts", [](RankStep& s) { s.starts.resize(9, s.starts[0]); }},
      {"token_limit", [](RankStep& s) { s.starts[0].token_limit = 257; }},
      {"prompt_count", [](RankStep& s) { s.starts[0].prompt_count = 44; }},
      {"starts.tokens", [](RankStep& s) { s.starts[0].tokens.resize(44); }},
      {"starts.tokens", [](RankStep& s) { s.starts[0].tokens.pop_back(); }},
      {"vocabulary", [](RankStep& s) { s.starts[0].tokens[0] = 100; }},
      {"logit_bias", [](RankStep& s) { s.starts[0].sampling.logit_bias[0].first = 100; }},
      {"temperature", [](RankStep& s) { s.starts[0].sampling.temperature = -1; }},
      {"timeout_us", [](RankStep& s) { s.timeout_us = -1; }},
      {"timeout_us", [](RankStep& s) { s.timeout_us = INT64_MAX; }}};
  for (size_t i = 0; i < cases.size(); ++i)
    EXPECT_THAT(FaultOfStep(cases[i].second), HasSubstr(cases[i].first)) << "case " << i;
}

std::string FaultOf(const RankMessage& message) {
  const auto read = DecodeRankMessage(EncodeRankMessage(message), TestLimits());
  return read.ok() ? "" : read.status().message();
}

TEST(RankCodec, RefusesWhatIsOverItsLimits) {
  RankJoin join = TestJoin(0);
  join.host = std::string(2000, 'x');
  EXPECT_THAT(FaultOf(join), HasSubstr("join.host"));
  join = TestJoin(0);
  join.agreement.kv_blocks.resize(100);
  EXPECT_THAT(FaultOf(join), HasSubstr("join.kv_blocks"));
  EXPECT_THAT(FaultOf(RankPut{1, std::string(300, 'k'), ""}), HasSubstr("put.key"));
  EXPECT_THAT(FaultOf(RankPut{1, "k", std::string(70'000, 'v')}), HasSubstr("put.value"));
  EXPECT_THAT(FaultOf(RankForm{1, 1, std::vector<RankPlace>(1025), 1}), HasSubstr("form.places"));
  EXPECT_THAT(FaultOf(RankAlive{1, 1, -1}), HasSubstr("alive.busy_us"));
  StepResult result = TestResult();
  result.slices[1].token.id = 100;
  EXPECT_THAT(FaultOf(RankDone{1, 1, 1, {}, result}), HasSubstr("vocabulary"));
  result = TestResult();
  result.slices[1].token.top[1].id = -1;
  EXPECT_THAT(FaultOf(RankDone{1, 1, 1, {}, result}), HasSubstr("done.token: negative"));
  result.slices.resize(9);
  EXPECT_THAT(FaultOf(RankDone{1, 1, 1, {}, result}), HasSubstr("done.slices"));
}

TEST(RankCodec, RefusesColumnsThatDoNotMatch) {
  pb::RankEnvelope proto;
  ASSERT_TRUE(proto.ParseFromString(EncodeRankMessage(TestStep())));
  proto.mutable_step()->mutable_plan()->add_row_counts(1);
  EXPECT_THAT(DecodeRankMessage(proto.SerializeAsString(), TestLimits()).status().message(),
              HasSubstr("columns"));
  ASSERT_TRUE(proto.ParseFromString(EncodeRankMessage(TestStep())));
  proto.mutable_step()->mutable_plan()->set_groups(0xFFFFFFFF);
  EXPECT_THAT(DecodeRankMessage(proto.SerializeAsString(), TestLimits()).status().message(),
              HasSubstr("groups"));
}

TEST(RankCodec, RefusesAnotherVersionAnEmptyBodyAndTooManyBytes) {
  pb::RankEnvelope proto;
  proto.set_version(kRankProtocolVersion + 1);
  EXPECT_THAT(DecodeRankMessage(proto.SerializeAsString(), TestLimits()).status().message(),
              HasSubstr("same release"));
  proto.set_version(kRankProtocolVersion);
  EXPECT_THAT(DecodeRankMessage(proto.SerializeAsString(), TestLimits()).status().message(),
              HasSubstr("no body"));
  RankLimits limits = TestLimits();
  limits.message_bytes_max = 10;
  EXPECT_THAT(DecodeRankMessage(EncodeRankMessage(TestStep()), limits).status().message(),
              HasSubstr("the limit is 10"));
}

TEST(RankCodec, SurvivesMutatedAndRandomBytes) {
  const WireContext quiet;  // protobuf's own log lines go nowhere
  std::mt19937 random(11);
  std::vector<std::string> seeds;
  for (const RankMessage& message : AllMessages()) seeds.push_back(EncodeRankMessage(message));
  size_t refused = 0, taken = 0;
  for (uint32_t i = 0; i < testing::SeedCount(20'000); ++i) {
    std::string bytes = seeds[random() % seeds.size()];
    if (i % 7 == 0) bytes.assign(random() % 64, '\0');
    for (uint32_t changes = 1 + random() % 4; changes > 0 && !bytes.empty(); --changes) {
      const size_t at = random() % bytes.size();
      if (random() % 8 == 0) {
        bytes.resize(at);
      } else {
        bytes[at] = static_cast<char>(random());
      }
    }
    const auto read = DecodeRankMessage(bytes, TestLimits());
    ++(read.ok() ? taken : refused);
    if (!read.ok()) continue;
    ASSERT_TRUE(DecodeRankMessage(EncodeRankMessage(*read), TestLimits()).ok()) << "mutation " << i;
  }
  EXPECT_GT(refused, 0U);
  EXPECT_GT(taken, 0U);
}

}  // namespace
}  // namespace muselet
