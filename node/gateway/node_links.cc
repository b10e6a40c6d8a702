#include "node/gateway/node_links.h"

#include <utility>

#include "base/log.h"

namespace muselet {
namespace {

constexpr int64_t kUnusedMaxUs = 30'000'000;

}  // namespace

NodeLinks::NodeLinks(EventLoop& loop, WireContext& context, const LocalPeer& local,
                     const PeerLinkOptions& options, size_t queue_max, Callbacks callbacks)
    : loop_(loop),
      context_(context),
      local_(local),
      options_(options),
      queue_max_(queue_max),
      callbacks_(std::move(callbacks)) {}

NodeLinks::~NodeLinks() = default;

NodeLinks::Node* NodeLinks::Open(const std::string& endpoint) {
  const auto found = nodes_.find(endpoint);
  if (found != nodes_.end()) return &found->second;
  PeerLink::Callbacks callbacks;
  callbacks.up = [this, endpoint, before = std::make_shared<bool>(false)] {
    const bool again = std::exchange(*before, true);
    LogInfo(again ? "reconnected to a node" : "connected to a node", {{"endpoint", endpoint}});
    Flush(endpoint, nodes_.at(endpoint));
  };
  callbacks.down = [this, endpoint](const std::string& why, bool on_purpose) {
    nodes_.at(endpoint).waiting.clear();
    const LogFields fields = {{"endpoint", endpoint}, {"why", why}};
    if (on_purpose) {
      LogInfo("a node left", fields);
    } else {
      LogWarn("lost a node", fields);
    }
    callbacks_.lost(endpoint, why);
  };
  callbacks.message = [this, endpoint](Message message) {
    callbacks_.message(endpoint, std::move(message));
  };
  auto link = PeerLink::Connect(loop_, context_, local_, endpoint, options_, std::move(callbacks));
  if (!link.ok()) {
    LogWarn("cannot connect to a node", {{"endpoint", endpoint}, {"why", link.status().message()}});
    return nullptr;
  }
  Node& node = nodes_[endpoint];
  node.link = std::move(link).value();
  node.used_us = loop_.NowUs();
  return &node;
}

void NodeLinks::Send(const std::string& endpoint, Message message) {
  // What stops work is of no use to a node that we would have to look for first.
  const bool only_cancel = std::holds_alternative<Cancel>(message);
  if (only_cancel && nodes_.count(endpoint) == 0) return;
  Node* node = Open(endpoint);
  if (node == nullptr || node->waiting.size() >= queue_max_) {
    callbacks_.lost(endpoint, node == nullptr ? "its address is no address" : "its queue is full");
    return;
  }
  if (only_cancel && !node->link->up() && node->waiting.empty()) return;
  node->used_us = loop_.NowUs();
  if (node->waiting.empty()) node->waiting_since_us = node->used_us;
  node->waiting.push_back(std::move(message));
  Flush(endpoint, *node);
}

void NodeLinks::Flush(const std::string& endpoint, Node& node) {
  while (!node.waiting.empty() && node.link->up()) {
    // Kept until it is taken: a full queue is tried again by the next tick.
    const Status status = node.link->Send(node.waiting.front());
    if (status.code() == StatusCode::kUnavailable) return;  // `down` has cleared the line
    if (status.code() == StatusCode::kResourceExhausted) return;
    node.waiting.pop_front();
    if (!status.ok()) {
      LogError("cannot send to a node", {{"endpoint", endpoint}, {"why", status.message()}});
      callbacks_.lost(endpoint, status.message());
    }
    node.waiting_since_us = loop_.NowUs();
  }
}

void NodeLinks::Tick(int64_t now_us) {
  for (auto entry = nodes_.begin(); entry != nodes_.end();) {
    const std::string endpoint = entry->first;
    Node& node = entry->second;
    node.link->Tick(now_us);
    Flush(endpoint, node);
    if (!node.waiting.empty() && now_us - node.waiting_since_us > options_.peer_timeout_us) {
      node.waiting.clear();
      callbacks_.lost(endpoint, node.link->up() ? "it takes no messages" : "it is not reachable");
    }
    bool unused = node.waiting.empty() && now_us - node.used_us > kUnusedMaxUs;
    if (unused && callbacks_.in_use(endpoint)) {
      node.used_us = now_us;
      unused = false;
    }
    entry = unused ? nodes_.erase(entry) : std::next(entry);
  }
}

}  // namespace muselet
