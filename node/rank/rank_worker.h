// The computing half of a rank: makes the groups of an epoch, computes its steps in order, and
// takes all of it down again, on one thread. The other half, which talks to the leader, hands work
// in and never waits for it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <variant>

#include "node/engine/step_executor.h"
#include "node/model/rank_model.h"
#include "node/rank/epoch_links.h"
#include "node/rank/epoch_member.h"
#include "node/rank/rank_messages.h"

namespace muselet {

// What becomes of the work. Called on the step thread; `put` also on those of the groups' makers.
struct RankWorkerHandlers {
  std::function<void(uint64_t epoch, const std::string& key, std::string value)> put;
  std::function<void(uint64_t epoch)> groups_made;
  std::function<void(uint64_t epoch, RankDone done)> done;
  std::function<void(uint64_t epoch, const std::string& reason)> failed;
  std::function<void(uint64_t epoch)> torn_down;
};

class RankWorker {
 public:
  // `slot_count`: BatchOptions::sequences_max.
  RankWorker(std::shared_ptr<RankModel> model, const RankPosition& position, uint32_t slot_count,
             RankWorkerHandlers handlers);

  // Works until Stop. The calling thread is the step thread.
  void Run();

  // What follows: any thread.
  void MakeGroups(RankForm form);
  void OnValue(uint64_t epoch, const std::string& key, std::string value);
  void Compute(RankStep step);
  // What waits for other ranks ends at once, and steps that have not begun are forgotten.
  // `on_purpose`: nothing went wrong.
  void End(uint64_t epoch, const std::string& reason, bool on_purpose = false);
  void Stop();
  RankProgressReport progress() const;

 private:
  struct TearDown {
    uint64_t epoch = 0;
  };
  using Order = std::variant<RankForm, RankStep, TearDown>;
  class Ids;  // TokenExchange over the tensor group

  std::optional<Order> NextOrder();
  void Do(RankForm form);
  void Do(RankStep step);
  void Do(const TearDown& tear_down);

  const std::shared_ptr<RankModel> model_;
  const RankPosition position_;
  const uint32_t slot_count_;
  const RankWorkerHandlers handlers_;

  // Step thread only.
  std::unique_ptr<TokenExchange> exchange_;
  std::unique_ptr<StepExecutor> executor_;  // of the epoch
  int64_t deadline_us_ = 0;                 // of the step that is going on
  int64_t waited_us_ = 0;                   // for other ranks, in that step
  uint64_t failed_epoch_ = 0;

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable wake_;
  std::deque<Order> orders_;
  std::shared_ptr<EpochLinks> links_;  // of the epoch that was begun last
  bool stopping_ = false;

  std::atomic<uint64_t> steps_ = 0;
  std::atomic<int64_t> busy_since_us_ = 0;
};

}  // namespace muselet
