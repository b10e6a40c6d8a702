// One epoch of a rank as its two threads share it: the step thread makes the groups and computes
// over them, the loop thread brings the values of the rendezvous and ends it all.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/status.h"
#include "comms/rank_group.h"
#include "comms/rank_group_makers.h"
#include "comms/rank_rendezvous.h"
#include "node/model/rank_model.h"
#include "node/rank/rank_messages.h"

namespace muselet {

// Where a rank stands in its replica.
struct RankPosition {
  uint32_t rank = 0;
  uint32_t tensor = 1;
  uint32_t pipeline = 1;

  uint32_t stage() const { return rank / tensor; }
  uint32_t tensor_rank() const { return rank % tensor; }
  bool samples() const { return tensor_rank() == 0 && stage() + 1 == pipeline; }
};

class EpochLinks final : public RankRendezvous {
 public:
  using PutHandler = std::function<void(const std::string& key, std::string value)>;

  // `put` hands a value to the leader; any thread.
  EpochLinks(uint64_t epoch, PutHandler put) : epoch_(epoch), put_(std::move(put)) {}

  uint64_t epoch() const { return epoch_; }

  // Makes the groups that a rank has in the epoch of `form`, by the deadline of the monotonic
  // clock: shared memory where all members are on one node, else Gloo. Step thread.
  Status Make(const RankForm& form, const RankPosition& position, int64_t deadline_us);
  // Step thread, after Make.
  RankLinks links() const;

  // A value of the rendezvous. Any thread.
  void OnValue(const std::string& key, std::string value);
  // Whatever waits for another rank ends with kUnavailable and `reason`, now and later. The groups
  // say nothing in the log if that is `on_purpose`. Any thread.
  void Abort(const std::string& reason, bool on_purpose = false);

  Status Put(const std::string& key, std::string value) override;
  Result<std::string> Get(const std::string& key, int64_t deadline_us) override;
  Status ended() override;

 private:
  using GroupPointer = std::shared_ptr<RankGroup>;
  // A group of the ranks `members`, of which this one is the number `own`.
  Status MakeGroup(const std::string& name, const std::vector<uint32_t>& members, uint32_t own,
                   const RankForm& form, int64_t deadline_us, GroupPointer& group);

  const uint64_t epoch_;
  const PutHandler put_;

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::map<std::string, std::string> values_;
  Status aborted_;
  GroupPointer tensor_;
  GroupPointer previous_;
  GroupPointer next_;
};

}  // namespace muselet
