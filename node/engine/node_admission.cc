#include "node/engine/node_admission.h"

#include <algorithm>
#include <utility>

#include "base/peer_session.h"

namespace muselet {
namespace {

TokenUpdate EndingUpdate(const SequenceId& sequence, uint32_t attempt, const Status& reason) {
  TokenUpdate update;
  update.sequence = sequence;
  update.attempt = attempt;
  update.finish = FinishReason::kError;
  update.error_code = reason.code();
  update.error = reason.message();
  return update;
}

Tokens Refusal(const Submit& submit, const Status& reason) {
  return Tokens{{EndingUpdate(submit.sequence, submit.attempt, reason)}};
}

}  // namespace

NodeAdmission::NodeAdmission(NodeAdmissionOptions options) : options_(std::move(options)) {}

NodeAdmissionOutput NodeAdmission::OnMessage(const std::string& connection, Envelope envelope,
                                             int64_t now_us) {
  NodeAdmissionOutput output;
  now_us_ = now_us;
  const std::string& name = envelope.sender;
  auto known = gateways_.find(name);
  if (std::holds_alternative<Hello>(envelope.body)) {
    if (known != gateways_.end() && known->second.instance != envelope.instance) {
      Lose(name, output);
    }
    gateways_[name] = {envelope.instance, connection, now_us};
    output.messages.emplace_back(connection, Welcome{options_.node});
    return output;
  }
  if (known == gateways_.end() || known->second.instance != envelope.instance) {
    output.messages.emplace_back(connection, Unknown{});
    if (const auto* submit = std::get_if<Submit>(&envelope.body)) {
      output.messages.emplace_back(
          connection, Refusal(*submit, Unavailable("replica " + options_.replica +
                                                   " does not know this gateway; say Hello")));
    }
    return output;
  }
  known->second.connection = connection;
  known->second.heard_us = now_us;
  if (auto* submit = std::get_if<Submit>(&envelope.body)) {
    OnSubmit(name, std::move(*submit), output);
  } else if (const auto* cancel = std::get_if<Cancel>(&envelope.body)) {
    OnCancel(name, *cancel, output);
  } else if (std::holds_alternative<Goodbye>(envelope.body)) {
    CancelAllOf(name, output);
    gateways_.erase(name);
  }
  return output;
}

Status NodeAdmission::CheckSubmit(const Submit& submit, bool held) const {
  if (submit.replica != options_.replica) {
    return Unavailable("replica " + submit.replica + " is not here, this is " + options_.replica);
  }
  if (submit.epoch != options_.epoch) {
    return Unavailable("replica " + options_.replica + " was formed anew: epoch " +
                       std::to_string(submit.epoch) + " is over");
  }
  if (held) return OkStatus();
  if (draining_) return Unavailable("replica " + options_.replica + " is draining");
  if (owners_.size() >= options_.sequences_max) {
    return ResourceExhausted("replica " + options_.replica + " holds " +
                             std::to_string(owners_.size()) + " sequences, its limit");
  }
  return OkStatus();
}

void NodeAdmission::OnSubmit(const std::string& gateway, Submit submit,
                             NodeAdmissionOutput& output) {
  const Gateway& sender = gateways_.at(gateway);
  const auto owner = owners_.find(submit.sequence);
  const bool held = owner != owners_.end();
  const bool mine =
      held && owner->second.gateway == gateway && owner->second.instance == sender.instance;
  if (mine && submit.attempt < owner->second.attempt + (owner->second.orphan ? 0 : 1)) return;
  const auto ended = ended_.find(submit.sequence);
  const bool known_end = ended != ended_.end() && ended->second.gateway == gateway &&
                         ended->second.instance == sender.instance;
  Status status = CheckSubmit(submit, held);
  if (held && !mine && !owner->second.orphan) {
    status = Unavailable("replica " + options_.replica + " computes it for gateway " +
                         owner->second.gateway);
  } else if (known_end && submit.attempt <= ended->second.attempt) {
    ++dropped_count_;
    status = Unavailable("this attempt has ended at replica " + options_.replica);
  }
  if (!status.ok()) {
    output.messages.emplace_back(sender.connection, Refusal(submit, status));
    return;
  }
  uint32_t run = submit.attempt;
  if (ended != ended_.end()) run = std::max(run, ended->second.run + 1);
  if (held) run = std::max(run, owner->second.run + 1);
  if (held && owner->second.orphan) --orphan_count_;
  owners_[submit.sequence] = {gateway, sender.instance, submit.attempt, run, false, false, 0};
  submit.attempt = run;
  output.commands.emplace_back(std::move(submit));
}

void NodeAdmission::OnCancel(const std::string& gateway, const Cancel& cancel,
                             NodeAdmissionOutput& output) {
  const uint64_t instance = gateways_.at(gateway).instance;
  const auto owner = owners_.find(cancel.sequence);
  if (owner != owners_.end() && owner->second.gateway == gateway &&
      owner->second.attempt <= cancel.attempt) {
    output.commands.emplace_back(Cancel{cancel.sequence, owner->second.run});
    Drop(owner);
  }
  // Also if it is not here: the Submit may be late.
  Remember(cancel.sequence, {gateway, instance, cancel.attempt, 0});
}

void NodeAdmission::Remember(const SequenceId& sequence, const Ended& end) {
  const auto [entry, inserted] = ended_.emplace(sequence, end);
  Ended& known = entry->second;
  const bool same = known.gateway == end.gateway && known.instance == end.instance;
  known.attempt = same ? std::max(known.attempt, end.attempt) : end.attempt;
  known.gateway = end.gateway;
  known.instance = end.instance;
  known.run = std::max(known.run, end.run);
  if (!inserted) return;
  ended_order_.push_back(sequence);
  if (ended_order_.size() <= kEndedRemembered) return;
  ended_.erase(ended_order_.front());
  ended_order_.pop_front();
}

// It ended here, or is about to.
NodeAdmission::Owners::iterator NodeAdmission::Drop(Owners::iterator owner) {
  const Owner& it = owner->second;
  Remember(owner->first, {it.gateway, it.instance, it.attempt, it.run});
  if (it.orphan) --orphan_count_;
  return owners_.erase(owner);
}

void NodeAdmission::MakeOrphan(Owner& owner) {
  if (owner.orphan) return;
  owner.orphan = true;
  owner.orphan_since_us = now_us_;
  ++orphan_count_;
}

void NodeAdmission::CancelAllOf(const std::string& gateway, NodeAdmissionOutput& output) {
  for (auto owner = owners_.begin(); owner != owners_.end();) {
    if (owner->second.gateway != gateway) {
      ++owner;
      continue;
    }
    output.commands.emplace_back(Cancel{owner->first, owner->second.run});
    owner = Drop(owner);
  }
}

void NodeAdmission::Lose(const std::string& gateway, NodeAdmissionOutput& output) {
  gateways_.erase(gateway);
  if (options_.orphan_timeout_us <= 0) return CancelAllOf(gateway, output);
  for (auto& [sequence, owner] : owners_) {
    if (owner.gateway != gateway) continue;
    MakeOrphan(owner);
    owner.gateway_unaware = false;
  }
}

NodeAdmissionOutput NodeAdmission::OnUpdates(std::vector<TokenUpdate> updates, int64_t now_us) {
  now_us_ = now_us;
  std::map<std::string, Tokens> by_connection;
  for (TokenUpdate& update : updates) {
    const auto owner = owners_.find(update.sequence);
    if (owner == owners_.end() || owner->second.run != update.attempt) {
      ++dropped_count_;
      continue;
    }
    const bool orphan = owner->second.orphan;
    const std::string gateway = orphan ? "" : owner->second.gateway;
    update.attempt = owner->second.attempt;
    if (update.finish != FinishReason::kNone) {
      if (owner->second.gateway_unaware) untold_.push_back(update.sequence);
      Drop(owner);
    }
    // Who adopts an orphan is told everything.
    if (!orphan)
      by_connection[gateways_.at(gateway).connection].updates.push_back(std::move(update));
  }
  NodeAdmissionOutput output;
  for (auto& [connection, tokens] : by_connection) {
    output.messages.emplace_back(connection, std::move(tokens));
  }
  return output;
}

NodeAdmissionOutput NodeAdmission::OnSendFailed(const Message& message) {
  NodeAdmissionOutput output;
  const auto* tokens = std::get_if<Tokens>(&message);
  if (tokens == nullptr) return output;
  for (const TokenUpdate& update : tokens->updates) {
    const auto owner = owners_.find(update.sequence);
    if (owner == owners_.end()) untold_.push_back(update.sequence);
    if (owner == owners_.end() || owner->second.attempt != update.attempt) continue;
    MakeOrphan(owner->second);
    owner->second.gateway_unaware = true;
  }
  return output;
}

NodeAdmissionOutput NodeAdmission::OnDisconnect() const {
  NodeAdmissionOutput output;
  for (const auto& [name, gateway] : gateways_) {
    output.messages.emplace_back(gateway.connection, Welcome{options_.node});
  }
  return output;
}

NodeAdmissionOutput NodeAdmission::OnUnreachable(const std::string& connection, int64_t now_us) {
  NodeAdmissionOutput output;
  now_us_ = now_us;
  const auto lost = std::find_if(gateways_.begin(), gateways_.end(), [&](const auto& entry) {
    return entry.second.connection == connection;
  });
  if (lost != gateways_.end()) Lose(std::string(lost->first), output);
  return output;
}

void NodeAdmission::ExpireOrphans(NodeAdmissionOutput& output) {
  if (orphan_count_ == 0) return;
  for (auto owner = owners_.begin(); owner != owners_.end();) {
    const Owner& it = owner->second;
    if (!it.orphan || now_us_ - it.orphan_since_us <= options_.orphan_timeout_us) {
      ++owner;
      continue;
    }
    output.commands.emplace_back(Cancel{owner->first, it.run});
    owner = Drop(owner);
  }
}

void NodeAdmission::TellUnaware(NodeAdmissionOutput& output) {
  std::map<std::string, Tokens> by_connection;
  const auto tell = [&](const auto& owner, const SequenceId& sequence) {
    const auto gateway = gateways_.find(owner.gateway);
    if (gateway == gateways_.end() || gateway->second.instance != owner.instance) return;
    by_connection[gateway->second.connection].updates.push_back(
        EndingUpdate(sequence, owner.attempt,
                     Unavailable("replica " + options_.replica + " could not send its tokens")));
  };
  if (orphan_count_ > 0) {
    for (auto& [sequence, owner] : owners_) {
      if (std::exchange(owner.gateway_unaware, false)) tell(owner, sequence);
    }
  }
  for (const SequenceId& sequence : std::exchange(untold_, {})) {
    const auto ended = ended_.find(sequence);
    if (ended != ended_.end()) tell(ended->second, sequence);
  }
  for (auto& [connection, tokens] : by_connection) {
    output.messages.emplace_back(connection, std::move(tokens));
  }
}

NodeAdmissionOutput NodeAdmission::OnTick(int64_t now_us) {
  NodeAdmissionOutput output;
  now_us_ = now_us;
  if (WasStuck(std::exchange(last_tick_us_, now_us), now_us, {0, options_.peer_timeout_us})) {
    for (auto& [name, gateway] : gateways_) gateway.heard_us = now_us;
    for (auto& [sequence, owner] : owners_) owner.orphan_since_us = now_us;
  }
  std::vector<std::string> silent;
  for (const auto& [name, gateway] : gateways_) {
    if (now_us - gateway.heard_us > options_.peer_timeout_us) silent.push_back(name);
  }
  for (const std::string& name : silent) Lose(name, output);
  TellUnaware(output);
  ExpireOrphans(output);
  return output;
}

NodeAdmissionOutput NodeAdmission::Farewell() const {
  NodeAdmissionOutput output;
  for (const auto& [name, gateway] : gateways_) {
    output.messages.emplace_back(gateway.connection,
                                 Goodbye{"replica " + options_.replica + " stops"});
  }
  return output;
}

std::vector<SequenceId> NodeAdmission::ActiveSequences() const {
  std::vector<SequenceId> active;
  active.reserve(owners_.size());
  for (const auto& [sequence, owner] : owners_) active.push_back(sequence);
  return active;
}

}  // namespace muselet
