// EpochLeader: who may take part, and when an epoch begins.
#include <algorithm>
#include <array>
#include <utility>

#include "node/rank/epoch_leader.h"

namespace muselet {
namespace {

constexpr size_t kRefusalCausesMax = 256;
constexpr uint32_t kRefusalsToldMax = 10;  // within kRefusalsWindowUs
constexpr int64_t kRefusalsWindowUs = 10'000'000;
constexpr uint64_t kEpochSeenMax = uint64_t{1} << 62;

std::string Differs(const std::string& what, const std::string& theirs, const std::string& ours,
                    const std::string& fix) {
  if (theirs == ours) return "";
  return "its " + what + " is " + (theirs.empty() ? "unknown" : theirs) + ", the leader's is " +
         ours + ": " + fix;
}

}  // namespace

std::string EpochLeader::Misfit(const RankJoin& join) const {
  const RankAgreement& theirs = join.agreement;
  const RankAgreement& ours = plan_.agreement;
  if (join.replica != plan_.replica)
    return "it belongs to replica " + join.replica + ", this is the leader of " + plan_.replica +
           ": check the address that it was given";
  if (join.epoch_seen > kEpochSeenMax || join.session == 0) return "its join makes no sense";
  if (join.rank >= members_.size())
    return "the replica has ranks 0 to " + std::to_string(members_.size() - 1) +
           ": run the same config file everywhere";
  const std::string& node = plan_.nodes[join.rank];
  if (!node.empty() && join.node != node)
    return "it runs on node " + join.node + ", the config puts it on " + node +
           ": run the same config file everywhere";
  const std::array<std::string, 4> differences = {
      Differs("version", theirs.software_version, ours.software_version,
              "run the same release everywhere"),
      Differs("model digest", theirs.model_digest, ours.model_digest,
              "give all nodes the same model files"),
      Differs("shard plan", theirs.shard_plan_digest, ours.shard_plan_digest,
              "run the same config file everywhere"),
      Differs("numerics id", theirs.numerics_id, ours.numerics_id,
              "run the same release with the same options everywhere")};
  for (const std::string& difference : differences) {
    if (!difference.empty()) return difference;
  }
  if (theirs.kv_blocks.size() != ours.kv_blocks.size())
    return "it has " + std::to_string(theirs.kv_blocks.size()) + " KV groups, the replica " +
           std::to_string(ours.kv_blocks.size()) + ": give all nodes the same model files";
  for (size_t group = 0; group < ours.kv_blocks.size(); ++group) {
    if (theirs.kv_blocks[group] >= ours.kv_blocks[group]) continue;
    return "it has " + std::to_string(theirs.kv_blocks[group]) + " KV blocks, the replica needs " +
           std::to_string(ours.kv_blocks[group]) + ": lower kv.bytes or free its memory";
  }
  return "";
}

void EpochLeader::Refuse(const std::string& peer, const RankJoin& join, const std::string& reason,
                         int64_t now_us, EpochOutput& out) {
  const std::string who =
      "rank " + std::to_string(join.rank) + " (node " + join.node + ", host " + join.host;
  const std::string why = ") of replica " + join.replica + " is refused: " + reason;
  const std::string text = who + ", pid " + std::to_string(join.pid) + why;
  out.send.push_back({{peer}, RankRefused{join.session, text}});
  // Each process that is started anew has another number.
  TellRefusal(who + why, text, now_us, out);
}

EpochOutput EpochLeader::OnOtherVersion(const std::string& peer, const std::string& reason,
                                        int64_t now_us) {
  if (Find(peer) != nullptr) return OnMalformed(peer, reason, now_us);
  EpochOutput out;
  const std::string text = "a rank is refused by the leader of " + plan_.replica + ": " + reason;
  // It cannot read this, but sees that it is of another version.
  out.send.push_back({{peer}, RankRefused{0, text}});
  TellRefusal(text, text, now_us, out);
  return out;
}

void EpochLeader::TellRefusal(const std::string& cause, std::string text, int64_t now_us,
                              EpochOutput& out) {
  if (refusal_causes_.contains(cause)) return;
  if (now_us - refusals_since_us_ >= kRefusalsWindowUs) {
    refusals_since_us_ = now_us;
    refusals_told_ = 0;
  }
  if (refusals_told_++ >= kRefusalsToldMax) return;
  if (refusal_causes_.size() >= kRefusalCausesMax) refusal_causes_.clear();
  refusal_causes_.insert(cause);
  EpochEvent& event = out.events.emplace_back();
  event.kind = EpochEvent::Kind::kRefused;
  event.text = std::move(text);
}

// A second process for a rank that has one. Which of them is dead shows within a heartbeat.
void EpochLeader::OnSecond(Member& member, const std::string& peer, const RankJoin& join,
                           int64_t now_us, EpochOutput& out) {
  if (!member.challenger || member.challenger->peer != peer)
    member.challenger = Challenger{peer, now_us};
  if (member.heard_us - member.challenger->since_us <= timing_.heartbeat_interval_us) return;
  Refuse(peer, join,
         "this rank is there already, as pid " + std::to_string(member.join.pid) + " on host " +
             member.join.host + ": stop one of the two",
         now_us, out);
}

void EpochLeader::OnJoin(const std::string& peer, RankJoin join, int64_t now_us, EpochOutput& out) {
  const std::string misfit = Misfit(join);
  Member* known = Find(peer);
  if (known != nullptr && (!misfit.empty() || RankOf(*known) != join.rank))
    Lose(*known, RankLoss::kNonsense, "joins as another one", now_us, out);
  if (!misfit.empty()) return Refuse(peer, join, misfit, now_us, out);
  Member& member = members_[join.rank];
  if (member.joined && member.peer != peer) return OnSecond(member, peer, join, now_us, out);
  // Sent before our last Form arrived.
  const bool same_process = member.join.instance == join.instance;
  if (same_process && join.session <= member.session_formed) {
    member.heard_us = now_us;
    return;
  }
  if (member.joined && state_ != State::kJoining)
    Lose(member, RankLoss::kRejoined, "left the epoch and joins anew", now_us, out);
  if (!same_process) member.session_formed = 0;
  const bool is_new = !member.joined || !same_process || member.join.session != join.session;
  member.joined = true;
  member.peer = peer;
  member.join = std::move(join);
  member.heard_us = now_us;
  if (is_new) Tell(EpochEvent::Kind::kJoined, member, NameOf(member), out);
  FormIfComplete(now_us, out);
  if (state_ == State::kJoining) out.send.push_back({{peer}, LeaderAlive{0, missing()}});
}

void EpochLeader::FormIfComplete(int64_t now_us, EpochOutput& out) {
  if (state_ != State::kJoining || joined_count() < members_.size()) return;
  uint64_t seen = epoch_;
  std::vector<RankPlace> places;
  for (Member& member : members_) {
    seen = std::max(seen, member.join.epoch_seen);
    places.push_back({member.join.node, member.join.host});
  }
  epoch_ = seen + 1;
  refusal_causes_.clear();  // who is refused from now on is news again
  next_step_ = 1;
  state_ = State::kForming;
  deadline_us_ = now_us + timing_.form_timeout_us;
  for (Member& member : members_) {
    member.session_formed = member.join.session;
    member.challenger.reset();
    member.ready = false;
    member.done = 0;
    member.busy_us = 0;
    member.progress_us = now_us;
    out.send.push_back(
        {{member.peer}, RankForm{epoch_, member.join.session, places, timing_.form_timeout_us}});
  }
  EpochEvent& event = out.events.emplace_back();
  event.kind = EpochEvent::Kind::kForming;
  event.epoch = epoch_;
}

}  // namespace muselet
