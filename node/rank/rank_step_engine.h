// The StepEngine of a replica that is made of ranks: hands each plan to all of them over ZeroMQ,
// takes results from the sampling rank, and gives everything back with state_lost when a rank is
// lost, until the next epoch is formed. The protocol is node/rank/epoch_leader; sockets, clock and
// thread are here: an event loop of its own.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "comms/message_socket.h"
#include "monitoring/metrics.h"
#include "node/engine/step_engine.h"
#include "node/rank/epoch_timing.h"
#include "node/rank/rank_codec.h"

namespace muselet {

struct RankStepEngineOptions {
  std::string replica;
  std::string endpoint;  // tcp://HOST:PORT; port 0: the system chooses (see endpoint())
  uint32_t tensor = 1;
  uint32_t pipeline = 1;
  std::vector<std::string> nodes;  // by rank = stage * tensor + tensor rank: who starts it
  ModelInfo info;                  // of the whole replica; kv_groups is what the batcher may use
  std::string software_version;
  std::string shard_plan_digest;
  uint32_t slots = 0;     // BatchOptions::sequences_max
  uint32_t rows_max = 0;  // BatchOptions::step_tokens_max
  EpochTiming timing;
};

// The words for RankMetrics.
std::vector<std::string> RankLossNames();

class RankStepEngine : public StepEngine {
 public:
  // Binds the endpoint and runs the loop: ranks may join from now on. Faults as
  // MessageServer::Bind. The context outlives the engine.
  static Result<std::unique_ptr<RankStepEngine>> Make(RankStepEngineOptions options,
                                                      WireContext& context,
                                                      const RankMetrics& metrics);
  // A rank's process that had joined died by its own fault, as who started it knows. Any thread.
  virtual void NoteOwnFault() = 0;
  // Where the ranks connect. Any thread.
  virtual const std::string& endpoint() const = 0;
  // Of the formed epoch, or the last one; 0 before the first. Any thread.
  virtual uint64_t epoch() const = 0;
  // Why it is not available, for /readyz: "waits for rank 1 (node n1)"; "" if it is. Any thread.
  virtual std::string waiting_for() const = 0;
};

}  // namespace muselet
