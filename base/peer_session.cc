#include "base/peer_session.h"

#include <utility>

namespace muselet {

ClientSession::ClientSession(Hello hello, const PeerTiming& timing, bool sends_heartbeats)
    : hello_(std::move(hello)), timing_(timing), sends_heartbeats_(sends_heartbeats) {}

void ClientSession::Lose(std::string reason, Step& step, bool on_purpose) {
  if (std::exchange(state_, State::kAway) == State::kAway) return;
  step.events.push_back({Event::Kind::kLost, std::move(reason), on_purpose});
}

ClientSession::Step ClientSession::OnEnvelope(const Envelope& envelope, int64_t now_us) {
  Step step;
  if (envelope.instance == replaced_instance_ && replaced_instance_ != 0) {
    // Which of two processes is the later one is only guessed: what replaced this one may have been
    // a late word of its predecessor. If nobody else answers, it is the one that lives.
    const bool alone = state_ == State::kAway && now_us - replaced_us_ > timing_.timeout_us / 2;
    if (!alone || !std::holds_alternative<Welcome>(envelope.body)) return step;
    replaced_instance_ = 0;
  }
  if (instance_ != 0 && envelope.instance != instance_) {
    replaced_instance_ = std::exchange(instance_, 0);
    replaced_us_ = now_us;
    hello_pending_ = true;
    Lose("it restarted", step);
  }
  last_heard_us_ = now_us;
  if (const auto* welcome = std::get_if<Welcome>(&envelope.body)) {
    peer_name_ = welcome->name;
    instance_ = envelope.instance;
    if (state_ == State::kAway) {
      state_ = State::kJoined;
      next_send_us_ = now_us + timing_.heartbeat_interval_us;
      step.events.push_back({Event::Kind::kJoined, {}});
    }
  } else if (std::holds_alternative<Unknown>(envelope.body)) {
    // Several Unknowns may be on their way: one Hello an interval answers them all.
    if (state_ == State::kJoined || hello_pending_) {
      Lose("it does not know us any more", step);
      hello_pending_ = false;
      step.send.emplace_back(hello_);
      next_send_us_ = now_us + timing_.heartbeat_interval_us;
    }
  } else if (const auto* goodbye = std::get_if<Goodbye>(&envelope.body)) {
    Lose("it said goodbye: " + goodbye->reason, step, true);
  }
  step.known = joined();
  return step;
}

ClientSession::Step ClientSession::OnTick(int64_t now_us) {
  Step step;
  if (WasStuck(std::exchange(last_tick_us_, now_us), now_us, timing_)) last_heard_us_ = now_us;
  const int64_t silence_us = now_us - last_heard_us_;
  if (silence_us > timing_.timeout_us) Lose("it is silent", step);
  const bool due = !next_send_us_ || now_us >= *next_send_us_;
  if (!due && !hello_pending_) return step;
  if (state_ == State::kAway || hello_pending_ || silence_us > timing_.timeout_us / 4) {
    step.send.emplace_back(hello_);
  } else if (sends_heartbeats_) {
    step.send.emplace_back(Heartbeat{});
  }
  hello_pending_ = false;
  next_send_us_ = now_us + timing_.heartbeat_interval_us;
  return step;
}

ClientSession::Step ClientSession::OnUnreachable() {
  Step step;
  hello_pending_ = true;
  Lose("the connection broke", step);
  return step;
}

PeerTable::PeerTable(std::string name, const PeerTiming& timing, size_t peers_max)
    : name_(std::move(name)), timing_(timing), peers_max_(peers_max) {}

const PeerTable::Peer* PeerTable::Find(const std::string& peer) const {
  const auto found = peers_.find(peer);
  return found == peers_.end() ? nullptr : &found->second;
}

const PeerTable::Peer* PeerTable::FindName(Role role, const std::string& name) const {
  const auto found = by_name_.find({role, name});
  return found == by_name_.end() ? nullptr : Find(found->second);
}

PeerTable::Step PeerTable::OnEnvelope(const std::string& peer, const Envelope& envelope,
                                      int64_t now_us) {
  Step step;
  if (const auto* hello = std::get_if<Hello>(&envelope.body)) {
    OnHello(peer, *hello, envelope.instance, now_us, step);
    return step;
  }
  const auto found = peers_.find(peer);
  const bool same = found != peers_.end() && found->second.instance == envelope.instance;
  if (const auto* goodbye = std::get_if<Goodbye>(&envelope.body)) {
    if (same) Lose(peer, goodbye->reason, true, step);
    return step;
  }
  if (!same) {
    const bool answerable = !std::holds_alternative<Unknown>(envelope.body) &&
                            !std::holds_alternative<Welcome>(envelope.body);
    if (answerable) step.send.push_back({peer, Unknown{}});
    return step;
  }
  found->second.last_heard_us = now_us;
  step.known = true;
  return step;
}

void PeerTable::OnHello(const std::string& peer, const Hello& hello, uint64_t instance,
                        int64_t now_us, Step& step) {
  const NameKey key{hello.role, hello.name};
  const auto by_name = by_name_.find(key);
  const auto found = peers_.find(peer);
  if (found != peers_.end() && found->second.instance == instance && by_name != by_name_.end() &&
      by_name->second == peer) {
    found->second.hello = hello;
    found->second.last_heard_us = now_us;
    step.send.push_back({peer, Welcome{name_}});
    step.events.push_back({Event::Kind::kUpdated, found->second, {}});
    step.known = true;
    return;
  }
  const auto replaced = replaced_.find(key);
  if (by_name != by_name_.end() && replaced != replaced_.end() && replaced->second == instance) {
    step.send.push_back({peer, Goodbye{"a newer process named " + hello.name + " is here"}});
    return;
  }
  if (hello.protocol_version != kProtocolVersion) {
    step.send.push_back(
        {peer, Goodbye{"protocol version " + std::to_string(hello.protocol_version) + ", " + name_ +
                       " speaks " + std::to_string(kProtocolVersion)}});
    return;
  }
  if (found != peers_.end()) Lose(peer, "a new process uses its connection", false, step);
  if (const auto old = by_name_.find(key); old != by_name_.end()) {
    const uint64_t old_instance = peers_.at(old->second).instance;
    Lose(std::string(old->second), "a new process took its place", false, step);
    replaced_[key] = old_instance;
  }
  if (peers_.size() >= peers_max_) {
    step.send.push_back({peer, Goodbye{name_ + " has no room for more peers"}});
    return;
  }
  const Peer& added = peers_[peer] = {peer, hello, instance, now_us};
  by_name_[key] = peer;
  step.send.push_back({peer, Welcome{name_}});
  step.events.push_back({Event::Kind::kJoined, added, {}});
  step.known = true;
}

void PeerTable::Lose(const std::string& peer, std::string reason, bool on_purpose, Step& step) {
  const auto found = peers_.find(peer);
  if (found == peers_.end()) return;
  const NameKey key{found->second.hello.role, found->second.hello.name};
  by_name_.erase(key);
  replaced_.erase(key);
  step.events.push_back(
      {Event::Kind::kLost, std::move(found->second), std::move(reason), on_purpose});
  peers_.erase(found);
}

PeerTable::Step PeerTable::OnUnreachable(const std::string& peer, int64_t /*now_us*/) {
  Step step;
  Lose(peer, "its connection broke", false, step);
  return step;
}

PeerTable::Step PeerTable::OnTick(int64_t now_us) {
  Step step;
  std::vector<std::string> silent;
  if (WasStuck(std::exchange(last_tick_us_, now_us), now_us, timing_))
    for (auto& [id, peer] : peers_) peer.last_heard_us = now_us;
  for (const auto& [id, peer] : peers_)
    if (now_us - peer.last_heard_us > timing_.timeout_us) silent.push_back(id);
  for (const std::string& id : silent) Lose(id, "silent for too long", false, step);
  if (next_heartbeat_us_ && now_us < *next_heartbeat_us_) return step;
  next_heartbeat_us_ = now_us + timing_.heartbeat_interval_us;
  for (const auto& [id, peer] : peers_) step.send.push_back({id, Heartbeat{}});
  return step;
}

}  // namespace muselet
