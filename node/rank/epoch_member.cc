#include "node/rank/epoch_member.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace muselet {
namespace {

constexpr int64_t kLeaderAwayUs = 5'000'000;  // then the log says that it does not answer
constexpr int64_t kRetryPauseMinUs = 100'000;
constexpr int64_t kRetryPauseMaxUs = 5'000'000;

std::string Seconds(int64_t us) {
  return std::to_string((us + 500'000) / 1'000'000) + " s";
}

MemberEvent NewEvent(MemberEvent::Kind kind, uint64_t epoch, std::string text = {}) {
  MemberEvent event;
  event.kind = kind;
  event.epoch = epoch;
  event.text = std::move(text);
  return event;
}

}  // namespace

EpochMember::EpochMember(RankJoin self, uint32_t rank_count, std::string leader,
                         const EpochTiming& timing, int64_t now_us)
    : self_(std::move(self)),
      rank_count_(rank_count),
      leader_(std::move(leader)),
      timing_(timing),
      heard_us_(now_us),
      next_send_us_(now_us),
      last_tick_us_(now_us) {
  BeginJoining(now_us);
  self_.session = 1;
  self_.epoch_seen = 0;
}

MemberOutput EpochMember::OnMessage(RankMessage message, int64_t now_us) {
  MemberOutput out;
  if (state_ == State::kExited) return out;
  heard_us_ = now_us;
  if (auto* form = std::get_if<RankForm>(&message)) {
    On(std::move(*form), now_us, out);
  } else if (auto* value = std::get_if<RankValue>(&message)) {
    On(std::move(*value), out);
  } else if (auto* step = std::get_if<RankStep>(&message)) {
    On(std::move(*step), now_us, out);
  } else if (const auto* start = std::get_if<RankStart>(&message)) {
    On(*start, now_us, out);
  } else if (const auto* abort = std::get_if<RankAbort>(&message)) {
    if (alive(abort->epoch)) {
      End(abort->reason, /*tell=*/false, now_us, out);
      out.events.back().on_purpose = abort->on_purpose;
    }
  } else if (const auto* refused = std::get_if<RankRefused>(&message)) {
    if (state_ == State::kJoining && refused->session == self_.session)
      Exit(refused->reason, /*refused=*/true, out);
  } else if (const auto* leader_alive = std::get_if<LeaderAlive>(&message)) {
    On(*leader_alive, now_us, out);
  } else if (InEpoch()) {
    End("the leader said " + std::string(RankMessageName(message)) + ", which is a rank's to say",
        /*tell=*/true, now_us, out);
  }
  return out;
}

MemberOutput EpochMember::OnMalformed(const std::string& reason, int64_t now_us) {
  MemberOutput out;
  if (InEpoch()) {
    End("the leader said what is no message: " + reason, /*tell=*/true, now_us, out);
  } else {
    waiting_for_ = "it answers with what is no message: " + reason;
  }
  return out;
}

MemberOutput EpochMember::OnOtherVersion(const std::string& reason, int64_t now_us) {
  if (state_ != State::kJoining) return OnMalformed(reason, now_us);
  MemberOutput out;
  Exit("the leader at " + leader_ + " is of another release: " + reason, /*refused=*/true, out);
  return out;
}

MemberOutput EpochMember::OnConnection(bool connected, int64_t now_us) {
  MemberOutput out;
  if (connected) {
    if (state_ == State::kJoining && now_us >= retry_us_) Join(now_us, out);
  } else if (InEpoch()) {
    End("the connection to the leader at " + leader_ + " broke", /*tell=*/false, now_us, out);
  } else if (state_ == State::kJoining) {
    // What the leader made of the last Join may never arrive.
    ++self_.session;
    answered_ = false;
    waiting_for_.clear();
  }
  return out;
}

// ---- Joining

void EpochMember::Join(int64_t now_us, MemberOutput& out) {
  self_.epoch_seen = epoch_;
  next_send_us_ = now_us + timing_.heartbeat_interval_us;
  out.send.emplace_back(self_);
}

void EpochMember::TickJoining(int64_t now_us, MemberOutput& out) {
  if (now_us >= next_send_us_ && now_us >= retry_us_) Join(now_us, out);
  const int64_t alone_us = now_us - std::max(heard_us_, joining_since_us_);
  const bool away = !told_silence_ && alone_us >= kLeaderAwayUs;
  if (now_us < deadline_us_ && !away) return;
  TellWaiting(away || !answered_ || alone_us >= timing_.silence_us, now_us, out);
}

void EpochMember::TellWaiting(bool silent, int64_t now_us, MemberOutput& out) {
  if (now_us >= deadline_us_) deadline_us_ = now_us + timing_.join_timeout_us;
  told_silence_ = silent;
  std::string text = silent ? "the leader at " + leader_ + " does not answer"
                            : "the leader at " + leader_ + " waits for " + waiting_for_;
  if (silent && !waiting_for_.empty()) text += ": " + waiting_for_;
  out.events.push_back(NewEvent(MemberEvent::Kind::kWaiting, epoch_,
                                text + "; tried for " + Seconds(now_us - joining_since_us_)));
}

void EpochMember::BeginJoining(int64_t now_us) {
  joining_since_us_ = now_us;
  deadline_us_ = now_us + timing_.join_timeout_us;
  told_silence_ = false;
}

void EpochMember::On(const LeaderAlive& alive, int64_t now_us, MemberOutput& out) {
  if (state_ == State::kJoining && alive.epoch == 0) {
    answered_ = true;
    told_silence_ = false;
    if (!alive.waiting_for.empty()) waiting_for_ = alive.waiting_for;
  } else if (InEpoch() && alive.epoch > epoch_) {
    End("the leader has gone on to epoch " + std::to_string(alive.epoch), /*tell=*/false, now_us,
        out);
  }
}

void EpochMember::On(RankForm form, int64_t now_us, MemberOutput& out) {
  if (state_ != State::kJoining || form.session != self_.session || form.epoch <= epoch_) return;
  state_ = State::kForming;
  epoch_ = form.epoch;
  steps_taken_ = steps_done_ = 0;
  began_us_ = now_us;
  next_send_us_ = now_us;
  if (form.places.size() != rank_count_) {
    return End("the leader's replica has " + std::to_string(form.places.size()) +
                   " ranks, this one's " + std::to_string(rank_count_),
               /*tell=*/true, now_us, out);
  }
  MemberEvent event = NewEvent(MemberEvent::Kind::kMakeGroups, epoch_);
  event.form = std::move(form);
  out.events.push_back(std::move(event));
}

// ---- Within an epoch

Result<MemberOutput> EpochMember::Put(uint64_t epoch, const std::string& key, std::string value) {
  if (key.size() > kRankKeyBytesMax || value.size() > kRankValueBytesMax) {
    return InvalidArgument("rendezvous value " + key.substr(0, kRankKeyBytesMax) + ": " +
                           std::to_string(value.size()) + " bytes, the limit is " +
                           std::to_string(kRankValueBytesMax));
  }
  if (!alive(epoch)) return Unavailable("epoch " + std::to_string(epoch) + " is over");
  MemberOutput out;
  out.send.emplace_back(RankPut{epoch, key, std::move(value)});
  return out;
}

void EpochMember::On(RankValue value, MemberOutput& out) {
  if (!alive(value.epoch)) return;
  MemberEvent event = NewEvent(MemberEvent::Kind::kValue, epoch_);
  event.key = std::move(value.key);
  event.value = std::move(value.value);
  out.events.push_back(std::move(event));
}

MemberOutput EpochMember::GroupsMade(uint64_t epoch) {
  MemberOutput out;
  if (!alive(epoch) || state_ != State::kForming) return out;
  state_ = State::kReady;
  out.send.emplace_back(RankReady{epoch});
  return out;
}

void EpochMember::On(const RankStart& start, int64_t now_us, MemberOutput& out) {
  if (!alive(start.epoch)) return;
  if (state_ != State::kReady) return End("the leader started it twice", true, now_us, out);
  state_ = State::kRunning;
  out.events.push_back(NewEvent(MemberEvent::Kind::kStart, epoch_));
}

void EpochMember::On(RankStep step, int64_t now_us, MemberOutput& out) {
  if (!alive(step.epoch)) return;
  if (state_ != State::kRunning || step.step != steps_taken_ + 1) {
    return End(
        "step " + std::to_string(step.step) + " came after step " + std::to_string(steps_taken_),
        /*tell=*/true, now_us, out);
  }
  if (steps_taken_ - steps_done_ >= kRankStepsMax) {
    return End("more than " + std::to_string(kRankStepsMax) + " steps are outstanding",
               /*tell=*/true, now_us, out);
  }
  ++steps_taken_;
  MemberEvent event = NewEvent(MemberEvent::Kind::kStep, epoch_);
  event.step = std::move(step);
  out.events.push_back(std::move(event));
}

MemberOutput EpochMember::Done(uint64_t epoch, RankDone done, int64_t now_us) {
  MemberOutput out;
  if (!alive(epoch)) return out;
  CHECK(steps_done_ < steps_taken_, "done with a step that was not taken");
  done.epoch = epoch;
  done.step = ++steps_done_;
  next_send_us_ = now_us + timing_.heartbeat_interval_us;  // a sign of life as good as Alive
  out.send.emplace_back(std::move(done));
  return out;
}

MemberOutput EpochMember::Fail(uint64_t epoch, const std::string& reason, int64_t now_us) {
  MemberOutput out;
  if (alive(epoch)) End(reason, /*tell=*/true, now_us, out);
  return out;
}

// ---- Ending

void EpochMember::End(const std::string& reason, bool tell, int64_t now_us, MemberOutput& out) {
  if (tell) out.send.emplace_back(RankFault{epoch_, reason});
  // An epoch that came to nothing is followed by a pause, so that what cannot work is not tried
  // again and again at full speed.
  const bool good = steps_done_ > 0 || now_us - began_us_ > kRetryPauseMaxUs;
  retry_pause_us_ = good ? 0 : std::clamp(2 * retry_pause_us_, kRetryPauseMinUs, kRetryPauseMaxUs);
  state_ = State::kEnding;
  deadline_us_ = now_us + timing_.teardown_timeout_us;
  out.events.push_back(NewEvent(MemberEvent::Kind::kEnd, epoch_, reason));
}

MemberOutput EpochMember::TornDown(uint64_t epoch, int64_t now_us) {
  MemberOutput out;
  if (state_ != State::kEnding || epoch != epoch_) return out;
  state_ = State::kJoining;
  ++self_.session;
  answered_ = false;
  waiting_for_.clear();
  BeginJoining(now_us);
  next_send_us_ = now_us;
  retry_us_ = now_us + retry_pause_us_;
  if (retry_pause_us_ == 0) Join(now_us, out);
  return out;
}

void EpochMember::Exit(const std::string& reason, bool refused, MemberOutput& out) {
  state_ = State::kExited;
  MemberEvent event = NewEvent(MemberEvent::Kind::kExit, epoch_, reason);
  event.refused = refused;
  out.events.push_back(std::move(event));
}

// ---- Time

MemberOutput EpochMember::OnTick(const RankProgressReport& progress, int64_t now_us) {
  MemberOutput out;
  // Stuck ourselves, or stopped: what the leader said meanwhile is still unread.
  if (now_us - last_tick_us_ > timing_.silence_us / 2) heard_us_ = now_us;
  last_tick_us_ = now_us;
  if (state_ == State::kJoining) {
    TickJoining(now_us, out);
  } else if (InEpoch()) {
    if (now_us - heard_us_ >= timing_.silence_us) {
      End("the leader at " + leader_ + " is silent for " + Seconds(now_us - heard_us_),
          /*tell=*/false, now_us, out);
    } else if (now_us >= next_send_us_) {
      next_send_us_ = now_us + timing_.heartbeat_interval_us;
      out.send.emplace_back(RankAlive{epoch_, progress.steps, progress.busy_us});
    }
  } else if (state_ == State::kEnding && now_us >= deadline_us_) {
    Exit("epoch " + std::to_string(epoch_) + " could not be ended within " +
             Seconds(timing_.teardown_timeout_us),
         /*refused=*/false, out);
  }
  return out;
}

}  // namespace muselet
