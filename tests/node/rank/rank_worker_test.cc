// Workers as threads, with a model that adds one number over the ranks of its tensor group.
#include "node/rank/rank_worker.h"

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"

namespace muselet {
namespace {

constexpr uint32_t kVocabulary = 8;

// Its logits point at the sum of all ranks' tokens.
class AddingModel final : public RankModel {
 public:
  AddingModel() { info_.vocab_size = kVocabulary; }
  const ModelInfo& info() const override { return info_; }
  void Connect(const RankLinks& links) override { links_ = links; }
  void SetDeadline(int64_t deadline_us) override { deadline_us_ = deadline_us; }
  int64_t waited_us() const override { return waited_us_; }
  const RankShard& shard() const override { return shard_; }

  Result<std::span<const float>> Forward(const StepPlan& plan) override {
    float sum = static_cast<float>(plan.tokens.front());
    const int64_t begin_us = Clock::Real().NowUs();
    RETURN_IF_ERROR(links_.tensor->Wait(links_.tensor->AllReduce({&sum, 1}), deadline_us_));
    waited_us_ += Clock::Real().NowUs() - begin_us;
    if (links_.tensor->rank() != 0) return std::span<const float>();
    logits_.assign(kVocabulary, 0.0F);
    logits_[static_cast<size_t>(sum) % kVocabulary] = 1.0F;
    return std::span<const float>(logits_);
  }

 private:
  ModelInfo info_;
  RankShard shard_;
  RankLinks links_;
  int64_t deadline_us_ = 0;
  int64_t waited_us_ = 0;
  std::vector<float> logits_;
};

RankStep Step(uint64_t number, TokenId token, bool first) {
  RankStep step;
  step.epoch = 1;
  step.step = number;
  step.timeout_us = 60'000'000;
  step.plan.number = number;
  step.plan.tokens = {token};
  SequenceSlice slice;
  slice.first_position = static_cast<uint32_t>(number - 1);
  slice.row_count = 1;
  slice.logits_rows = 1;
  slice.samples = true;
  step.plan.slices = {slice};
  if (first) {
    SlotStart start;
    start.sampling.temperature = 0;
    start.stop.max_tokens = 100;
    start.prompt_count = 1;
    start.token_limit = 100;
    step.starts = {start};
  }
  return step;
}

// Two ranks of one stage, and what became of their work.
class Pair {
 public:
  Pair() {
    for (uint32_t rank = 0; rank < 2; ++rank) {
      RankWorkerHandlers handlers;
      handlers.put = [this](uint64_t epoch, const std::string& key, const std::string& value) {
        const std::lock_guard lock(forming_);
        for (auto& worker : workers_) worker->OnValue(epoch, key, value);
      };
      handlers.groups_made = [this](uint64_t) { Note([this] { ++made; }); };
      handlers.done = [this, rank](uint64_t, RankDone what) {
        Note([&] { done[rank].push_back(std::move(what)); });
      };
      handlers.failed = [this, rank](uint64_t, const std::string& reason) {
        Note([&] { failed[rank].push_back(reason); });
      };
      handlers.torn_down = [this](uint64_t) { Note([this] { ++torn_down; }); };
      workers_.push_back(std::make_unique<RankWorker>(std::make_shared<AddingModel>(),
                                                      RankPosition{rank, 2, 1}, 1, handlers));
    }
    for (auto& worker : workers_) threads_.emplace_back([&worker] { worker->Run(); });
  }
  ~Pair() {
    for (uint32_t rank = 0; rank < 2; ++rank) {
      workers_[rank]->End(1, "the test is over");
      workers_[rank]->Stop();
    }
    for (std::thread& thread : threads_) thread.join();
  }

  RankWorker& worker(uint32_t rank) { return *workers_[rank]; }
  // No value is told before all of them know of the epoch, as by a leader.
  bool Form() {
    BeginForming();
    return Until([this] { return made == 2; });
  }
  void BeginForming() {
    const std::lock_guard lock(forming_);
    for (auto& worker : workers_) {
      RankForm form;
      form.epoch = 1;
      form.places.assign(2, {"n0", "127.0.0.1"});
      form.timeout_us = 30'000'000;
      worker->MakeGroups(form);
    }
  }
  bool Until(const std::function<bool()>& condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(30), condition);
  }

  int made = 0;
  int torn_down = 0;
  std::vector<RankDone> done[2];
  std::vector<std::string> failed[2];

 private:
  void Note(const std::function<void()>& what) {
    const std::lock_guard lock(mutex_);
    what();
    changed_.notify_all();
  }

  std::mutex forming_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::unique_ptr<RankWorker>> workers_;
  std::vector<std::thread> threads_;
};

TEST(RankWorker, ComputesStepsInOrderAndOneRankTellsWhatItDrew) {
  Pair pair;
  ASSERT_TRUE(pair.Form());
  for (uint32_t rank = 0; rank < 2; ++rank) {
    pair.worker(rank).Compute(Step(1, 3, true));
    // Both resolve it from what the first drew: 3 + 3, then 6 + 6.
    pair.worker(rank).Compute(Step(2, kTokenFromEarlierPlan, false));
  }
  ASSERT_TRUE(pair.Until([&] { return pair.done[0].size() == 2 && pair.done[1].size() == 2; }));
  EXPECT_EQ(pair.done[0][0].step, 1U);
  EXPECT_EQ(pair.done[0][0].result.slices.at(0).token.id, 6);
  EXPECT_EQ(pair.done[0][1].result.slices.at(0).token.id, 12 % static_cast<int>(kVocabulary));
  EXPECT_TRUE(pair.done[1][1].result.slices.empty());
  EXPECT_EQ(pair.worker(0).progress().steps, 2U);
  EXPECT_EQ(pair.worker(0).progress().busy_us, 0);
}

TEST(RankWorker, DoesNotCountWhatItWaitsForOtherRanks) {
  constexpr int64_t kLateUs = 200'000;
  Pair pair;
  ASSERT_TRUE(pair.Form());
  const int64_t begin_us = Clock::Real().NowUs();
  pair.worker(0).Compute(Step(1, 3, true));
  while (pair.worker(0).progress().busy_us < kLateUs) std::this_thread::yield();
  pair.worker(1).Compute(Step(1, 3, true));
  ASSERT_TRUE(pair.Until([&] { return pair.done[0].size() == 1 && pair.done[1].size() == 1; }));
  const int64_t passed_us = Clock::Real().NowUs() - begin_us;
  EXPECT_LE(pair.done[0][0].step_us, passed_us - kLateUs);
}

TEST(RankWorker, AnEndWakesAStepThatWaitsForAnotherRankAndForgetsTheRest) {
  Pair pair;
  ASSERT_TRUE(pair.Form());
  pair.worker(0).Compute(Step(1, 3, true));
  while (pair.worker(0).progress().busy_us == 0) std::this_thread::yield();
  pair.worker(0).Compute(Step(2, 1, false));
  pair.worker(0).End(1, "rank 1 is lost");
  ASSERT_TRUE(pair.Until([&] { return pair.torn_down == 1; }));
  EXPECT_TRUE(pair.done[0].empty());
  ASSERT_EQ(pair.failed[0].size(), 1U);
  EXPECT_NE(pair.failed[0][0].find("rank 1 is lost"), std::string::npos) << pair.failed[0][0];
}

TEST(RankWorker, AStepPastItsDeadlineFailsTheEpoch) {
  Pair pair;
  ASSERT_TRUE(pair.Form());
  RankStep step = Step(1, 3, true);
  step.timeout_us = 1000;
  pair.worker(1).Compute(step);
  pair.worker(1).Compute(Step(2, 1, false));
  ASSERT_TRUE(pair.Until([&] { return pair.failed[1].size() == 1; }));
  EXPECT_TRUE(pair.done[1].empty());
}

}  // namespace
}  // namespace muselet
