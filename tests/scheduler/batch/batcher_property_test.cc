// Whatever is batched, cut, shared, paused or cancelled: every sequence gets the tokens that it
// gets alone, and all blocks are free in the end.
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <random>
#include <utility>

#include "scheduler/batch/batcher.h"
#include "tests/scheduler/batch/toy_kv.h"
#include "tests/support/fixtures.h"

namespace muselet {
namespace {

using testing::ToyKv;

constexpr uint32_t kVocab = 97;
constexpr TokenId kEnd = 13;

SequenceId Id(uint64_t number) {
  return {{1, number}, 0};
}

struct Told {
  Submit submit;
  uint32_t start = 0;  // tokens that an earlier attempt had
  std::vector<TokenId> answer;
  std::vector<TokenId> prompt_logprob_ids;
  FinishReason finish = FinishReason::kNone;
};

class World {
  struct Outstanding {
    uint64_t number;
    StepResult result;
    std::map<uint64_t, uint32_t> runs;  // of groups: where the run's slice ends
  };

 public:
  World(const BatchOptions& options, const KvPoolShape& shape, uint32_t context, uint32_t seed,
        uint32_t groups = 1)
      : shape_(shape),
        groups_(groups),
        batcher_(options, {kVocab, context, shape, groups}),
        toy_(shape, kVocab),
        random_(seed) {}

  uint32_t Random(uint32_t bound) { return static_cast<uint32_t>(random_() % bound); }

  Submit MakeSubmit(uint64_t number) {
    Submit submit;
    submit.sequence = Id(number);
    submit.request_class = static_cast<RequestClass>(Random(3));
    submit.surface = Random(2) == 0 ? "a" : "b";
    // Few beginnings, so that prefixes are often shared.
    const TokenId family = static_cast<TokenId>(Random(3));
    const uint32_t shared = Random(60);
    for (uint32_t i = 0; i < shared; ++i)
      submit.prompt.push_back((family * 31 + static_cast<TokenId>(i)) % 97);
    const uint32_t own = 1 + Random(20);
    for (uint32_t i = 0; i < own; ++i)
      submit.prompt.push_back(static_cast<TokenId>(Random(kVocab)));
    if (submit.prompt.size() >= batcher_.context_tokens()) {
      submit.prompt.resize(batcher_.context_tokens() - 1);
    }
    submit.stop.max_tokens = 1 + Random(90);
    submit.stop.end_tokens = {kEnd};
    submit.stop.min_tokens = Random(8);
    if (Random(6) == 0) submit.sampling.prompt_logprobs = 0;
    return submit;
  }

  void Admit(uint64_t number) {
    Submit submit = MakeSubmit(number);
    Told& told = told_[submit.sequence];
    told.submit = submit;
    if (Random(4) == 0) {
      told.answer = Alone(submit);
      told.answer.resize(Random(static_cast<uint32_t>(told.answer.size())));
      told.start = static_cast<uint32_t>(told.answer.size());
      submit.generated = told.answer;
    }
    ASSERT_TRUE(batcher_.Admit(submit, now_us_).ok());
  }

  // The tokens of the sequence when nothing else exists.
  std::vector<TokenId> Alone(const Submit& submit) const {
    std::vector<TokenId> tokens = submit.prompt;
    std::vector<TokenId> answer;
    while (answer.size() < submit.stop.max_tokens && tokens.size() < batcher_.context_tokens()) {
      const TokenId next = toy_.TokenOf(ToyKv::Reference(shape_, tokens));
      tokens.push_back(next);
      answer.push_back(next);
      if (next == kEnd && answer.size() > submit.stop.min_tokens) break;
    }
    return answer;
  }

  bool Plan() {
    StepPlan plan = batcher_.Plan(now_us_);
    TakeUpdates();
    EXPECT_TRUE(batcher_.BlocksAddUp());
    CheckRuns(plan);
    if (plan.empty()) return false;
    Outstanding step{plan.number, {}, {}};
    CheckPlan(plan);
    if (groups_ > 1) CheckGroup(plan, &step);
    std::vector<uint64_t> states = toy_.Run(plan);
    size_t next = 0;
    for (const SequenceSlice& slice : plan.slices) {
      SliceResult& result = step.result.slices.emplace_back();
      const Sequence& sequence = batcher_.InSlot(slice.slot);
      if (sequence.wants_prompt_logprobs()) {
        // The id stands for the logprob: it says which position the row belongs to.
        for (uint32_t i = 0; i < slice.logits_rows; ++i) {
          const uint32_t position =
              slice.first_position + slice.row_count - slice.logits_rows + i + 1;
          if (position < sequence.prompt_count)
            result.prompt_logprobs.push_back({sequence.tokens[position], 0, {}});
        }
      }
      next += slice.logits_rows;
      if (!slice.samples) continue;
      result.sampled = true;
      result.token.id = toy_.TokenOf(states[next - 1]);
    }
    outstanding_.push_back(std::move(step));
    batcher_.Recycle(std::move(plan));
    return true;
  }

  void CheckPlan(const StepPlan& plan) {
    uint32_t rows = 0;
    for (const SequenceSlice& slice : plan.slices) {
      EXPECT_EQ(slice.row_begin, rows);
      rows += slice.row_count;
      EXPECT_EQ(slice.table_begin.size(), shape_.groups.size());
    }
    EXPECT_EQ(rows, plan.row_count());
  }

  // Every token is known, and a sequence stands in several plans only with chunks of its prompt.
  void CheckGroup(const StepPlan& plan, Outstanding* step) {
    for (const TokenId token : plan.tokens) EXPECT_NE(token, kTokenFromEarlierPlan);
    for (const SequenceSlice& slice : plan.slices) {
      const Sequence& sequence = batcher_.InSlot(slice.slot);
      const bool decode = slice.first_position >= sequence.prefill_end;
      for (const Outstanding& other : outstanding_) {
        const auto found = other.runs.find(sequence.run);
        if (found == other.runs.end()) continue;
        EXPECT_FALSE(decode) << "a decode in two plans";
        EXPECT_LE(found->second, slice.first_position);
        ++chunks_behind_;
      }
      step->runs[sequence.run] = slice.first_position + slice.row_count;
    }
  }

  // A sequence stands in a plan once, and none is paused and started again for one and the same.
  void CheckRuns(const StepPlan& plan) {
    const std::map<uint64_t, uint64_t> before = std::exchange(runs_, {});
    for (const SequenceSlice& slice : plan.slices) {
      const Sequence& sequence = batcher_.InSlot(slice.slot);
      EXPECT_TRUE(runs_.emplace(sequence.serial, sequence.run).second) << "two slices";
      const auto found = before.find(sequence.serial);
      if (found == before.end()) continue;
      EXPECT_EQ(found->second, sequence.run) << "paused and started";
    }
    for (const SequenceSlice& slice : plan.slices) {
      const Sequence& sequence = batcher_.InSlot(slice.slot);
      if (sequence.state != SequenceState::kRunning) runs_.erase(sequence.serial);
    }
  }

  void Commit() {
    const Outstanding step = std::move(outstanding_.front());
    outstanding_.pop_front();
    now_us_ += 1000;
    batcher_.Commit(step.number, step.result, 500 + Random(5000), now_us_);
    TakeUpdates();
    EXPECT_TRUE(batcher_.BlocksAddUp());
  }

  // Neither KV nor what is outstanding survives.
  void Lose() {
    losses_in_run_ += batcher_.running_count();
    batcher_.Reset();
    outstanding_.clear();
    runs_.clear();
    toy_ = ToyKv(shape_, kVocab);
    EXPECT_EQ(batcher_.running_count(), 0U);
    EXPECT_EQ(batcher_.cache().held_count(), 0U);
    EXPECT_TRUE(batcher_.BlocksAddUp());
  }

  void Fail() {
    const uint64_t number = outstanding_.front().number;
    outstanding_.pop_front();
    batcher_.Fail(number, Internal("the device is gone"));
    TakeUpdates();
    EXPECT_TRUE(batcher_.BlocksAddUp());
  }

  void Cancel(uint64_t number) {
    const auto told = told_.find(Id(number));
    if (told != told_.end() && told->second.finish == FinishReason::kNone) ++live_cancels_;
    batcher_.Cancel(Id(number), 0);
    TakeUpdates();
    EXPECT_TRUE(batcher_.BlocksAddUp());
  }

  void TakeUpdates() {
    for (TokenUpdate& update : batcher_.TakeUpdates()) {
      Told& told = told_.at(update.sequence);
      ASSERT_EQ(told.finish, FinishReason::kNone) << "an update after the end";
      ASSERT_EQ(update.first_index, told.answer.size());
      for (const SampledToken& token : update.tokens) told.answer.push_back(token.id);
      for (const SampledToken& token : update.prompt_logprobs)
        told.prompt_logprob_ids.push_back(token.id);
      told.finish = update.finish;
    }
  }

  void Check() {
    EXPECT_TRUE(batcher_.idle());
    EXPECT_EQ(batcher_.cache().held_count(), 0U);
    for (const auto& [id, told] : told_) {
      std::vector<TokenId> alone = Alone(told.submit);
      ASSERT_NE(told.finish, FinishReason::kNone);
      if (told.finish == FinishReason::kCancelled || told.finish == FinishReason::kError) {
        ASSERT_LE(told.answer.size(), alone.size());
        alone.resize(told.answer.size());
        EXPECT_EQ(told.answer, alone);
        continue;
      }
      EXPECT_EQ(told.answer, alone);
      EXPECT_EQ(told.finish == FinishReason::kStop, !alone.empty() && alone.back() == kEnd &&
                                                        alone.size() > told.submit.stop.min_tokens);
      if (told.submit.sampling.prompt_logprobs >= 0 && told.start == 0) {
        EXPECT_EQ(told.prompt_logprob_ids,
                  std::vector<TokenId>(told.submit.prompt.begin() + 1, told.submit.prompt.end()));
      }
    }
  }

  size_t outstanding_count() const { return outstanding_.size(); }
  const Batcher& batcher() const { return batcher_; }
  uint64_t live_cancels() const { return live_cancels_; }
  uint64_t losses_in_run() const { return losses_in_run_; }
  uint64_t chunks_behind() const { return chunks_behind_; }

 private:
  KvPoolShape shape_;
  uint32_t groups_;
  Batcher batcher_;
  ToyKv toy_;
  std::mt19937 random_;
  std::deque<Outstanding> outstanding_;
  std::map<SequenceId, Told> told_;
  std::map<uint64_t, uint64_t> runs_;  // of what runs in the last plan, by serial
  uint64_t live_cancels_ = 0;          // of sequences that had not ended
  uint64_t losses_in_run_ = 0;         // runs that a loss of KV ended
  uint64_t chunks_behind_ = 0;         // behind an outstanding one of the same prompt
  int64_t now_us_ = 1;
};

struct Totals {
  uint64_t pauses = 0;
  uint64_t hits = 0;
};

void RunWorld(uint32_t seed, Totals* totals) {
  std::mt19937 random(seed);
  BatchOptions options;
  options.sequences_max = 1 + random() % 8;
  options.step_tokens_max = 1 + random() % 64;
  options.prefill_chunk_max = 1 + random() % 40;
  options.prefix_cache = random() % 4 != 0;
  options.resume_tokens_min = random() % 20;
  KvPoolShape shape;
  shape.block_tokens = random() % 3 == 0 ? 32 : 16;
  shape.groups.push_back({static_cast<uint32_t>(6 + random() % 16), 0});
  if (random() % 2 == 0)
    shape.groups.push_back(
        {static_cast<uint32_t>(3 + random() % 18), static_cast<uint32_t>(1 + random() % 40)});
  World world(options, shape, 160, seed);
  const uint32_t plans_max = 1 + random() % 3;
  const uint64_t sequence_count = 12;
  uint64_t admitted = 0;
  for (int turn = 0; turn < 20'000; ++turn) {
    if (admitted < sequence_count && world.Random(4) == 0) world.Admit(admitted++);
    if (world.Random(60) == 0) world.Cancel(world.Random(sequence_count));
    if (world.outstanding_count() < plans_max) world.Plan();
    if (world.outstanding_count() > 0 && world.Random(2) == 0) world.Commit();
    if (::testing::Test::HasFatalFailure()) return;
    if (admitted == sequence_count && world.batcher().idle() && world.outstanding_count() == 0)
      break;
  }
  world.Check();
  totals->pauses += world.batcher().counters().pauses;
  totals->hits += world.batcher().counters().prefix_hit_tokens;
}

TEST(BatcherProperty, TokensDoNotDependOnCompany) {
  Totals totals;
  for (uint32_t seed = 1; seed <= testing::SeedCount(300); ++seed) {
    SCOPED_TRACE(seed);
    RunWorld(seed, &totals);
    if (HasFailure()) return;
  }
  // The worlds were hard enough to mean something.
  EXPECT_GT(totals.pauses, 100U);
  EXPECT_GT(totals.hits, 1000U);
}

// Every block is looked at after every plan, commit and cancel.
TEST(BatcherProperty, AThousandRandomCancelsAndPausesLeaveEveryBlockAccountedFor) {
  uint64_t cancels = 0;
  uint64_t pauses = 0;
  for (uint32_t seed = 1; cancels < 1000 || pauses < 1000; ++seed) {
    ASSERT_LT(seed, 2000U) << "too few: " << cancels << " cancels, " << pauses << " pauses";
    SCOPED_TRACE(seed);
    BatchOptions options;
    options.sequences_max = 6;
    options.step_tokens_max = 48;
    options.prefill_chunk_max = 24;
    options.resume_tokens_min = seed % 5;
    World world(options, {16, {{14, 0}, {12, 24}}}, 160, seed);
    uint64_t admitted = 0;
    for (int turn = 0; turn < 400; ++turn) {
      if (admitted < 40 && world.Random(3) == 0) world.Admit(admitted++);
      if (world.Random(12) == 0) world.Cancel(world.Random(40));
      if (world.outstanding_count() < 2) world.Plan();
      if (world.outstanding_count() > 0 && world.Random(2) == 0) world.Commit();
      if (HasFailure()) return;
    }
    for (uint64_t number = 0; number < admitted; ++number) world.Cancel(number);
    while (world.outstanding_count() > 0) world.Commit();
    world.Check();
    if (HasFailure()) return;
    cancels += world.live_cancels();
    pauses += world.batcher().counters().pauses;
  }
}

// CheckRuns looks at every plan.
TEST(BatcherProperty, WithoutRoomASequenceStillStandsInAPlanOnceAndIsNotTossedAbout) {
  uint64_t pauses = 0;
  for (uint32_t seed = 1; seed <= testing::SeedCount(200); ++seed) {
    SCOPED_TRACE(seed);
    BatchOptions options;
    options.sequences_max = 12;
    options.step_tokens_max = 64;
    options.prefill_chunk_max = 1 + seed % 12;
    options.resume_tokens_min = seed % 3;
    KvPoolShape shape{16, {{10 + seed % 6, 0}}};
    if (seed % 2 == 0) shape.groups.push_back({8, 24});
    World world(options, shape, 160, seed);
    const uint32_t plans_max = 1 + seed % 2;
    uint64_t admitted = 0;
    for (int turn = 0; turn < 20'000; ++turn) {
      while (admitted < 30 && world.Random(2) == 0) world.Admit(admitted++);
      if (world.outstanding_count() < plans_max) world.Plan();
      if (world.outstanding_count() > 0) world.Commit();
      if (HasFailure()) return;
      if (admitted == 30 && world.batcher().idle() && world.outstanding_count() == 0) break;
    }
    world.Check();
    if (HasFailure()) return;
    pauses += world.batcher().counters().pauses;
  }
  EXPECT_GT(pauses, 500U);
}

TEST(BatcherProperty, CancelAtEveryPointFreesWhatWasTaken) {
  // plan / commit scripts with one and two plans outstanding; a cancel before each step of them.
  for (const std::string script : {"pcpcpcpcpcpc", "ppcpcpcpcpcpcc", "pppccpcpcpcc"}) {
    for (size_t cancel_at = 0; cancel_at <= script.size(); ++cancel_at) {
      SCOPED_TRACE(script + " " + std::to_string(cancel_at));
      BatchOptions options;
      options.prefill_chunk_max = 16;
      World world(options, {16, {{32, 0}, {32, 24}}}, 160, 7);
      for (uint64_t number = 0; number < 3; ++number) world.Admit(number);
      for (size_t i = 0; i < script.size(); ++i) {
        if (i == cancel_at) world.Cancel(1);
        if (script[i] == 'p') world.Plan();
        if (script[i] == 'c' && world.outstanding_count() > 0) world.Commit();
      }
      world.Cancel(0);
      world.Cancel(1);
      world.Cancel(2);
      while (world.outstanding_count() > 0) world.Commit();
      world.Check();
    }
  }
}

// Groups of sequences, KV that is lost at any moment, or both.
TEST(BatcherProperty, TokensDoNotDependOnGroupsOrOnLosses) {
  uint64_t losses = 0;
  uint64_t behind = 0;
  uint64_t pauses = 0;
  for (uint32_t seed = 1; seed <= testing::SeedCount(1500); ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    BatchOptions options;
    options.sequences_max = 1 + random() % 9;
    options.step_tokens_max = 1 + random() % 64;
    options.prefill_chunk_max = 1 + random() % 40;
    options.prefix_cache = random() % 4 != 0;
    options.resume_tokens_min = random() % 20;
    KvPoolShape shape{16, {{static_cast<uint32_t>(8 + random() % 24), 0}}};
    if (random() % 2 == 0)
      shape.groups.push_back(
          {static_cast<uint32_t>(3 + random() % 18), static_cast<uint32_t>(1 + random() % 40)});
    const uint32_t groups = 1 + random() % 5;
    const uint32_t plans_max = groups == 1 ? 2 : groups;
    const uint32_t loss_every = random() % 3 == 0 ? 0 : 10 + random() % 100;
    World world(options, shape, 160, seed, groups);
    uint64_t admitted = 0;
    bool losing = loss_every > 0;
    const bool failing = random() % 4 == 0;
    for (int turn = 0; turn < 40'000; ++turn) {
      if (admitted < 10 && world.Random(4) == 0) world.Admit(admitted++);
      if (world.Random(60) == 0) world.Cancel(world.Random(10));
      if (losing && world.Random(loss_every) == 0) world.Lose();
      if (failing && world.outstanding_count() > 0 && world.Random(400) == 0) world.Fail();
      if (world.outstanding_count() < plans_max) world.Plan();
      if (world.outstanding_count() > 0 && world.Random(2) == 0) world.Commit();
      if (HasFailure()) return;
      if (turn == 3000) losing = false;
      if (admitted == 10 && world.batcher().idle() && world.outstanding_count() == 0) break;
    }
    world.Check();
    if (HasFailure()) return;
    losses += world.losses_in_run();
    behind += world.chunks_behind();
    pauses += world.batcher().counters().pauses;
  }
  EXPECT_GT(losses, 3000U);
  EXPECT_GT(behind, 1000U);
  EXPECT_GT(pauses, 100U);
}

}  // namespace
}  // namespace muselet
