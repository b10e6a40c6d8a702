// The process of one rank: loads its slice of the model, joins its leader, and computes what the
// leader plans, epoch after epoch, until it is told to go. It holds no request and no text, so it
// may be killed at any moment without a token being lost.
//
// Two threads. The loop thread talks to the leader (RawDealer, EpochMember) and to the supervisor,
// and turns whatever else happens, so that a rank that hangs or loads is told from one that died.
// The calling thread loads and computes (RankWorker); it never looks at a socket.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "comms/message_socket.h"
#include "node/engine/engine_options.h"
#include "node/model/rank_model.h"
#include "node/rank/epoch_links.h"
#include "node/rank/epoch_timing.h"

namespace muselet {

struct LoadedRank {
  std::shared_ptr<RankModel> model;
  std::string shard_plan_digest;
};

struct RankProcessOptions {
  std::string replica;
  RankPosition position;
  std::string leader;  // endpoint where it joins
  std::string node;    // whose device it has
  std::string host;    // where other ranks reach it
  std::string software_version;
  uint32_t slots = 0;     // BatchOptions::sequences_max
  uint32_t rows_max = 0;  // BatchOptions::step_tokens_max
  EpochTiming timing;
  // A child of a node: its supervisor hears of it through kSupervisorDescriptor, and nobody else
  // may ask it to stop by SIGTERM or SIGINT.
  bool supervised = false;
  std::function<Result<LoadedRank>()> load;  // called once, on the calling thread
};

// Returns the exit code of the process (node/rank/restart_policy) if loading fails. Otherwise the
// process ends within: by SIGTERM or SIGINT with 0, with kRankExitRefused, kRankExitStuck or
// kRankExitFault. On the main thread, before there are others; `context` outlives the process.
int RunRankProcess(RankProcessOptions options, WireContext& context);

}  // namespace muselet
