// What the leader of a sharded replica and its ranks say to each other, as plain values. The
// protocol cores (epoch_leader, epoch_member) take and give these and do no I/O; rank_codec turns
// them into protobuf (comms/proto/rank.proto) and back.
//
//   rank -> leader   Join, Put, Ready, Done, Fault, Alive
//   leader -> rank   Alive, Form, Value, Start, Step, Abort, Refused
//
//   rank        Join ...... Put  Ready       Done Done
//   leader             Form    Value   Start Step Step        Abort
//
// An epoch is one life of the replica's groups: all ranks take part from its Form to its Abort, and
// every message of it carries its number; what carries another number is left unread. Times on the
// wire are durations: hosts do not share a clock.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/status.h"
#include "node/engine/step_engine.h"
#include "scheduler/batch/step_plan.h"

namespace muselet {

inline constexpr uint32_t kRankProtocolVersion = 2;

// What leader and ranks must have in common to compute the same thing.
struct RankAgreement {
  std::string software_version;
  std::string model_digest;
  std::string shard_plan_digest;
  std::string numerics_id;
  std::vector<uint32_t> kv_blocks;  // by KV group: the rank has this many or more
  friend bool operator==(const RankAgreement&, const RankAgreement&) = default;
};

// Repeated until answered by Form or Refused; it is the sign of life of a rank without an epoch.
struct RankJoin {
  std::string replica;
  uint32_t rank = 0;
  std::string node;         // that started it, name from the config
  std::string host;         // where the other ranks reach it
  uint64_t instance = 0;    // of the process, drawn at its start
  uint32_t pid = 0;         // for the log
  uint64_t session = 0;     // grows with each try to take part; Form names it
  uint64_t epoch_seen = 0;  // the largest it knows of; the next one is larger
  RankAgreement agreement;
};

// A value for the other ranks of the epoch (comms/rank_rendezvous).
struct RankPut {
  uint64_t epoch = 0;
  std::string key;
  std::string value;
};
// The rank has its groups and waits for Start.
struct RankReady {
  uint64_t epoch = 0;
};
// A step is over on this rank. The sampling rank's carries the result, the others' is empty.
struct RankDone {
  uint64_t epoch = 0;
  uint64_t step = 0;
  int64_t step_us = 0;  // how long it computed, less what it waited for other ranks
  Status fault;         // of the sampling rank: the step gave nothing, and the epoch goes on
  StepResult result;
};
// The rank cannot go on in this epoch.
struct RankFault {
  uint64_t epoch = 0;
  std::string reason;
};
// From the loop of the process that reports how its step thread does.
struct RankAlive {
  uint64_t epoch = 0;
  uint64_t steps = 0;   // done in this epoch
  int64_t busy_us = 0;  // since when the step that is going on computes; 0 = none is
};

struct RankPlace {
  std::string node;
  std::string host;
  friend bool operator==(const RankPlace&, const RankPlace&) = default;
};
// All ranks have joined: make the groups, then say Ready.
struct RankForm {
  uint64_t epoch = 0;
  uint64_t session = 0;           // of the Join that it answers
  std::vector<RankPlace> places;  // by rank
  int64_t timeout_us = 0;         // to Ready
};
struct RankValue {
  uint64_t epoch = 0;
  std::string key;
  std::string value;
};
// All ranks are ready: steps follow.
struct RankStart {
  uint64_t epoch = 0;
};
struct RankStep {
  uint64_t epoch = 0;
  uint64_t step = 0;       // 1, 2, 3, ... within the epoch; a gap or a repeat ends the epoch
  int64_t timeout_us = 0;  // of its fences, from when the rank begins with it
  StepPlan plan;
  std::vector<SlotStart> starts;
};
// The epoch is over. The rank keeps its weights and joins the next one.
struct RankAbort {
  uint64_t epoch = 0;
  std::string reason;
  bool on_purpose = false;  // nothing went wrong: the leader stops
};
// The rank does not fit this replica. It says why and exits.
struct RankRefused {
  uint64_t session = 0;
  std::string reason;
};
// The leader is there. Answers each Join that is still to wait.
struct LeaderAlive {
  uint64_t epoch = 0;       // 0: none yet
  std::string waiting_for;  // whom, while there is none
};

using RankMessage =
    std::variant<RankJoin, RankPut, RankReady, RankDone, RankFault, RankAlive, RankForm, RankValue,
                 RankStart, RankStep, RankAbort, RankRefused, LeaderAlive>;
// For logs: "join", "step", ...
std::string_view RankMessageName(const RankMessage& message);

// What a value of the rendezvous may be.
inline constexpr size_t kRankKeyBytesMax = 256;
inline constexpr size_t kRankValueBytesMax = 64 * 1024;
inline constexpr uint32_t kEpochRanksMax = 1024;
// Outstanding at once, at most; engines want far fewer.
inline constexpr uint32_t kRankStepsMax = 64;

}  // namespace muselet
