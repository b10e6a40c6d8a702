// The replicas of the cluster as their nodes describe them. Soft state: a restarted scheduler has
// all of it again after one report of each and a snapshot of its prefix cache. Part of the Router;
// sans-I/O, one owner.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/messages.h"
#include "scheduler/route/prefix_index.h"
#include "scheduler/route/replica.h"

namespace muselet {

class ReplicaTable {
 public:
  // `prefix_blocks_max`: of the index; 0 = none is kept.
  explicit ReplicaTable(uint64_t prefix_blocks_max);

  // Makes the replicas of node `node` those of `announced`. Returns the names of those that are
  // gone, still in the table: withdrawn, or formed anew under another epoch. The caller settles
  // their tickets, calls Remove for each, and then calls Announce again.
  std::vector<std::string> Withdrawn(const std::string& node,
                                     const std::vector<ReplicaInfo>& announced) const;
  // A name that another living node leads under the same or a later epoch is left to it.
  void Announce(const std::string& node, const std::vector<ReplicaInfo>& announced);
  void Remove(const std::string& replica);

  enum class TakeResult {
    kTaken,
    kStale,     // an older sequence or epoch, or not from its node: nothing changed
    kUnknown,   // the node must say Hello again: no such replica, a newer epoch than announced, or
                // messages of its cache are missing
    kNonsense,  // what it says cannot be: nothing changed
  };
  TakeResult TakeReport(const std::string& node, const Report& report, int64_t now_us);
  // kUnknown is said once a second at most, until the snapshot comes.
  TakeResult TakeCacheEvents(const std::string& node, const CacheEvents& events, int64_t now_us);

  // Who has cached how much of a prompt for this model, by PrefixIndex::Holder; valid until the
  // next call.
  const std::vector<PrefixIndex::Match>& FindPrefix(const std::string& model,
                                                    const std::vector<BlockHash>& hashes);
  // How many of the first hashes' tokens one block of the index stands for.
  uint32_t BlockTokensOf(const std::string& model) const;
  void SweepIndex();
  const PrefixIndex& index() const { return index_; }

  Replica* Find(const std::string& name);
  // In the order of names.
  const std::vector<Replica*>& OfModel(const std::string& model) const;
  // Reported once, and silent since before `since_us`.
  std::vector<std::string> SilentSince(int64_t since_us) const;
  // We were stuck: their reports may lie unread.
  void CountSilenceFrom(int64_t now_us);
  // The most schedulers that a replica is joined with, ours included.
  uint32_t SchedulerCount() const;
  const std::map<std::string, Replica>& all() const { return replicas_; }
  std::map<std::string, Replica>& all() { return replicas_; }

 private:
  void ListModels();
  void ForgetCache(Replica& replica);

  const bool indexed_;
  PrefixIndex index_;
  std::map<std::string, Replica> replicas_;
  std::map<std::string, std::vector<Replica*>> by_model_;
  std::vector<PrefixIndex::Match> matches_;
  std::vector<BlockHash> strided_;
};

// Why a report cannot be true; empty if it can.
std::string NonsenseIn(const Report& report, const ReplicaInfo& info);

}  // namespace muselet
