// One rank of a sharded model: computes its slice of every step and exchanges activations with the
// other ranks of the replica over RankGroups (comms/rank_group).
#pragma once

#include <cstdint>
#include <memory>

#include "comms/rank_group.h"
#include "node/engine/engine_options.h"
#include "node/model/checkpoint.h"
#include "node/model/load_model.h"
#include "node/model/model.h"
#include "node/model/shard_plan.h"

namespace muselet {

// How a rank reaches the others; null where it has none. Not owned: they live until they are
// replaced.
struct RankLinks {
  RankGroup* tensor = nullptr;    // the ranks of the own stage, numbered by tensor rank
  RankGroup* previous = nullptr;  // two members: the rank of the stage before, and this one
  RankGroup* next = nullptr;      // two members: this one, and the rank of the next stage
};

class RankModel : public Model {
 public:
  // No operation that a RankModel enqueues is larger.
  static constexpr size_t kMessageBytesMax = size_t{16} << 20;

  // The links of an epoch. What was computed in the epoch before is void: sequences begin anew.
  // REQUIRES: those that the plan asks for are there. Step thread only.
  virtual void Connect(const RankLinks& links) = 0;
  // Until when the next Forward may wait for other ranks, of the monotonic clock. Step thread only.
  virtual void SetDeadline(int64_t deadline_us) = 0;
  // How long all Forwards together have waited for other ranks. Step thread only.
  virtual int64_t waited_us() const = 0;
  virtual const RankShard& shard() const = 0;

  // Model::Forward gives logits on tensor rank 0 of the last stage, an empty span elsewhere. The
  // faults are those of RankGroup::Wait; after one the model wants new links. `info().kv_bytes` and
  // `weight_bytes` are this rank's, everything else is the whole model's.
};

// Loads what rank `rank` of `plan` holds, touching only that part of the file. Faults as LoadModel.
// REQUIRES: the plan was made for this checkpoint, rank < plan.rank_count().
Result<std::unique_ptr<RankModel>> LoadRankModel(std::shared_ptr<const Checkpoint> checkpoint,
                                                 const EngineOptions& options,
                                                 const ShardPlan& plan, uint32_t rank,
                                                 const LoadProgress& progress);

// What a leader must know of the replica, from headers alone. The numerics id is the whole model's:
// sharding does not change it. kv_bytes and weight_bytes are sums over the ranks; the number of
// blocks is what the fullest rank has room for in options.kv.bytes. Faults as LoadModel.
Result<ModelInfo> DescribeShardedModel(const Checkpoint& checkpoint, const EngineOptions& options,
                                       const ShardPlan& plan);

}  // namespace muselet
