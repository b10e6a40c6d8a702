// Messages, plans and limits that the tests of the ranks' protocol share.
#pragma once

#include <string>
#include <vector>

#include "node/rank/epoch_leader.h"
#include "node/rank/epoch_member.h"
#include "node/rank/rank_codec.h"

namespace muselet::testing {

inline RankAgreement TestAgreement() {
  return {"1.0", "digest-a", "plan-a", "cpu-strict", {64}};
}

inline RankLimits TestLimits() {
  RankLimits limits;
  limits.vocab_size = 100;
  limits.context_tokens = 256;
  limits.block_tokens = 16;
  limits.kv_blocks = {64};
  limits.slots = 8;
  limits.rows_max = 64;
  return limits;
}

inline EpochPlan TestEpochPlan(uint32_t ranks) {
  EpochPlan plan;
  plan.replica = "r0";
  for (uint32_t rank = 0; rank < ranks; ++rank) plan.nodes.push_back("n" + std::to_string(rank));
  plan.sampling_rank = ranks - 1;
  plan.agreement = TestAgreement();
  return plan;
}

inline RankJoin TestJoin(uint32_t rank, uint64_t instance = 0) {
  RankJoin join;
  join.replica = "r0";
  join.rank = rank;
  join.node = "n" + std::to_string(rank);
  join.host = "127.0.0.1";
  join.instance = instance != 0 ? instance : 100 + rank;
  join.pid = 1000 + rank;
  join.session = 1;
  join.agreement = TestAgreement();
  return join;
}

// One sequence decodes a row in slot 0; another one prefills three in slot 2 and wants its next.
inline StepPlan TestPlan(uint64_t number) {
  StepPlan plan;
  plan.number = number;
  plan.predicted_us = 20'000;
  plan.tokens = {kTokenFromEarlierPlan, 7, 8, 9};
  plan.slices = {{0, 17, 0, 1, 1, true, {0}, {2}}, {2, 0, 1, 3, 3, true, {2}, {1}}};
  plan.block_tables = {5, 63, 1};
  return plan;
}

inline SlotStart TestStart() {
  SlotStart start;
  start.slot = 2;
  start.sampling.temperature = 0.8F;
  start.sampling.seed = 0xFFFFFFFFFFFFFFF1ULL;
  start.sampling.logprobs = 2;
  start.sampling.prompt_logprobs = 0;
  start.sampling.logit_bias = {{5, -1.5F}, {99, 2.0F}};
  start.stop.max_tokens = 40;
  start.stop.end_tokens = {2, 200};
  start.choice = 1;
  start.prompt_count = 3;
  start.token_limit = 43;
  start.tokens = {7, 8, 9};
  return start;
}

// What the sampling rank says of TestPlan.
inline StepResult TestResult() {
  StepResult result;
  result.slices.resize(2);
  result.slices[0].fault = InvalidArgument("no token is left");
  result.slices[1].sampled = true;
  result.slices[1].token = {42, -0.25F, {{42, -0.25F}, {3, -2.5F}}};
  result.slices[1].prompt_logprobs = {{8, -1.0F, {{8, -1.0F}}}, {9, -0.5F, {}}};
  return result;
}

}  // namespace muselet::testing
