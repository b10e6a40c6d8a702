#include "scheduler/route/replica_table.h"

#include <algorithm>
#include <cmath>

namespace muselet {
namespace {

constexpr int64_t kStepMaxUs = 3'600'000'000;
constexpr double kPrefillTokenMaxUs = 1e8;
constexpr uint32_t kSchedulersMax = 1000;
constexpr size_t kSurfacesMax = 4096;
constexpr int64_t kAskAgainUs = 1'000'000;

}  // namespace

std::string NonsenseIn(const Report& report, const ReplicaInfo& info) {
  if (info.sequences_max > 0 && report.running > info.sequences_max)
    return std::to_string(report.running) + " sequences run where at most " +
           std::to_string(info.sequences_max) + " can";
  if (report.step_us < 0 || report.step_us > kStepMaxUs)
    return "a step lasts " + std::to_string(report.step_us) + " us";
  if (report.kv_blocks_used > report.kv_blocks_total) return "more KV blocks are used than exist";
  if (!std::isfinite(report.prefill_token_us) || report.prefill_token_us < 0 ||
      report.prefill_token_us > kPrefillTokenMaxUs)
    return "its time for a prompt token is no time";
  if (report.schedulers > kSchedulersMax) return std::to_string(report.schedulers) + " schedulers";
  if (report.served.size() > kSurfacesMax)
    return "tokens of " + std::to_string(report.served.size()) + " surfaces";
  return "";
}

ReplicaTable::ReplicaTable(uint64_t prefix_blocks_max)
    : indexed_(prefix_blocks_max > 0), index_(prefix_blocks_max) {}

std::vector<std::string> ReplicaTable::Withdrawn(const std::string& node,
                                                 const std::vector<ReplicaInfo>& announced) const {
  std::vector<std::string> gone;
  for (const auto& [name, replica] : replicas_) {
    const auto same = std::find_if(announced.begin(), announced.end(),
                                   [&](const ReplicaInfo& a) { return a.replica == name; });
    const bool here = replica.node == node;
    if (here && (same == announced.end() || same->epoch != replica.info.epoch)) {
      gone.push_back(name);
    } else if (!here && same != announced.end() && same->epoch > replica.info.epoch) {
      gone.push_back(name);
    }
  }
  return gone;
}

void ReplicaTable::Announce(const std::string& node, const std::vector<ReplicaInfo>& announced) {
  for (const ReplicaInfo& info : announced) {
    const auto found = replicas_.find(info.replica);
    if (found != replicas_.end() && found->second.node != node) continue;
    Replica& replica = replicas_[info.replica];
    replica.node = node;
    replica.info = info;
    // Its connection may be a new one, with messages numbered from the beginning.
    replica.cache_restarts = true;
    if (indexed_ && replica.holder == PrefixIndex::kNoHolder) replica.holder = index_.AddHolder();
  }
  ListModels();
}

void ReplicaTable::Remove(const std::string& replica) {
  const auto found = replicas_.find(replica);
  if (found == replicas_.end()) return;
  index_.DropHolder(found->second.holder);
  replicas_.erase(found);
  ListModels();
}

void ReplicaTable::ListModels() {
  by_model_.clear();
  for (auto& [name, replica] : replicas_) by_model_[replica.info.model].push_back(&replica);
}

ReplicaTable::TakeResult ReplicaTable::TakeReport(const std::string& node, const Report& report,
                                                  int64_t now_us) {
  const auto found = replicas_.find(report.replica);
  if (found == replicas_.end()) return TakeResult::kUnknown;
  Replica& replica = found->second;
  if (replica.node != node || report.epoch < replica.info.epoch) return TakeResult::kStale;
  if (report.epoch > replica.info.epoch) return TakeResult::kUnknown;
  if (replica.report_sequence != 0 && report.sequence <= replica.report_sequence)
    return TakeResult::kStale;
  if (!NonsenseIn(report, replica.info).empty()) return TakeResult::kNonsense;
  replica.Take(report, now_us);
  return TakeResult::kTaken;
}

void ReplicaTable::ForgetCache(Replica& replica) {
  if (index_.CountOf(replica.holder) == 0) return;
  index_.DropHolder(replica.holder);
  replica.holder = index_.AddHolder();
}

ReplicaTable::TakeResult ReplicaTable::TakeCacheEvents(const std::string& node,
                                                       const CacheEvents& events, int64_t now_us) {
  const auto found = replicas_.find(events.replica);
  if (found == replicas_.end()) return TakeResult::kStale;  // its reports ask for Hello
  Replica& replica = found->second;
  if (replica.node != node || events.epoch != replica.info.epoch) return TakeResult::kStale;
  if (!indexed_) return TakeResult::kTaken;
  const bool newer = events.sequence > replica.cache_sequence;
  const bool anew = events.snapshot && (newer || !replica.cache_in_step || replica.cache_restarts);
  if (!anew) {
    if (replica.cache_in_step && !newer && !replica.cache_restarts) return TakeResult::kStale;
    if (!replica.cache_in_step || events.sequence != replica.cache_sequence + 1) {
      replica.cache_in_step = false;
      if (now_us - replica.cache_asked_us < kAskAgainUs) return TakeResult::kStale;
      replica.cache_asked_us = now_us;
      return TakeResult::kUnknown;
    }
  }
  if (anew) ForgetCache(replica);
  replica.cache_in_step = true;
  replica.cache_restarts = false;
  replica.cache_sequence = events.sequence;
  index_.Remove(replica.holder, events.removed);
  index_.Add(replica.holder, events.added);
  return TakeResult::kTaken;
}

uint32_t ReplicaTable::BlockTokensOf(const std::string& model) const {
  const std::vector<Replica*>& replicas = OfModel(model);
  const uint32_t tokens = replicas.empty() ? 0 : replicas.front()->info.block_tokens;
  return std::max(tokens / kHashBlockTokens, 1U) * kHashBlockTokens;
}

const std::vector<PrefixIndex::Match>& ReplicaTable::FindPrefix(
    const std::string& model, const std::vector<BlockHash>& hashes) {
  const uint32_t stride = BlockTokensOf(model) / kHashBlockTokens;
  if (stride == 1) {
    index_.Find(hashes, &matches_);
    return matches_;
  }
  strided_.clear();
  for (size_t i = stride - 1; i < hashes.size(); i += stride) strided_.push_back(hashes[i]);
  index_.Find(strided_, &matches_);
  return matches_;
}

void ReplicaTable::SweepIndex() {
  constexpr int kTablesATick = 16;
  for (int i = 0; i < kTablesATick; ++i) index_.Sweep();
}

Replica* ReplicaTable::Find(const std::string& name) {
  const auto found = replicas_.find(name);
  return found == replicas_.end() ? nullptr : &found->second;
}

const std::vector<Replica*>& ReplicaTable::OfModel(const std::string& model) const {
  static const std::vector<Replica*> kNone;
  const auto found = by_model_.find(model);
  return found == by_model_.end() ? kNone : found->second;
}

void ReplicaTable::CountSilenceFrom(int64_t now_us) {
  for (auto& [name, replica] : replicas_) replica.last_report_us = now_us;
}

std::vector<std::string> ReplicaTable::SilentSince(int64_t since_us) const {
  std::vector<std::string> list;
  for (const auto& [name, replica] : replicas_)
    if (replica.reported && replica.last_report_us < since_us) list.push_back(name);
  return list;
}

uint32_t ReplicaTable::SchedulerCount() const {
  uint32_t count = 1;
  for (const auto& [name, replica] : replicas_)
    if (replica.reported) count = std::max(count, replica.schedulers);
  return count;
}

}  // namespace muselet
