// Continuous batching with chunked prefill over a paged KV cache: decides which rows the next step
// computes. A deterministic core: no clock, thread, tensor or metric; times come in as arguments.
//
//   Admit, Cancel        sequences come and go at any time
//   Plan(now)            rows of the next step: running decodes first, then prefill chunks
//   Commit(number, ...)  what that step gave; Fail(number, ...) if it gave nothing
//   Reset(lost)          all KV is gone: everything starts again from the tokens that are known
//   TakeUpdates          tokens and endings since the last call, for the gateways
//
// Budget: with decodes in the plan, prefill rows are added while the step is predicted
// (scheduler/batch/step_time_model) to last at most step_stretch times what the decodes alone take.
// With a stretch of 2 the two share the time evenly: running streams go at half speed at worst, and
// so does a prompt that arrives. Of several sequences that wait for their first token each one gets
// as much time as the decodes have, so that a burst is answered soon (batch work does not count
// here). No step with decodes is predicted beyond step_target_us, unless that leaves prefill less
// than kPrefillShareMin of its time or not a single row; none at all beyond step_max_us, unless one
// row alone is.
//
// Before any prefill has been measured how long it takes is a guess, which may be wrong by as much
// as models and machines differ: a plan has no more of it than is guessed to last step_max_us /
// kGuessFactor.
//
// Outstanding plans: Plan may be called again before Commit. A sequence stands in at most two of
// them, the second one step ahead with kTokenFromEarlierPlan for the token not yet known. Plans
// commit in order. Tokens past a stop are discarded at Commit.
//
// Groups: a replica of several stages computes as many plans at once, each at another stage. With
// sequence_groups G > 1 plans are made for that:
//
//   - A decode is planned when its token is known: it stands in one outstanding plan at most, and
//     never with kTokenFromEarlierPlan. Of D running decodes a plan takes ceil(D / min(G, D)) at
//     most, or fewer, so that what is free now lasts for the plans that are still to be made: the
//     groups are even. They are formed anew with every plan: those planned longest ago go first,
//     whatever their class, so that nobody is left out twice.
//   - The chunks of a prompt follow one another through the stages without waiting: a chunk needs
//     the KV of the one before, which every stage has computed by then, because it takes plans in
//     their order. Rows of prefill are spread over the plans too, but not thinner than
//     kGroupPrefillRowsMin. A chunk behind an outstanding one pauses nobody.
//   - Times are those of one stage, which is what a step adds to the pace of all. A plan without
//     decodes, made while others of the outstanding ones have some, lasts at most step_stretch
//     times what their decodes take, like a plan with decodes.
//
// Loss: Reset drops the outstanding plans and empties the prefix cache. What ran waits again, ahead
// of what never ran, with its tokens; that is no pause: it neither protects nor costs anything. A
// step that was given up because it lasted too long teaches how long it lasts at least, so that
// what is planned next is smaller, and is predicted, and so waited for, longer.
//
// Memory: a sequence starts when the blocks for all its known tokens are free, and takes one more
// block at a time as it grows. When none is left the cheapest sequence (lowest class, then
// youngest) is paused and recomputed later; what was paused takes the blocks for resume_tokens_min
// more tokens when it starts again, and is left alone until it has them. It does not start again in
// the plan that it was paused for, nor does anyone in its stead: what was taken from it is in use,
// and the rest is its own. A waiting sequence may pause running ones of lower classes only.
//
// Classes: while a sequence of a higher class is here batch work gets no more than kBatchFloor of
// the time that steps are predicted to last, rows that cost nothing beside it included. It gives
// way with the next plan; what it holds stays its own, for as long as nobody of a higher class
// needs it.
//
// Order: classes are strict; inside a class paused sequences start first, then those of the surface
// that was served least (scheduler/batch/fair_share). Among those, and among the prompts that have
// started, the one with the fewest tokens to go is next, so that prompts are finished one by one
// and the median first token comes early; each millisecond that a sequence has waited counts as a
// token less, so that long prompts are not passed for ever.
//
// Step thread only.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/messages.h"
#include "base/status.h"
#include "scheduler/batch/batch_options.h"
#include "scheduler/batch/fair_share.h"
#include "scheduler/batch/prefix_cache.h"
#include "scheduler/batch/sequence.h"
#include "scheduler/batch/step_plan.h"
#include "scheduler/batch/step_time_model.h"

namespace muselet {

// What the batcher must know of the model.
struct BatchModel {
  uint32_t vocab_size = 0;
  uint32_t context_tokens = 0;
  KvPoolShape kv;
  uint32_t sequence_groups = 1;
};

// Since the batcher was made.
struct BatchCounters {
  uint64_t plans = 0;
  uint64_t prefill_rows = 0;         // committed
  uint64_t tokens = 0;               // committed, discarded ones not counted
  uint64_t prefix_query_tokens = 0;  // prompt tokens of started sequences
  uint64_t prefix_hit_tokens = 0;    // of those, found in the prefix cache
  uint64_t pauses = 0;
  uint64_t finished = 0;
};

// The prefill that is still to be done.
struct PrefillForecast {
  uint64_t tokens = 0;  // before everything that is here decodes, were nothing found in the cache
  double token_us = 0;  // cost of one of them, in a step of many and nothing else; 0 = not known
};

class Batcher {
 public:
  // Part of a step with running decodes that is left to prefill, whatever step_target_us says.
  static constexpr double kPrefillShareMin = 0.2;
  // After so many plans in a row with decodes and prefill comes one with decodes alone: what these
  // take is the measure of what prefill may add, and would not be known any more (contexts grow,
  // machines slow down); what they take longer would be laid to prefill, which would starve.
  static constexpr uint32_t kMixedInARowMax = 16;
  // Of the time, to batch work beside higher classes; one plan may have more, later ones less.
  static constexpr double kBatchFloor = 0.02;
  // Prefill of batch work adds no more than this to one such plan.
  static constexpr double kBatchFloorInOnePlan = 0.1;
  static constexpr double kShareMin = 1e-6;  // of Submit::share
  static constexpr double kShareMax = 1e6;
  static constexpr int64_t kGuessFactor = 14;  // 31 rows by default
  // Rows of a step that belong to sequences that want prompt logprobs, all together: each of them
  // needs a row of logits.
  static constexpr uint32_t kPromptLogprobRowsMax = 32;
  // Fewer rows of prefill are not spread over several groups: each plan reads all weights.
  static constexpr uint32_t kGroupPrefillRowsMin = 32;
  // Surfaces that are counted apart; tokens of more are counted as those of the surface "".
  static constexpr size_t kSurfacesMax = 1024;

  Batcher(const BatchOptions& options, const BatchModel& model);

  // The longest sequence, prompt and answer: the model's context or what the KV cache can hold.
  uint32_t context_tokens() const { return context_tokens_; }

  // Takes a sequence. The same attempt again is a no-op; a newer attempt of the same record takes
  // the older over as it stands: what was generated beyond the tokens that it names is said again,
  // under the new attempt. Of another record it replaces the older. An older attempt is ignored.
  // kInvalidArgument: it could never run, and why. kResourceExhausted: the line is full.
  Status Admit(Submit record, int64_t now_us);
  // Ends the sequence if it is here with this attempt or an older one (update: kCancelled). Blocks
  // are free at once, or when the last outstanding plan that names it commits.
  void Cancel(const SequenceId& sequence, uint32_t attempt);

  // The next step, or an empty plan (number 0) if there is nothing to compute now. Ends sequences
  // whose time is over before they cost anything.
  StepPlan Plan(int64_t now_us);
  // REQUIRES: the oldest outstanding plan; one result a slice. `step_us`: how long the step took, 0
  // if that is not known.
  void Commit(uint64_t plan_number, const StepResult& result, int64_t step_us, int64_t now_us);
  // The step gave nothing: every sequence that it named ends with kError and `fault`.
  void Fail(uint64_t plan_number, const Status& fault);
  // The KV of every sequence is lost, and with it the outstanding plans: they are neither committed
  // nor failed any more. `lost_us`: so long the oldest of them computed, and did not end; 0 if that
  // is not known, or says nothing of the step.
  void Reset(int64_t lost_us = 0);
  // The loss of the last Reset was a process that died by its own fault: whoever stood in the plans
  // that were dropped may have done that. Each of them is computed alone, nobody beside it, until
  // it is past where it was; if that ends in Blame again it is to blame, and ends with kError.
  // Returns how many are suspects now. To be called before the next Plan, if at all.
  size_t Blame();
  // Ends the sequences whose time is over; Plan does so too.
  void ExpireDeadlines(int64_t now_us);
  // When the next time is over; 0 = none has a deadline. Looks at all sequences.
  int64_t NextDeadlineUs() const;
  std::vector<TokenUpdate> TakeUpdates();
  // Gives the memory of a plan that is of no more use back to Plan.
  void Recycle(StepPlan plan);

  // The sequence that computes in `slot`. REQUIRES: an outstanding plan names the slot.
  const Sequence& InSlot(SequenceSlot slot) const;

  uint32_t running_count() const { return running_count_; }  // kLeaving included
  uint32_t waiting_count() const { return static_cast<uint32_t>(waiting_.size()); }
  size_t outstanding_count() const { return outstanding_.size(); }
  bool idle() const { return sequences_.empty(); }
  const PrefixCache& cache() const { return cache_; }
  const BatchCounters& counters() const { return counters_; }
  // Prompt and generated tokens computed for each surface, nothing twice: neither what the prefix
  // cache had nor what was computed again after a pause or a loss. Only grows.
  const std::map<std::string, uint64_t>& served() const { return served_; }
  // Looks at all sequences.
  PrefillForecast ForecastPrefill() const;
  // As PrefixCache's.
  void RecordCacheChanges() { cache_.RecordChanges(); }
  void TakeCacheChanges(PrefixChanges* changes) { cache_.TakeChanges(changes); }
  std::vector<SequenceId> ActiveSequences() const;
  // Every block is held exactly as often as tables of sequences name it, and what nobody names is
  // available. For tests: looks at all blocks.
  bool BlocksAddUp() const;
  // Shares of the surfaces of a class are equal until they are set.
  FairShare& fair_share(RequestClass request_class) {
    return shares_[static_cast<size_t>(request_class)];
  }

 private:
  struct Outstanding {
    uint64_t number = 0;
    StepLoad decodes;
    StepLoad prefill;
    struct Slice {
      SequenceSlot slot;
      uint32_t first_position;
      uint32_t row_count;
      uint32_t logits_rows;
      bool samples;
      bool prefill;
    };
    std::vector<Slice> slices;
  };
  // A plan in the making.
  struct Draft {
    StepPlan plan;
    Outstanding record;
    bool beside_decodes = false;   // of its own, or of another group
    int64_t prefill_limit_us = 0;  // beside decodes: prefill is added up to this prediction
    uint32_t prefill_rows_max = 0;
    uint32_t prefill_rows = 0;
    uint32_t prompt_logprob_rows = 0;
    bool batch_on_floor = false;  // higher classes have work
    bool batch_may_run = true;    // some of it, now
    double batch_limit_us = 0;    // while its prefill is planned on the floor: of the whole step
    uint32_t batch_rows = 0;      // of its prefill
  };

  // batcher.cc: admission, commit, endings.
  Status CheckRecord(const Submit& record) const;
  static bool MayTakeOver(const Sequence& sequence, const Submit& record);
  void TakeOver(Sequence& sequence, Submit record, int64_t now_us);
  bool ReportAndEndIfComplete(Sequence& sequence, std::vector<SampledToken> tokens);
  void End(Sequence& sequence, FinishReason reason, const Status& fault);
  void Retire(Sequence& sequence);
  void CommitSlice(const Outstanding::Slice& slice, const SliceResult& result);
  void TakePromptLogprobs(Sequence& sequence, const Outstanding::Slice& slice,
                          const SliceResult& result);
  void CountServed(Sequence& sequence, const Outstanding::Slice& slice);
  void SettleLeaving(Sequence& sequence);
  Outstanding TakeOldest(uint64_t plan_number);
  void KeepSpare(Outstanding record);
  TokenUpdate MakeUpdate(Sequence& sequence, std::vector<SampledToken> tokens) const;

  // batcher_plan.cc: what goes into a step.
  Draft NewDraft();
  bool FillDraft(Draft& draft, int64_t now_us, bool work_conserving);
  Sequence* FirstSuspect() const;
  bool LeftOutForFloor(const Draft& draft, const Sequence& sequence) const;
  void SettleBatchFloor(const Draft& draft);
  void PlanDecodes(Draft& draft);
  uint32_t DecodeRowsMax(const Draft& draft) const;
  uint32_t PrefillRowsMax() const;
  uint32_t PlansToCome() const;
  double DecodesBesideUs(const Draft& draft) const;
  int64_t PrefillLimitUs(double decodes_us) const;
  double DecodesUs(const Outstanding& step) const;
  double PredictUs(const Outstanding& step) const;
  const StepTimeModel& PrefillTime(const Outstanding& step) const {
    return step.decodes.rows > 0 ? added_time_ : prefill_time_;
  }
  void ObserveTime(const Outstanding& step, int64_t step_us);
  void ObserveLoss(const Outstanding& step, int64_t lost_us);
  void PlanPrefill(Draft& draft, int64_t now_us);
  void PlanBatchPrefill(Draft& draft, int64_t now_us, bool& blocked);
  void PlanPrefillOf(Draft& draft, RequestClass request_class, int64_t now_us, bool& blocked);
  bool PlanChunk(Draft& draft, Sequence& sequence);
  void AddSlice(Draft& draft, Sequence& sequence, uint32_t row_count);
  uint32_t RowsLeft(const Draft& draft, const Sequence& sequence, uint32_t row_max) const;
  void ListRunning(bool rotate);
  bool grouped() const { return model_.sequence_groups > 1; }
  bool MayTakeRows(const Sequence& sequence) const;
  Sequence* NextWaiting(RequestClass request_class, int64_t now_us) const;
  Sequence* NextToStart(RequestClass request_class, int64_t now_us, bool& blocked) const;

  // batcher_memory.cc: slots and blocks.
  enum class StartResult { kStarted, kDeferred, kNoRoom };
  StartResult TryStart(Sequence& sequence);
  void Start(Sequence& sequence, const PrefixCache::Hit& hit);
  bool MustWaitForPrefix(const Sequence& sequence, const PrefixCache::Hit& hit,
                         const std::vector<BlockHash>& keys) const;
  uint32_t PositionsAtStart(const Sequence& sequence) const;
  std::vector<uint32_t> BlocksToStart(const Sequence& sequence, const PrefixCache::Hit& hit) const;
  bool HasRoom(const std::vector<uint32_t>& blocks_needed) const;
  void PauseLowerClasses(const Sequence& sequence, const std::vector<uint32_t>& blocks_needed);
  enum class Groups { kAll, kFullOnly };
  bool AllocateUpTo(Sequence& sequence, uint32_t position_count, Groups groups);
  bool Grow(Sequence& sequence, uint32_t position_count);
  // Of two running sequences, the one that is paused first.
  static bool Cheaper(const Sequence& a, const Sequence& b);
  // From a sequence of this class: batch work is not protected from higher ones.
  static bool Protected(const Sequence& sequence, RequestClass from);
  // `unprotected_from`: of those only that are not protected from this class.
  Sequence* CheapestRunning(std::optional<RequestClass> unprotected_from) const;
  bool AnyLeaving() const;
  void Pause(Sequence& sequence);
  void LeaveSlot(Sequence& sequence);
  void ReturnToWaiting(Sequence& sequence);
  void Erase(Sequence& sequence);
  void ExtendHashes(Sequence& sequence);
  void RegisterBlocks(Sequence& sequence);
  void ReleasePassedBlocks(Sequence& sequence);
  void SetComputing(const Sequence& sequence, bool computing);
  std::vector<BlockHash> Keys(const Sequence& sequence, uint32_t block_count) const;

  const BatchOptions options_;
  const BatchModel model_;
  PrefixCache cache_;
  const uint32_t context_tokens_;
  // A step takes what its decodes alone take, and what its prefill adds to that. Learned apart: the
  // first is the measure for the second, and must not change while there is prefill in every step.
  StepTimeModel decode_time_;
  StepTimeModel prefill_time_;  // of steps without decodes
  StepTimeModel added_time_{StepTimeModel::kAddedRows};
  std::array<FairShare, 3> shares_;  // by class
  std::array<uint32_t, 3> live_by_class_{};
  double batch_credit_us_ = 0;  // that batch work may take beside higher classes; negative: it took
  BatchCounters counters_;
  std::map<std::string, uint64_t> served_;

  uint64_t next_serial_ = 1;
  uint64_t next_run_ = 1;
  uint64_t next_plan_ = 1;
  uint64_t drafts_ = 0;                                      // begun
  std::map<uint64_t, std::unique_ptr<Sequence>> sequences_;  // by serial; owns
  std::unordered_map<SequenceId, Sequence*> live_;           // not ended
  std::map<uint64_t, Sequence*> waiting_;                    // by serial
  std::vector<Sequence*> slots_;                             // by slot; null = free
  std::vector<SequenceSlot> free_slots_;                     // a stack
  uint32_t running_count_ = 0;
  std::vector<SequenceId> lost_;  // stood in the plans that the last Reset dropped
  size_t suspects_ = 0;
  const Sequence* alone_ = nullptr;  // while suspects_ > 0: who may be planned
  bool decodes_left_out_ = false;    // the last plan had no room for all of them
  uint32_t mixed_in_a_row_ = 0;      // plans with decodes and prefill
  bool prefill_measured_ = false;    // some of it was committed
  std::deque<Outstanding> outstanding_;
  // Blocks that a running sequence is about to compute: who needs the same waits for them instead
  // of computing them again.
  std::unordered_map<BlockHash, const Sequence*> computing_;
  std::vector<TokenUpdate> updates_;

  // Memory that is used again: Plan allocates nothing once its vectors have grown.
  static constexpr size_t kSparesMax = 8;
  std::vector<StepPlan> spare_plans_;
  std::vector<Outstanding> spare_records_;
  std::vector<Sequence*> running_;         // of ListRunning
  std::vector<Sequence*> prefilling_;      // of one class, in order
  std::vector<const Sequence*> deferred_;  // wait for the prefix that another one computes
};

}  // namespace muselet
