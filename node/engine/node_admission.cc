#include "node/engine/node_admission.h"

#include <algorithm>
#include <utility>

#include "base/peer_session.h"

namespace muselet {
namespace {

Tokens Refusal(const Submit& submit, const Status& reason) {
  TokenUpdate update;
  update.sequence = submit.sequence;
  update.attempt = submit.attempt;
  update.finish = FinishReason::kError;
  update.error_code = reason.code();
  update.error = reason.message();
  return Tokens{{std::move(update)}};
}

}  // namespace

NodeAdmission::NodeAdmission(NodeAdmissionOptions options) : options_(std::move(options)) {}

NodeAdmissionOutput NodeAdmission::OnMessage(const std::string& connection, Envelope envelope,
                                             int64_t now_us) {
  NodeAdmissionOutput output;
  const std::string& name = envelope.sender;
  auto known = gateways_.find(name);
  if (std::holds_alternative<Hello>(envelope.body)) {
    if (known != gateways_.end() && known->second.instance != envelope.instance) {
      CancelAllOf(name, output);
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
    OnCancel(*cancel, output);
  } else if (std::holds_alternative<Goodbye>(envelope.body)) {
    CancelAllOf(name, output);
    gateways_.erase(name);
  }
  return output;
}

Status NodeAdmission::CheckSubmit(const Submit& submit) const {
  if (submit.replica != options_.replica) {
    return Unavailable("replica " + submit.replica + " is not here, this is " + options_.replica);
  }
  if (submit.epoch != options_.epoch) {
    return Unavailable("replica " + options_.replica + " was formed anew: epoch " +
                       std::to_string(submit.epoch) + " is over");
  }
  if (draining_) return Unavailable("replica " + options_.replica + " is draining");
  if (owners_.size() >= options_.sequences_max && !owners_.contains(submit.sequence)) {
    return ResourceExhausted("replica " + options_.replica + " holds " +
                             std::to_string(owners_.size()) + " sequences, its limit");
  }
  return OkStatus();
}

void NodeAdmission::OnSubmit(const std::string& gateway, Submit submit,
                             NodeAdmissionOutput& output) {
  const auto owner = owners_.find(submit.sequence);
  if (owner != owners_.end() && submit.attempt <= owner->second.attempt) return;
  const auto ended = ended_.find(submit.sequence);
  if (ended != ended_.end() && submit.attempt <= ended->second) {
    ++dropped_count_;
    return;
  }
  if (const Status status = CheckSubmit(submit); !status.ok()) {
    output.messages.emplace_back(gateways_[gateway].connection, Refusal(submit, status));
    return;
  }
  owners_[submit.sequence] = {gateway, submit.attempt};
  output.commands.emplace_back(std::move(submit));
}

void NodeAdmission::OnCancel(const Cancel& cancel, NodeAdmissionOutput& output) {
  // Remembered even if it is not here: the Submit may be late.
  Forget(cancel.sequence, cancel.attempt);
  const auto owner = owners_.find(cancel.sequence);
  if (owner == owners_.end() || owner->second.attempt > cancel.attempt) return;
  owners_.erase(owner);
  output.commands.emplace_back(cancel);
}

void NodeAdmission::Forget(const SequenceId& sequence, uint32_t attempt) {
  const auto [entry, inserted] = ended_.emplace(sequence, attempt);
  entry->second = std::max(entry->second, attempt);
  if (!inserted) return;
  ended_order_.push_back(sequence);
  if (ended_order_.size() <= kEndedRemembered) return;
  ended_.erase(ended_order_.front());
  ended_order_.pop_front();
}

void NodeAdmission::CancelAllOf(const std::string& gateway, NodeAdmissionOutput& output) {
  for (auto owner = owners_.begin(); owner != owners_.end();) {
    if (owner->second.gateway != gateway) {
      ++owner;
      continue;
    }
    Forget(owner->first, owner->second.attempt);
    output.commands.emplace_back(Cancel{owner->first, owner->second.attempt});
    owner = owners_.erase(owner);
  }
}

NodeAdmissionOutput NodeAdmission::OnUpdates(std::vector<TokenUpdate> updates, int64_t /*now_us*/) {
  std::map<std::string, Tokens> by_connection;
  for (TokenUpdate& update : updates) {
    const auto owner = owners_.find(update.sequence);
    if (owner == owners_.end() || owner->second.attempt != update.attempt) {
      ++dropped_count_;
      continue;
    }
    const std::string& connection = gateways_.at(owner->second.gateway).connection;
    if (update.finish != FinishReason::kNone) {
      Forget(update.sequence, update.attempt);
      owners_.erase(owner);
    }
    by_connection[connection].updates.push_back(std::move(update));
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
    if (owner == owners_.end() || owner->second.attempt != update.attempt) continue;
    Forget(update.sequence, update.attempt);
    owners_.erase(owner);
    output.commands.emplace_back(Cancel{update.sequence, update.attempt});
  }
  return output;
}

NodeAdmissionOutput NodeAdmission::OnTick(int64_t now_us) {
  NodeAdmissionOutput output;
  if (WasStuck(std::exchange(last_tick_us_, now_us), now_us, {0, options_.peer_timeout_us})) {
    for (auto& [name, gateway] : gateways_) gateway.heard_us = now_us;
  }
  for (auto gateway = gateways_.begin(); gateway != gateways_.end();) {
    if (now_us - gateway->second.heard_us <= options_.peer_timeout_us) {
      ++gateway;
      continue;
    }
    CancelAllOf(gateway->first, output);
    gateway = gateways_.erase(gateway);
  }
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
