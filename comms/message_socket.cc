#include "comms/message_socket.h"

#include <google/protobuf/stubs/logging.h>
#include <zmq.h>

#include <bit>
#include <utility>
#include <zmq.hpp>

#include "base/log.h"
#include "comms/codec.h"
#include "comms/key_guard.h"
#include "comms/socket_pump.h"

namespace muselet {
namespace {

constexpr int kIoThreads = 1;
constexpr int kSocketsMax = 4096;

bool IsInproc(const std::string& endpoint) {
  return endpoint.starts_with("inproc://");
}

// Counts what peers send that is no envelope, and logs the 1st, 2nd, 4th, 8th ... time: a peer that
// speaks nonsense must not fill the log.
class MalformedLog {
 public:
  void Note(const std::string& endpoint, const std::string& reason) {
    ++count_;
    if (!std::has_single_bit(count_)) return;
    LogWarn("ignored a malformed message",
            {{"endpoint", endpoint}, {"reason", reason}, {"count", count_}});
  }

 private:
  uint64_t count_ = 0;
};

// Stamps and encodes what a socket sends.
class EnvelopeWriter {
 public:
  EnvelopeWriter(LocalPeer local, uint32_t bytes_max)
      : local_(std::move(local)), bytes_max_(bytes_max) {}

  Result<std::string> Write(Message message) {
    const std::string_view kind = MessageName(message);
    std::string bytes =
        EncodeEnvelope({local_.name, local_.instance, ++sequence_, std::move(message)});
    if (bytes.size() > bytes_max_) {
      return InvalidArgument("message " + std::string(kind) + ": " + std::to_string(bytes.size()) +
                             " bytes, the wire takes " + std::to_string(bytes_max_));
    }
    return bytes;
  }

 private:
  LocalPeer local_;
  uint32_t bytes_max_;
  uint64_t sequence_ = 0;
};

class RouterServer final : public MessageServer {
 public:
  RouterServer(EventLoop& loop, WireContext& context, const LocalPeer& local, Handler handler,
               const WireLimits& limits)
      : pump_(std::make_shared<SocketPump>(loop, context, zmq::socket_type::router, limits)),
        handler_(std::make_shared<Handler>(std::move(handler))),
        writer_(local, limits.message_bytes_max),
        bytes_max_(limits.message_bytes_max) {}
  ~RouterServer() override { pump_->Close(); }

  Status Bind(const std::string& endpoint) {
    ASSIGN_OR_RETURN(endpoint_, pump_->Bind(endpoint));
    pump_->Start([handler = handler_, endpoint = endpoint_, bytes_max = bytes_max_,
                  malformed = MalformedLog()](std::vector<std::string>& frames) mutable {
      if (frames.size() != 2) return malformed.Note(endpoint, "not one frame");
      Result<Envelope> envelope = DecodeEnvelope(frames[1], bytes_max);
      if (!envelope.ok()) return malformed.Note(endpoint, envelope.status().message());
      (*handler)(frames[0], *std::move(envelope));
    });
    return OkStatus();
  }

  const std::string& endpoint() const override { return endpoint_; }

  Status Send(const std::string& peer, Message message) override {
    ASSIGN_OR_RETURN(const std::string bytes, writer_.Write(std::move(message)));
    switch (pump_->SendTo(peer, bytes)) {
      case 0:
        return OkStatus();
      case EAGAIN:
        return ResourceExhausted("the queue to peer " + peer + " is full: it does not read");
      default:
        return Unavailable("peer " + peer + " is not connected to " + endpoint_);
    }
  }

  void OnDisconnect(std::function<void()> callback) override {
    pump_->OnConnection([callback = std::move(callback)](bool connected) {
      if (!connected) callback();
    });
  }

 private:
  std::shared_ptr<SocketPump> pump_;
  std::shared_ptr<Handler> handler_;
  EnvelopeWriter writer_;
  uint32_t bytes_max_;
  std::string endpoint_;
};

class DealerClient final : public MessageClient {
 public:
  DealerClient(EventLoop& loop, WireContext& context, const LocalPeer& local, std::string endpoint,
               Handler handler, const WireLimits& limits)
      : pump_(std::make_shared<SocketPump>(loop, context, zmq::socket_type::dealer, limits)),
        handler_(std::make_shared<Handler>(std::move(handler))),
        writer_(local, limits.message_bytes_max),
        bytes_max_(limits.message_bytes_max),
        endpoint_(std::move(endpoint)) {}
  ~DealerClient() override { pump_->Close(); }

  Status Connect(const LocalPeer& local) {
    // In one process there are no connections to come and go.
    if (IsInproc(endpoint_)) *connected_ = true;
    OnDisconnect(nullptr);
    RETURN_IF_ERROR(pump_->Connect(endpoint_, local.name + "#" + std::to_string(local.instance)));
    pump_->Start([handler = handler_, endpoint = endpoint_, bytes_max = bytes_max_,
                  malformed = MalformedLog()](std::vector<std::string>& frames) mutable {
      if (frames.size() != 1) return malformed.Note(endpoint, "not one frame");
      Result<Envelope> envelope = DecodeEnvelope(frames[0], bytes_max);
      if (!envelope.ok()) return malformed.Note(endpoint, envelope.status().message());
      (*handler)(*std::move(envelope));
    });
    return OkStatus();
  }

  const std::string& endpoint() const override { return endpoint_; }

  Status Send(Message message) override {
    ASSIGN_OR_RETURN(const std::string bytes, writer_.Write(std::move(message)));
    const int fault = pump_->Send(bytes);
    if (fault == 0) return OkStatus();
    if (fault == EAGAIN && *connected_)
      return ResourceExhausted("the queue to " + endpoint_ + " is full: it does not read");
    return Unavailable("not connected to " + endpoint_);
  }

  void OnDisconnect(std::function<void()> callback) override {
    pump_->OnConnection([connected = connected_, callback = std::move(callback)](bool now) {
      const bool broke = *connected && !now;
      *connected = now;
      if (broke && callback) callback();
    });
  }

 private:
  std::shared_ptr<SocketPump> pump_;
  std::shared_ptr<Handler> handler_;
  EnvelopeWriter writer_;
  uint32_t bytes_max_;
  std::string endpoint_;
  std::shared_ptr<bool> connected_ = std::make_shared<bool>(false);
};

}  // namespace

WireContext::WireContext() : context_(std::make_unique<zmq::context_t>(kIoThreads, kSocketsMax)) {
  // What peers send wrong is a Status with our own words; protobuf need not print it as well.
  google::protobuf::SetLogHandler(nullptr);
}

WireContext::~WireContext() {
  if (guard_ != nullptr) context_->shutdown();  // ends the guard's thread
}

uint64_t WireContext::refused() const {
  return guard_ == nullptr ? 0 : guard_->refused();
}

Status WireContext::Secure(const WireSecurity& security) {
  RETURN_IF_ERROR(CheckWireKeysWork());
  try {
    guard_ = std::make_unique<KeyGuard>(*context_, security);
  } catch (const zmq::error_t& error) {
    return Unavailable(std::string("the wires cannot be secured: ") + error.what());
  }
  keys_ = security.own;
  return OkStatus();
}

Result<std::unique_ptr<MessageServer>> MessageServer::Bind(EventLoop& loop, WireContext& context,
                                                           const LocalPeer& local,
                                                           const std::string& endpoint,
                                                           Handler handler,
                                                           const WireLimits& limits) {
  try {
    auto server = std::make_unique<RouterServer>(loop, context, local, std::move(handler), limits);
    RETURN_IF_ERROR(server->Bind(endpoint));
    return std::unique_ptr<MessageServer>(std::move(server));
  } catch (const zmq::error_t& error) {
    return Unavailable("cannot make a socket for " + endpoint + ": " + error.what());
  }
}

Result<std::unique_ptr<MessageClient>> MessageClient::Connect(EventLoop& loop, WireContext& context,
                                                              const LocalPeer& local,
                                                              const std::string& endpoint,
                                                              Handler handler,
                                                              const WireLimits& limits) {
  try {
    auto client =
        std::make_unique<DealerClient>(loop, context, local, endpoint, std::move(handler), limits);
    RETURN_IF_ERROR(client->Connect(local));
    return std::unique_ptr<MessageClient>(std::move(client));
  } catch (const zmq::error_t& error) {
    return Unavailable("cannot make a socket for " + endpoint + ": " + error.what());
  }
}

}  // namespace muselet
