#include "node/engine/step_loop.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <chrono>
#include <future>
#include <map>
#include <thread>

#include "tests/node/engine/toy_model.h"

namespace muselet {
namespace {

using testing::ToyModel;

Submit MakeSubmit(uint64_t number, uint32_t prompt_count = 20, uint32_t max_tokens = 30) {
  Submit submit;
  submit.sequence = {{0, number}, 0};
  for (uint32_t i = 0; i < prompt_count; ++i)
    submit.prompt.push_back(static_cast<TokenId>((i * 7 + number) % 64));
  submit.stop.max_tokens = max_tokens;
  submit.sampling.seed = number;
  submit.sampling.temperature = number % 2 == 0 ? 0.0F : 0.8F;
  return submit;
}

// Collects what the step loop hands over; waits for ends.
class Collector {
 public:
  struct Sequence {
    std::vector<TokenId> tokens;
    TokenUpdate last;
  };

  void Take(std::vector<TokenUpdate> updates) {
    const std::lock_guard lock(mutex_);
    for (TokenUpdate& update : updates) {
      Sequence& sequence = sequences_[update.sequence];
      for (const SampledToken& token : update.tokens) sequence.tokens.push_back(token.id);
      if (update.finish != FinishReason::kNone) ++ended_;
      sequence.last = std::move(update);
    }
    changed_.notify_all();
  }
  void WaitForEnds(size_t count) {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(changed_.wait_for(lock, std::chrono::seconds(60), [&] { return ended_ >= count; }));
  }
  void WaitForTokens(uint64_t number, size_t count) {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(changed_.wait_for(lock, std::chrono::seconds(60), [&] {
      return sequences_[{{0, number}, 0}].tokens.size() >= count;
    }));
  }
  Sequence Of(uint64_t number) {
    const std::lock_guard lock(mutex_);
    return sequences_[{{0, number}, 0}];
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<SequenceId, Sequence> sequences_;
  size_t ended_ = 0;
};

class StepLoopTest : public ::testing::Test {
 protected:
  void Make(const BatchOptions& options = {}, uint32_t block_count = 64) {
    model_ = std::make_shared<ToyModel>(64, block_count);
    loop_ = std::make_unique<StepLoop>(
        model_, options, metrics_, Clock::Real(),
        [this](std::vector<TokenUpdate> updates) { collector_.Take(std::move(updates)); });
  }
  void Push(Submit submit) {
    std::vector<StepCommand> commands;
    commands.emplace_back(std::move(submit));
    loop_->Push(std::move(commands));
  }
  std::vector<TokenId> Alone(const Submit& submit) {
    Collector alone;
    StepLoop loop(std::make_shared<ToyModel>(), {}, metrics_, Clock::Real(),
                  [&](std::vector<TokenUpdate> updates) { alone.Take(std::move(updates)); });
    std::vector<StepCommand> commands;
    commands.emplace_back(submit);
    loop.Push(std::move(commands));
    loop.Start();
    alone.WaitForEnds(1);
    return alone.Of(submit.sequence.request.low).tokens;
  }

  MetricRegistry registry_;
  NodeMetrics metrics_{registry_, "n0", "r0", "toy"};
  std::shared_ptr<ToyModel> model_;
  Collector collector_;
  std::unique_ptr<StepLoop> loop_;
};

TEST_F(StepLoopTest, ManySequencesGetTheTokensThatEachGetsAlone) {
  BatchOptions options;
  options.prefill_chunk_max = 7;
  options.sequences_max = 6;
  Make(options, 20);
  for (uint64_t number = 1; number <= 16; ++number)
    Push(MakeSubmit(number, static_cast<uint32_t>(5 * number)));
  loop_->Start();
  collector_.WaitForEnds(16);
  loop_->Stop();
  for (uint64_t number = 1; number <= 16; ++number) {
    const auto sequence = collector_.Of(number);
    EXPECT_EQ(sequence.last.finish, FinishReason::kLength);
    EXPECT_EQ(sequence.tokens.size(), 30U);
    EXPECT_EQ(sequence.tokens, Alone(MakeSubmit(number, static_cast<uint32_t>(5 * number))))
        << number;
  }
  EXPECT_EQ(loop_->progress().kv_blocks_used, 0U);
}

TEST_F(StepLoopTest, AResumedSequenceGoesOnWithTheSameTokens) {
  Submit submit = MakeSubmit(3);
  submit.sampling.repetition_penalty = 1.3F;
  submit.sampling.frequency_penalty = 0.5F;
  const std::vector<TokenId> whole = Alone(submit);
  Make();
  loop_->Start();
  submit.generated.assign(whole.begin(), whole.begin() + 11);
  Push(submit);
  collector_.WaitForEnds(1);
  const auto sequence = collector_.Of(3);
  EXPECT_EQ(sequence.tokens, std::vector<TokenId>(whole.begin() + 11, whole.end()));
  EXPECT_EQ(sequence.last.first_index, 29U);
}

TEST_F(StepLoopTest, ABadRequestFailsAlone) {
  Make();
  Push(MakeSubmit(2));
  Submit bad = MakeSubmit(4);
  bad.prompt[3] = 64;
  Push(bad);
  bad = MakeSubmit(6);
  bad.prompt.clear();
  Push(bad);
  bad = MakeSubmit(8, 256);
  Push(bad);
  bad = MakeSubmit(10);
  bad.sampling.top_p = 0;
  Push(bad);
  loop_->Start();
  collector_.WaitForEnds(5);
  for (const uint64_t number : {4, 6, 8, 10}) {
    EXPECT_EQ(collector_.Of(number).last.finish, FinishReason::kError) << number;
    EXPECT_EQ(collector_.Of(number).last.error_code, StatusCode::kInvalidArgument);
    EXPECT_FALSE(collector_.Of(number).last.error.empty());
  }
  EXPECT_EQ(collector_.Of(2).tokens, Alone(MakeSubmit(2)));
}

TEST_F(StepLoopTest, PromptLogprobsDoNotDependOnTheChunk) {
  std::vector<std::vector<SampledToken>> seen;
  for (const uint32_t chunk : {1U, 7U, 256U}) {
    BatchOptions options;
    options.prefill_chunk_max = chunk;
    Make(options);
    Submit submit = MakeSubmit(5, 40, 1);
    submit.sampling.prompt_logprobs = 2;
    Push(submit);
    loop_->Start();
    collector_.WaitForEnds(seen.size() + 1);
    seen.push_back(collector_.Of(5).last.prompt_logprobs);
    loop_->Stop();
  }
  ASSERT_EQ(seen[0].size(), 39U);
  EXPECT_EQ(seen[0][4].id, MakeSubmit(5, 40).prompt[5]);
  EXPECT_EQ(seen[0][4].top.size(), 2U);
  EXPECT_EQ(seen[0], seen[1]);
  EXPECT_EQ(seen[0], seen[2]);
}

TEST_F(StepLoopTest, AFailedStepEndsItsSequencesAndTheLoopGoesOn) {
  Make();
  model_->fault.store(true);
  Push(MakeSubmit(2));
  loop_->Start();
  collector_.WaitForEnds(1);
  EXPECT_EQ(collector_.Of(2).last.error_code, StatusCode::kInternal);
  model_->fault.store(false);
  Push(MakeSubmit(4));
  collector_.WaitForEnds(2);
  EXPECT_EQ(collector_.Of(4).tokens, Alone(MakeSubmit(4)));
}

TEST_F(StepLoopTest, CancelFreesASequenceInTheMiddle) {
  Make();
  Push(MakeSubmit(2, 20, 200));
  loop_->Start();
  collector_.WaitForTokens(2, 3);
  std::vector<StepCommand> commands;
  commands.emplace_back(Cancel{{{0, 2}, 0}, 0});
  loop_->Push(std::move(commands));
  collector_.WaitForEnds(1);
  const auto finish = collector_.Of(2).last.finish;
  EXPECT_TRUE(finish == FinishReason::kCancelled || finish == FinishReason::kLength);
  // Plans that are outstanding hold its blocks until they are committed.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (loop_->progress().kv_blocks_used > 0 && std::chrono::steady_clock::now() < deadline)
    std::this_thread::yield();
  EXPECT_EQ(loop_->progress().kv_blocks_used, 0U);
}

TEST_F(StepLoopTest, AHungStepIsVisibleAndAnIdleLoopIsParked) {
  Make();
  std::promise<void> release;
  std::promise<void> entered;
  model_->before_forward = [&] {
    entered.set_value();
    release.get_future().wait();
  };
  Push(MakeSubmit(2, 20, 1));
  loop_->Start();
  entered.get_future().wait();
  EXPECT_NE(loop_->progress().busy_since_us, 0);
  release.set_value();
  collector_.WaitForEnds(1);
  const int64_t deadline_us = Clock::Real().NowUs() + 60'000'000;
  while (loop_->progress().busy_since_us != 0 && Clock::Real().NowUs() < deadline_us)
    std::this_thread::yield();
  EXPECT_EQ(loop_->progress().busy_since_us, 0);
  EXPECT_EQ(loop_->progress().steps, 1U);
}

TEST_F(StepLoopTest, CountsWhatItDoes) {
  BatchOptions options;
  options.prefill_chunk_max = 16;
  Make(options);
  Push(MakeSubmit(2, 40, 5));
  loop_->Start();
  collector_.WaitForEnds(1);
  Push(MakeSubmit(2 + 64, 40, 5));  // the same prompt: two blocks are there already
  collector_.WaitForEnds(2);
  loop_->Stop();
  EXPECT_EQ(collector_.Of(66).tokens, collector_.Of(2).tokens);
  const std::string text = registry_.Text();
  const auto value = [&text](const std::string& name) {
    const size_t at = text.find("\n" + name + "{");
    if (at == std::string::npos) return -1.0;
    return std::stod(text.substr(text.find("} ", at) + 2));
  };
  EXPECT_EQ(value("muselet_decode_tokens_total"), 10);
  EXPECT_EQ(value("muselet_prefill_tokens_total"), 48);
  EXPECT_EQ(value("muselet_prefix_cache_query_tokens_total"), 80);
  EXPECT_EQ(value("muselet_prefix_cache_hit_tokens_total"), 32);
  EXPECT_EQ(value("muselet_prefill_chunk_rows_count"), 4);
  EXPECT_EQ(value("muselet_sequences_finished_total"), 2);
  EXPECT_EQ(value("muselet_steps_total"), 3 + 4 + 1 + 4);
  EXPECT_EQ(value("muselet_sequences_running"), 0);
}

}  // namespace
}  // namespace muselet
