// The RPC door of a gateway: comms/proto/frontend.proto over a ROUTER socket, in front of a
// GenerationService. For front ends inside the house that want less per token than HTTP and SSE.
//
// Made, called and destroyed on the loop thread or while the loop does not run; destroyed before
// the service and the loop.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <variant>

#include "comms/event_loop.h"
#include "comms/message_socket.h"
#include "comms/raw_router.h"
#include "node/gateway/generation.h"
#include "node/gateway/request_origin.h"

namespace muselet::v1 {
class GenerateRequest;
class Request;
class Response;
}  // namespace muselet::v1

namespace muselet {

// Who a key belongs to.
struct RpcCaller {
  std::string surface = "default";
  RequestClass request_class = RequestClass::kInteractive;
};

struct RpcServerOptions {
  std::string endpoint;  // tcp://HOST:PORT; port 0 lets the system choose
  // The caller of an API key, "" for none: kPermissionDenied if it may not use this gateway.
  std::function<Result<RpcCaller>(std::string_view key)> authorize;
  uint32_t message_bytes_max = 4 * 1024 * 1024;  // of a request
  uint32_t calls_max = 256;                      // open Generate calls of one client
  // Messages that wait for one client that does not read; its calls are cancelled beyond.
  uint32_t queue_messages_max = 4096;
  int64_t client_timeout_us = 3'000'000;  // silence of a client with open calls
  // Idempotency keys and event ids; null: they are not heeded. Shared with the other doors of this
  // gateway.
  std::shared_ptr<RequestOrigins> origins = nullptr;
};

class RpcServer {
 public:
  // kUnavailable naming the endpoint if it cannot be bound, kInvalidArgument if it is none.
  static Result<std::unique_ptr<RpcServer>> Start(RpcServerOptions options,
                                                  GenerationService& service, EventLoop& loop,
                                                  WireContext& context);
  ~RpcServer();
  RpcServer(const RpcServer&) = delete;
  RpcServer& operator=(const RpcServer&) = delete;

  // Where clients connect, with the real port.
  const std::string& endpoint() const { return router_->endpoint(); }
  // Generate calls that are open.
  size_t open_calls() const;
  // From now on Health says not ready and Generate is refused as unavailable; calls that are open
  // go on. `drained` runs from the loop when none is left.
  void Drain(std::function<void()> drained);

 private:
  class CallSink;
  struct Call {
    RequestId request;
  };
  // The last word of a call that did not fit into its client's queue.
  struct Unsent {
    RawPeer peer;
    std::string message;
    int64_t since_us = 0;
  };
  struct Client {
    RawPeer peer;
    int64_t heard_us = 0;
    std::map<uint64_t, Call> calls;
  };

  RpcServer(RpcServerOptions options, GenerationService& service, EventLoop& loop);
  void OnMessage(const RawPeer& peer, const std::string& body);
  void OnRequest(const RawPeer& peer, const v1::Request& request);
  void OnGenerate(const RawPeer& peer, uint64_t call_id, const RpcCaller& caller,
                  const v1::GenerateRequest& message);
  // Fixes what the call keeps if it is made again.
  std::variant<RequestOrigin, GenerationError> OpenOrigin(const RpcCaller& caller,
                                                          v1::GenerateRequest message) const;
  void OnCancel(const RawPeer& peer, uint64_t call_id, uint64_t generate_call_id);
  void AnswerModels(const RawPeer& peer, uint64_t call_id);
  void AnswerHealth(const RawPeer& peer, uint64_t call_id);
  void Refuse(const RawPeer& peer, uint64_t call_id, Status status, std::string param = "");
  void Refuse(const RawPeer& peer, uint64_t call_id, const GenerationError& error);
  // A client that cannot be answered is gone or does not read: its calls are cancelled.
  void Answer(const RawPeer& peer, v1::Response& response);
  void CloseCall(const RawPeer& peer, uint64_t call_id);
  void FinishDrain();
  // Cancels the client's calls, and tells it the end of each as soon as it reads again.
  void DropClient(const std::string& peer, const Status& why);
  void DropSilentClients();
  void KeepUnsent(const RawPeer& peer, std::string message);
  void RetryUnsent();

  const RpcServerOptions options_;
  GenerationService& service_;
  EventLoop& loop_;
  std::unique_ptr<RawRouter> router_;
  std::map<std::string, Client> clients_;  // those with open calls, by connection
  std::deque<Unsent> unsent_;              // bounded, oldest first
  std::unique_ptr<PeriodicTimer> timer_;
  bool draining_ = false;
  std::function<void()> drained_;
};

}  // namespace muselet
