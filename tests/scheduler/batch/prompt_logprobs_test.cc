// Prompt logprobs take a row of logits for each row of the prompt: however many sequences ask, a
// step computes a bounded number.
#include <gtest/gtest.h>

#include "scheduler/batch/batcher.h"

namespace muselet {
namespace {

Submit Ask(uint64_t number, uint32_t prompt_tokens) {
  Submit submit;
  submit.sequence = {{0, number}, 0};
  submit.prompt.assign(prompt_tokens, 5);
  submit.prompt[0] = static_cast<TokenId>(number);
  submit.stop.max_tokens = 1;
  submit.sampling.prompt_logprobs = 0;
  return submit;
}

TEST(PromptLogprobs, AStepComputesABoundedNumberOfRowsForAllThatAsk) {
  BatchModel model;
  model.vocab_size = 100;
  model.context_tokens = 1024;
  model.kv.groups.push_back({1024, 0});
  Batcher batcher(BatchOptions(), model);
  for (uint64_t number = 1; number <= 8; ++number)
    ASSERT_TRUE(batcher.Admit(Ask(number, 100), 0).ok());
  size_t answered = 0;
  int64_t now_us = 0;
  while (!batcher.idle()) {
    const StepPlan plan = batcher.Plan(++now_us);
    ASSERT_FALSE(plan.empty());
    uint32_t logits_rows = 0;
    StepResult result;
    for (const SequenceSlice& slice : plan.slices) {
      logits_rows += slice.logits_rows;
      SliceResult& of_slice = result.slices.emplace_back();
      of_slice.sampled = slice.samples;
      const uint32_t last = slice.samples ? slice.logits_rows - 1 : slice.logits_rows;
      for (uint32_t i = 0; i < last; ++i) of_slice.prompt_logprobs.push_back({5, 0.0F, {}});
    }
    EXPECT_LE(logits_rows, Batcher::kPromptLogprobRowsMax);
    batcher.Commit(plan.number, result, 1000, ++now_us);
    for (const TokenUpdate& update : batcher.TakeUpdates()) {
      if (update.tokens.empty()) continue;
      EXPECT_EQ(update.prompt_logprobs.size(), 99U);
      ++answered;
    }
  }
  EXPECT_EQ(answered, 8U);
}

}  // namespace
}  // namespace muselet
