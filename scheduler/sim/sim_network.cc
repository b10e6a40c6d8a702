#include "scheduler/sim/sim_network.h"

#include <utility>

#include "base/check.h"

namespace muselet {
namespace {

constexpr int64_t kDisconnectUsMax = 20'000;  // until a closed socket is noticed

// Which request or sequences it is about.
std::string Subject(const Message& message) {
  std::string text;
  const auto attempt = [&](const RequestId& request, uint32_t number) {
    text += " " + std::to_string(request.low) + "." + std::to_string(number);
  };
  if (const auto* tokens = std::get_if<Tokens>(&message)) {
    for (const TokenUpdate& update : tokens->updates) {
      attempt(update.sequence.request, update.attempt);
      text += "/" + std::to_string(update.sequence.choice) + "[" +
              std::to_string(update.first_index) + "+" + std::to_string(update.tokens.size()) + "]";
      if (update.finish != FinishReason::kNone) {
        text += std::string(FinishReasonName(update.finish)) + update.error;
      }
    }
  } else if (const auto* report = std::get_if<Report>(&message)) {
    for (const SequenceId& id : report->active) text += " " + std::to_string(id.request.low);
  } else if (const auto* submit = std::get_if<Submit>(&message)) {
    attempt(submit->sequence.request, submit->attempt);
  } else if (const auto* cancel = std::get_if<Cancel>(&message)) {
    attempt(cancel->sequence.request, cancel->attempt);
  } else {
    std::visit(
        [&](const auto& body) {
          if constexpr (requires { body.request; }) attempt(body.request, body.attempt);
          if constexpr (requires { body.reason; }) text += " (" + body.reason + ")";
        },
        message);
  }
  return text;
}

}  // namespace

SimProcess SimNetwork::Add(const std::string& endpoint, Maker maker) {
  const SimProcess process = world_.AddProcess();
  CHECK(process == hosts_.size(), "processes of a network are added through it");
  Host& host = hosts_.emplace_back();
  host.endpoint = endpoint;
  host.maker = std::move(maker);
  const bool added = endpoints_.emplace(endpoint, process).second;
  CHECK(added, "two processes at ", endpoint);
  return process;
}

void SimNetwork::Start(SimProcess process) {
  Host& host = hosts_[process];
  if (!world_.up(process)) world_.Restart(process);
  // A connection to the machine as it was is refused by the machine as it is.
  if (std::exchange(host.gone_unnoticed, false)) TellDisconnected(process);
  const uint32_t incarnation = world_.incarnation(process);
  host.identity = std::make_shared<const std::string>(std::to_string(process) + "#" +
                                                      std::to_string(incarnation));
  connections_[*host.identity] = {process, incarnation};
  Note(process, "starts");
  host.actor = host.maker({process, world_.random().Next() | 1});
  host.actor->Start();
}

void SimNetwork::Crash(SimProcess process, bool silent) {
  Host& host = hosts_[process];
  if (host.actor == nullptr) return;
  Note(process, silent ? "is gone, silently" : "is gone");
  world_.Crash(process);
  host.actor.reset();
  host.gone_unnoticed = silent;
  if (!silent) TellDisconnected(process);
}

void SimNetwork::TellDisconnected(SimProcess gone) {
  for (SimProcess process = 0; process < hosts_.size(); ++process) {
    if (process == gone || hosts_[process].actor == nullptr) continue;
    world_.After(process, world_.random().Between(0, kDisconnectUsMax),
                 [this, process, gone] { hosts_[process].actor->OnDisconnect(gone); });
  }
}

void SimNetwork::Note(SimProcess process, const std::string& what) const {
  if (trace_)
    trace_(std::to_string(world_.now_us()) + " us " + hosts_[process].endpoint + " " + what);
}

void SimNetwork::NoteMessage(const char* verb, SimProcess from, SimProcess to,
                             const Message& message) const {
  if (!trace_) return;
  Note(from, std::string(verb) + " " + hosts_[to].endpoint + ": " +
                 std::string(MessageName(message)) + Subject(message));
}

SimProcess SimNetwork::Find(const std::string& endpoint) const {
  const auto found = endpoints_.find(endpoint);
  return found == endpoints_.end() ? kNowhere : found->second;
}

SimProcess SimNetwork::ProcessOf(const std::string& peer) const {
  const auto found = connections_.find(peer);
  return found == connections_.end() ? kNowhere : found->second.process;
}

Status SimNetwork::Connect(const SimSelf& from, const std::string& sender,
                           const std::string& endpoint, Message message) {
  const SimProcess to = Find(endpoint);
  if (to == kNowhere) return Unavailable("nobody is at " + endpoint);
  return Send(from, sender, to, std::move(message));
}

Status SimNetwork::Answer(const SimSelf& from, const std::string& sender, const std::string& peer,
                          Message message) {
  const auto found = connections_.find(peer);
  if (found == connections_.end()) return Unavailable("no connection " + peer);
  const Connection& to = found->second;
  if (to.incarnation != world_.incarnation(to.process)) return Unavailable(peer + " is gone");
  return Send(from, sender, to.process, std::move(message));
}

Status SimNetwork::Send(const SimSelf& from, const std::string& sender, SimProcess to,
                        Message message) {
  const Host& target = hosts_[to];
  if (target.actor == nullptr) {
    return target.gone_unnoticed ? OkStatus() : Unavailable("not connected");
  }
  if (world_.random().Chance(full_)) return ResourceExhausted("its queue is full");
  Host& source = hosts_[from.process];
  NoteMessage("sends", from.process, to, message);
  auto envelope = std::make_shared<Envelope>();
  envelope->sender = sender;
  envelope->instance = from.instance;
  envelope->sequence = ++source.sent;
  envelope->body = std::move(message);
  world_.Send(from.process, to,
              [this, from = from.process, to, identity = source.identity,
               envelope = std::move(envelope)]() mutable {
                NoteMessage("reaches", from, to, envelope->body);
                const bool last = envelope.use_count() == 1;
                hosts_[to].actor->OnMessage(*identity, last ? std::move(*envelope) : *envelope);
              });
  return OkStatus();
}

}  // namespace muselet
