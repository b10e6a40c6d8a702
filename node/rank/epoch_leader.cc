#include "node/rank/epoch_leader.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/check.h"

namespace muselet {
namespace {

constexpr size_t kValuesMax = 8192;          // of one epoch
constexpr size_t kValueBytesMax = 16 << 20;  // all together, keys included

std::string Seconds(int64_t us) {
  const int64_t tenths = (us + 50'000) / 100'000;
  return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + " s";
}

}  // namespace

std::string_view RankLossName(RankLoss loss) {
  static constexpr std::array<std::string_view, kRankLossKinds> kNames = {
      "disconnected", "silent", "no_progress", "fault", "rejoined", "nonsense", "not_ready"};
  return kNames[static_cast<size_t>(loss)];
}

EpochLeader::EpochLeader(EpochPlan plan, const EpochTiming& timing, int64_t now_us)
    : plan_(std::move(plan)),
      timing_(timing),
      members_(plan_.nodes.size()),
      since_us_(now_us),
      deadline_us_(now_us + timing.join_timeout_us),
      next_heartbeat_us_(now_us),
      last_tick_us_(now_us),
      refusals_since_us_(now_us) {
  CHECK(!members_.empty() && members_.size() <= kEpochRanksMax, "a replica of ", members_.size(),
        " ranks");
  CHECK(plan_.sampling_rank < members_.size(), "no rank ", plan_.sampling_rank);
}

EpochOutput EpochLeader::OnMessage(const std::string& peer, RankMessage message, int64_t now_us) {
  EpochOutput out;
  if (auto* join = std::get_if<RankJoin>(&message)) {
    OnJoin(peer, std::move(*join), now_us, out);
    return out;
  }
  Member* member = Find(peer);
  if (member == nullptr) {
    // It thinks that it takes part: our Abort was lost, or we are a new process.
    const auto* alive = std::get_if<RankAlive>(&message);
    if (alive != nullptr && alive->epoch != 0)
      out.send.push_back({{peer}, RankAbort{alive->epoch, "the leader does not know this rank"}});
    return out;
  }
  member->heard_us = now_us;
  if (auto* put = std::get_if<RankPut>(&message)) {
    On(*member, std::move(*put), now_us, out);
  } else if (auto* done = std::get_if<RankDone>(&message)) {
    On(*member, std::move(*done), now_us, out);
  } else if (const auto* ready = std::get_if<RankReady>(&message)) {
    On(*member, *ready, now_us, out);
  } else if (const auto* fault = std::get_if<RankFault>(&message)) {
    On(*member, *fault, now_us, out);
  } else if (const auto* alive = std::get_if<RankAlive>(&message)) {
    On(*member, *alive, now_us, out);
  } else {
    Lose(*member, RankLoss::kNonsense,
         "said " + std::string(RankMessageName(message)) + ", which is the leader's to say", now_us,
         out);
  }
  return out;
}

EpochOutput EpochLeader::OnMalformed(const std::string& peer, const std::string& reason,
                                     int64_t now_us) {
  EpochOutput out;
  if (Member* member = Find(peer))
    Lose(*member, RankLoss::kNonsense, "said what is no message: " + reason, now_us, out);
  return out;
}

EpochOutput EpochLeader::OnDisconnect() const {
  EpochOutput out;
  if (std::vector<std::string> peers = Peers(); !peers.empty())
    out.send.push_back({std::move(peers), LeaderAlive{state_ == State::kJoining ? 0 : epoch_, ""}});
  return out;
}

EpochOutput EpochLeader::OnUnreachable(const std::string& peer, const std::string& reason,
                                       int64_t now_us) {
  EpochOutput out;
  if (Member* member = Find(peer))
    Lose(*member, RankLoss::kDisconnected, "cannot be reached: " + reason, now_us, out);
  return out;
}

// ---- Within an epoch

void EpochLeader::On(Member& member, RankPut put, int64_t now_us, EpochOutput& out) {
  if (put.epoch > epoch_)
    return Lose(member, RankLoss::kNonsense, "names an epoch that was never given", now_us, out);
  if (put.epoch != epoch_ || state_ == State::kJoining) return;
  const auto found = values_.find(put.key);
  if (found != values_.end()) {
    if (found->second != put.value)
      Lose(member, RankLoss::kNonsense, "writes a second value for " + put.key, now_us, out);
    return;
  }
  value_bytes_ += put.key.size() + put.value.size();
  if (values_.size() >= kValuesMax || value_bytes_ > kValueBytesMax)
    return Lose(member, RankLoss::kNonsense, "writes more values than groups need", now_us, out);
  values_.emplace(put.key, put.value);
  out.send.push_back({Peers(), RankValue{epoch_, std::move(put.key), std::move(put.value)}});
}

void EpochLeader::On(Member& member, const RankReady& ready, int64_t now_us, EpochOutput& out) {
  if (ready.epoch > epoch_)
    return Lose(member, RankLoss::kNonsense, "names an epoch that was never given", now_us, out);
  if (ready.epoch != epoch_ || state_ != State::kForming) return;
  member.ready = true;
  const auto is_ready = [](const Member& m) { return m.ready; };
  if (!std::all_of(members_.begin(), members_.end(), is_ready)) return;
  state_ = State::kRunning;
  for (Member& m : members_) m.progress_us = now_us;
  out.send.push_back({Peers(), RankStart{epoch_}});
  EpochEvent& event = out.events.emplace_back();
  event.kind = EpochEvent::Kind::kFormed;
  event.epoch = epoch_;
  event.forming_us = now_us - since_us_;
}

std::string EpochLeader::FaultOf(const Member& member, const RankDone& done) const {
  if (state_ != State::kRunning || done.step >= next_step_)
    return "is done with step " + std::to_string(done.step) + ", which it was not given";
  if (done.step != member.done + 1)
    return "is done with step " + std::to_string(done.step) + " after step " +
           std::to_string(member.done);
  if (RankOf(member) != plan_.sampling_rank) {
    if (!done.fault.ok()) return "could not compute step " + std::to_string(done.step);
    return done.result.slices.empty() ? "" : "has a result, which is another rank's to have";
  }
  if (!done.fault.ok()) return "";
  const Step& step = steps_[done.step - steps_.front().number];
  if (done.result.slices.size() != step.samples.size())
    return "has a result of " + std::to_string(done.result.slices.size()) + " slices for step " +
           std::to_string(done.step) + ", which has " + std::to_string(step.samples.size());
  for (size_t i = 0; i < step.samples.size(); ++i) {
    const SliceResult& slice = done.result.slices[i];
    if ((slice.sampled && !slice.fault.ok()) || (slice.sampled && !step.samples[i]) ||
        (step.samples[i] && !slice.sampled && slice.fault.ok()) ||
        slice.prompt_logprobs.size() > step.logits_rows[i]) {
      return "has a result for step " + std::to_string(done.step) +
             " that its plan did not ask for";
    }
  }
  return "";
}

void EpochLeader::On(Member& member, RankDone done, int64_t now_us, EpochOutput& out) {
  if (done.epoch < epoch_ || (done.epoch == epoch_ && state_ == State::kJoining)) return;
  if (done.epoch > epoch_)
    return Lose(member, RankLoss::kNonsense, "names an epoch that was never given", now_us, out);
  if (const std::string fault = FaultOf(member, done); !fault.empty()) {
    const RankLoss loss = done.fault.ok() ? RankLoss::kNonsense : RankLoss::kFault;
    const std::string why = done.fault.ok() ? "" : ": " + done.fault.message();
    return Lose(member, loss, fault + why, now_us, out);
  }
  member.done = done.step;
  member.progress_us = now_us;
  member.busy_us = 0;
  Step& step = steps_[done.step - steps_.front().number];
  step.step_us = std::max(step.step_us, done.step_us);
  if (RankOf(member) == plan_.sampling_rank) step.result = std::move(done);
  while (!steps_.empty() && steps_.front().number <= Slowest()->done) {
    EpochEvent& event = out.events.emplace_back();
    event.kind = EpochEvent::Kind::kDone;
    event.epoch = epoch_;
    event.done = std::move(steps_.front().result);
    event.done.step_us = steps_.front().step_us;
    steps_.pop_front();
  }
}

void EpochLeader::On(Member& member, const RankFault& fault, int64_t now_us, EpochOutput& out) {
  if (fault.epoch == epoch_ && state_ != State::kJoining)
    Lose(member, RankLoss::kFault, "reports: " + fault.reason, now_us, out);
}

void EpochLeader::On(Member& member, const RankAlive& alive, int64_t now_us, EpochOutput& out) {
  if (alive.epoch > epoch_)
    return Lose(member, RankLoss::kNonsense, "names an epoch that was never given", now_us, out);
  if (alive.epoch == epoch_ && state_ == State::kRunning) member.busy_us = alive.busy_us;
}

EpochOutput EpochLeader::Submit(const StepPlan& plan, const std::vector<SlotStart>& starts,
                                int64_t now_us) {
  CHECK(formed(), "a step for an epoch that is not formed");
  EpochOutput out;
  if (steps_.size() >= kRankStepsMax) {
    Lose(*Slowest(), RankLoss::kNoProgress,
         "is " + std::to_string(kRankStepsMax) + " steps behind the sampling rank", now_us, out);
    return out;
  }
  Step step;
  step.number = next_step_++;
  step.timeout_us = StepTimeoutUs(timing_, plan.predicted_us * plan_.pipeline);
  for (const SequenceSlice& slice : plan.slices) {
    step.logits_rows.push_back(slice.logits_rows);
    step.samples.push_back(slice.samples);
  }
  for (Member& member : members_) {
    if (member.done + 1 == step.number) member.progress_us = now_us;  // it had nothing to do
  }
  out.send.push_back({Peers(), RankStep{epoch_, step.number, step.timeout_us, plan, starts}});
  steps_.push_back(std::move(step));
  return out;
}

// ---- Time

EpochOutput EpochLeader::OnTick(int64_t now_us) {
  EpochOutput out;
  const bool was_stuck = now_us - last_tick_us_ > timing_.silence_us / 2;
  last_tick_us_ = now_us;
  if (was_stuck) {
    for (Member& member : members_) member.heard_us = member.progress_us = now_us;
    if (state_ == State::kForming)
      deadline_us_ = std::max(deadline_us_, now_us + timing_.silence_us);
  }
  for (Member& member : members_) {
    if (!member.joined || now_us - member.heard_us < timing_.silence_us) continue;
    Lose(member, RankLoss::kSilent, "is silent for " + Seconds(now_us - member.heard_us), now_us,
         out);
  }
  if (state_ == State::kRunning) CheckProgress(now_us, out);
  if (state_ == State::kForming && now_us >= deadline_us_) {
    const auto late = std::find_if(members_.begin(), members_.end(),
                                   [](const Member& member) { return !member.ready; });
    Lose(
        *late, RankLoss::kNotReady,
        "has no groups after " + Seconds(timing_.form_timeout_us) + "; not ready are: " + missing(),
        now_us, out);
  }
  if (state_ == State::kJoining && now_us >= deadline_us_) {
    deadline_us_ = now_us + timing_.join_timeout_us;
    EpochEvent& event = out.events.emplace_back();
    event.kind = EpochEvent::Kind::kMissing;
    event.text = "replica " + plan_.replica + " cannot form: after " + Seconds(now_us - since_us_) +
                 " still missing are " + missing();
  }
  if (now_us >= next_heartbeat_us_) {
    next_heartbeat_us_ = now_us + timing_.heartbeat_interval_us;
    const bool joining = state_ == State::kJoining;
    if (std::vector<std::string> peers = Peers(); !peers.empty()) {
      out.send.push_back(
          {std::move(peers), LeaderAlive{joining ? 0 : epoch_, joining ? missing() : ""}});
    }
  }
  return out;
}

// Of those that are late the one that is the furthest behind is to blame: others wait for it.
void EpochLeader::CheckProgress(int64_t now_us, EpochOutput& out) {
  Member* slowest = nullptr;
  for (Member& member : members_) {
    if (member.done + 1 >= next_step_) continue;
    const Step& step = steps_[member.done + 1 - steps_.front().number];
    if (now_us - member.progress_us < step.timeout_us) continue;
    if (slowest == nullptr || member.done < slowest->done) slowest = &member;
  }
  if (slowest == nullptr) return;
  const std::string computes =
      slowest->busy_us > 0 ? ", it computes since " + Seconds(slowest->busy_us) : "";
  Lose(*slowest, RankLoss::kNoProgress,
       "is not done with step " + std::to_string(slowest->done + 1) + " after " +
           Seconds(now_us - slowest->progress_us) + computes,
       now_us, out);
}

// ---- Loss

void EpochLeader::Forget(Member& member) {
  member.joined = member.ready = false;
  member.peer.clear();
  member.challenger.reset();
}

void EpochLeader::Lose(Member& member, RankLoss loss, const std::string& text, int64_t now_us,
                       EpochOutput& out) {
  EpochEvent event;
  event.kind = EpochEvent::Kind::kLost;
  event.epoch = epoch_;
  event.rank = RankOf(member);
  event.loss = loss;
  event.was_formed = state_ == State::kRunning;
  event.text = NameOf(member) + " " + text;
  if (state_ == State::kJoining) {
    event.kind = EpochEvent::Kind::kLeft;
    Forget(member);
    return out.events.push_back(std::move(event));
  }
  out.send.push_back({Peers(), RankAbort{epoch_, event.text}});
  out.events.push_back(std::move(event));
  for (Member& m : members_) Forget(m);
  state_ = State::kJoining;
  since_us_ = now_us;
  deadline_us_ = now_us + timing_.join_timeout_us;
  steps_.clear();
  values_.clear();
  value_bytes_ = 0;
}

EpochOutput EpochLeader::Leave(const std::string& reason) {
  EpochOutput out;
  if (state_ != State::kJoining)
    out.send.push_back({Peers(), RankAbort{epoch_, reason, /*on_purpose=*/true}});
  for (Member& member : members_) Forget(member);
  state_ = State::kJoining;
  steps_.clear();
  values_.clear();
  value_bytes_ = 0;
  return out;
}

// ---- Names

uint32_t EpochLeader::joined_count() const {
  return static_cast<uint32_t>(std::count_if(members_.begin(), members_.end(),
                                             [](const Member& member) { return member.joined; }));
}

EpochLeader::Member* EpochLeader::Find(const std::string& peer) {
  for (Member& member : members_) {
    if (member.joined && member.peer == peer) return &member;
  }
  return nullptr;
}

EpochLeader::Member* EpochLeader::Slowest() {
  return &*std::min_element(members_.begin(), members_.end(),
                            [](const Member& a, const Member& b) { return a.done < b.done; });
}

void EpochLeader::Tell(EpochEvent::Kind kind, const Member& member, std::string text,
                       EpochOutput& out) const {
  EpochEvent& event = out.events.emplace_back();
  event.kind = kind;
  event.epoch = epoch_;
  event.rank = RankOf(member);
  event.text = std::move(text);
}

uint32_t EpochLeader::RankOf(const Member& member) const {
  return static_cast<uint32_t>(&member - members_.data());
}

std::string EpochLeader::NameOf(const Member& member) const {
  return "rank " + std::to_string(RankOf(member)) + " (node " + member.join.node + ", host " +
         member.join.host + ", pid " + std::to_string(member.join.pid) + ")";
}

std::string EpochLeader::missing() const {
  std::string missing;
  for (const Member& member : members_) {
    if (state_ == State::kJoining ? member.joined : member.ready) continue;
    const std::string& node = plan_.nodes[RankOf(member)];
    missing += (missing.empty() ? "rank " : ", rank ") + std::to_string(RankOf(member)) +
               (node.empty() ? "" : " (node " + node + ")");
  }
  return missing;
}

std::vector<std::string> EpochLeader::Peers() const {
  std::vector<std::string> peers;
  for (const Member& member : members_) {
    if (member.joined) peers.push_back(member.peer);
  }
  return peers;
}

}  // namespace muselet
