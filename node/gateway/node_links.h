// A gateway's connections to nodes: opened when a ticket names an endpoint, closed when unused.
// What is sent before the node has welcomed us waits in a bounded line; a node that is not reached
// in the peer timeout counts as lost.
//
// Loop thread only. The callbacks must not call Send or Tick: queue what follows from them.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "node/gateway/peer_link.h"

namespace muselet {

class NodeLinks {
 public:
  struct Callbacks {
    std::function<void(const std::string& endpoint, Message)> message;
    std::function<void(const std::string& endpoint, const std::string& why)> lost;
    std::function<bool(const std::string& endpoint)> in_use;
  };

  NodeLinks(EventLoop& loop, WireContext& context, const LocalPeer& local,
            const PeerLinkOptions& options, size_t queue_max, Callbacks callbacks);
  ~NodeLinks();

  // In order per endpoint. What cannot be delivered ends in `lost`, sooner or later.
  void Send(const std::string& endpoint, Message message);
  void Tick(int64_t now_us);

  size_t size() const { return nodes_.size(); }

 private:
  struct Node {
    std::unique_ptr<PeerLink> link;
    std::deque<Message> waiting;
    int64_t waiting_since_us = 0;
    int64_t used_us = 0;
  };
  Node* Open(const std::string& endpoint);
  void Flush(const std::string& endpoint, Node& node);

  EventLoop& loop_;
  WireContext& context_;
  const LocalPeer local_;
  const PeerLinkOptions options_;
  const size_t queue_max_;
  const Callbacks callbacks_;
  std::map<std::string, Node> nodes_;
};

}  // namespace muselet
