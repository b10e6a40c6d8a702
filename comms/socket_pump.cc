#include "comms/socket_pump.h"

#include <zmq.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <utility>

#include "base/log.h"
#include "base/types.h"
#include "comms/key_guard.h"
#include "comms/wire_endpoint.h"

namespace muselet {
namespace {

constexpr int kDrainMessagesMax = 64;  // in one turn of the loop
constexpr size_t kFramesMax = 4;       // kept of one message; ours have one or two
constexpr int kLingerMs = 2000;

void SetOptions(zmq::socket_t& socket, const WireLimits& limits) {
  namespace opt = zmq::sockopt;
  const int queue_max = static_cast<int>(std::min<uint32_t>(limits.queue_messages_max, 1U << 30));
  socket.set(opt::linger, kLingerMs);
  socket.set(opt::sndhwm, std::max(queue_max, 1));
  socket.set(opt::rcvhwm, std::max(queue_max, 1));
  socket.set(opt::maxmsgsize, int64_t{limits.message_bytes_max});
  socket.set(opt::immediate, 1);
  socket.set(opt::heartbeat_ivl, 500);
  socket.set(opt::heartbeat_timeout, 1500);
  socket.set(opt::heartbeat_ttl, 2000);
  socket.set(opt::handshake_ivl, 3000);
  socket.set(opt::reconnect_ivl, 50);
  socket.set(opt::reconnect_ivl_max, 1000);
  socket.set(opt::tcp_keepalive, 1);
  socket.set(opt::tcp_keepalive_idle, 10);
  socket.set(opt::tcp_keepalive_intvl, 5);
  socket.set(opt::tcp_keepalive_cnt, 3);
}

std::string FixOf(int error, const std::string& endpoint) {
  switch (error) {
    case EADDRINUSE:
      return ": another process or role holds this address; stop it or choose another port";
    case EACCES:
      return ": no permission; choose a port above 1023 or another path";
    case EADDRNOTAVAIL:
    case ENODEV:
      return ": this host has no such address";
    default:
      return endpoint.find("://") == std::string::npos
                 ? ": an endpoint looks like tcp://10.0.0.1:5555"
                 : std::string();
  }
}

constexpr int kHandshakeFaults = ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                                 ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                                 ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;

std::string HandshakeFault(int event, int detail) {
  if (event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH) {
    return "our key is not known at the other end";
  }
  if (event == ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL) {
    return std::string("the other end broke it off: ") + zmq_strerror(detail);
  }
  switch (detail) {
    case ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
      return "one end has keys and the other has none (security.key_file)";
    case ZMQ_PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC:
      return "the two ends do not mean the same key";
    default:
      return "the other end speaks another protocol";
  }
}

Status EndpointFault(const char* verb, const std::string& endpoint, int error) {
  const std::string message = std::string("cannot ") + verb + " " + endpoint + ": " +
                              zmq_strerror(error) + FixOf(error, endpoint);
  const bool malformed = error == EINVAL || error == EPROTONOSUPPORT;
  return malformed ? InvalidArgument(message) : Unavailable(message);
}

// ZeroMQ asks for a free port with "*"; people write 0.
std::string WithWildcardPort(const std::string& endpoint) {
  const bool any_port = endpoint.starts_with("tcp://") && endpoint.ends_with(":0");
  return any_port ? endpoint.substr(0, endpoint.size() - 1) + "*" : endpoint;
}

// ZeroMQ takes a port modulo 65536.
Status CheckPort(const std::string& endpoint) {
  if (!endpoint.starts_with("tcp://")) return OkStatus();
  const std::string port = endpoint.substr(endpoint.rfind(':') + 1);
  uint64_t number = 0;
  const auto [end, fault] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (fault == std::errc::result_out_of_range || number > 65535)
    return InvalidArgument(endpoint + ": port " + port + " is above 65535");
  return OkStatus();
}

}  // namespace

SocketPump::SocketPump(EventLoop& loop, WireContext& context, zmq::socket_type type,
                       const WireLimits& limits)
    : loop_(loop), context_(context), socket_(context.zmq(), type) {
  SetOptions(socket_, limits);
  if (type == zmq::socket_type::router) {
    socket_.set(zmq::sockopt::router_mandatory, 1);
    socket_.set(zmq::sockopt::router_handover, 1);
  }
  OpenMonitor();
}

SocketPump::~SocketPump() {
  Close();
}

void SocketPump::OpenMonitor() {
  const std::string address = "inproc://monitor." + RequestId::Random().ToString();
  const int events = ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED | kHandshakeFaults;
  if (zmq_socket_monitor(socket_.handle(), address.c_str(), events) != 0) throw zmq::error_t();
  monitor_.emplace(context_.zmq(), zmq::socket_type::pair);
  monitor_->set(zmq::sockopt::linger, 0);
  monitor_->connect(address);
}

Status SocketPump::SecureServer(WireAudience audience) {
  try {
    KeyGuard::Protect(socket_, *context_.keys(), audience);
    return OkStatus();
  } catch (const zmq::error_t& error) {
    return InvalidArgument(std::string("the key of this process cannot be used: ") + error.what());
  }
}

Status SocketPump::SecureClient(const std::string& server_key) {
  namespace opt = zmq::sockopt;
  const WireKeyPair& own = *context_.keys();
  try {
    socket_.set(opt::curve_publickey, own.public_key);
    socket_.set(opt::curve_secretkey, own.secret_key);
    socket_.set(opt::curve_serverkey, server_key.empty() ? own.public_key : server_key);
    return OkStatus();
  } catch (const zmq::error_t& error) {
    return InvalidArgument("the key of " + endpoint_ + " cannot be used: " + error.what());
  }
}

Result<std::string> SocketPump::Bind(const std::string& endpoint, WireAudience audience) {
  RETURN_IF_ERROR(CheckPort(endpoint));
  const bool secured = context_.keys() != nullptr && !IsLoopbackEndpoint(endpoint);
  if (secured) RETURN_IF_ERROR(SecureServer(audience));
  if (zmq_bind(socket_.handle(), WithWildcardPort(endpoint).c_str()) != 0)
    return EndpointFault("listen on", endpoint, zmq_errno());
  try {
    endpoint_ = socket_.get(zmq::sockopt::last_endpoint);
    return secured ? WithServerKey(endpoint_, context_.keys()->public_key) : endpoint_;
  } catch (const zmq::error_t& error) {
    return Internal("cannot read the bound address of " + endpoint + ": " + error.what());
  }
}

Status SocketPump::Connect(const std::string& endpoint, const std::string& identity) {
  const WireEndpoint target = ParseWireEndpoint(endpoint);
  endpoint_ = target.address;
  RETURN_IF_ERROR(CheckPort(endpoint_));
  if (context_.keys() != nullptr) {
    const bool secured = !target.server_key.empty() || !IsLoopbackEndpoint(endpoint_);
    if (secured) RETURN_IF_ERROR(SecureClient(target.server_key));
  } else if (!target.server_key.empty()) {
    return InvalidArgument(endpoint_ + " wants a key, and this process has none: give it " +
                           "security.key_file");
  }
  try {
    socket_.set(zmq::sockopt::routing_id, identity.substr(0, 255));
  } catch (const zmq::error_t& error) {
    return InvalidArgument("the name '" + identity + "' is no socket identity: " + error.what());
  }
  if (zmq_connect(socket_.handle(), endpoint_.c_str()) != 0)
    return EndpointFault("connect to", endpoint_, zmq_errno());
  return OkStatus();
}

void SocketPump::OnConnection(std::function<void(bool)> callback) {
  on_connection_ = std::move(callback);
}

void SocketPump::Start(FrameHandler handler) {
  handler_ = std::move(handler);
  descriptor_.emplace(loop_.io(), socket_.get(zmq::sockopt::fd));
  monitor_descriptor_.emplace(loop_.io(), monitor_->get(zmq::sockopt::fd));
  DrainLater();
  loop_.Post([self = shared_from_this()] { self->DrainMonitor(); });
}

void SocketPump::Close() {
  if (closed_) return;
  closed_ = true;
  // The descriptors belong to ZeroMQ: asio must forget them, not close them.
  if (descriptor_) descriptor_->release();
  if (monitor_descriptor_) monitor_descriptor_->release();
  zmq_socket_monitor(socket_.handle(), nullptr, 0);
  monitor_.reset();
  socket_.close();
}

void SocketPump::Wait(Descriptor& descriptor, void (SocketPump::*drain)()) {
  descriptor.async_wait(Descriptor::wait_read,
                        [self = shared_from_this(), drain](const boost::system::error_code& error) {
                          if (drain == &SocketPump::Drain) self->waiting_ = false;
                          if (!error && !self->closed_) ((*self).*drain)();
                        });
}

void SocketPump::DrainLater() {
  if (drain_posted_ || closed_) return;
  drain_posted_ = true;
  loop_.Post([self = shared_from_this()] {
    self->drain_posted_ = false;
    self->Drain();
  });
}

void SocketPump::Drain() {
  for (int i = 0; i < kDrainMessagesMax; ++i) {
    if (closed_) return;
    if (!Receive()) {
      if (!waiting_) {
        waiting_ = true;
        Wait(*descriptor_, &SocketPump::Drain);
      }
      return;
    }
    handler_(frames_);
  }
  DrainLater();
}

bool SocketPump::Receive() {
  frames_.clear();
  zmq::message_t frame;
  bool more = true;
  while (more) {
    if (zmq_msg_recv(frame.handle(), socket_.handle(), ZMQ_DONTWAIT) < 0) {
      if (zmq_errno() == EINTR) continue;
      return false;
    }
    more = frame.more();
    if (frames_.size() < kFramesMax) frames_.emplace_back(frame.data<char>(), frame.size());
  }
  return true;
}

void SocketPump::DrainMonitor() {
  while (!closed_) {
    zmq::message_t event;
    zmq::message_t address;
    if (zmq_msg_recv(event.handle(), monitor_->handle(), ZMQ_DONTWAIT) < 0 ||
        zmq_msg_recv(address.handle(), monitor_->handle(), ZMQ_DONTWAIT) < 0) {
      return Wait(*monitor_descriptor_, &SocketPump::DrainMonitor);
    }
    uint16_t kind = 0;
    uint32_t detail = 0;
    if (event.size() < sizeof(kind) + sizeof(detail)) continue;
    std::memcpy(&kind, event.data(), sizeof(kind));
    std::memcpy(&detail, event.data<char>() + sizeof(kind), sizeof(detail));
    if ((kind & kHandshakeFaults) != 0) {
      NoteHandshakeFault(kind, static_cast<int>(detail));
      continue;
    }
    const auto callback = on_connection_;
    if (callback) callback(kind == ZMQ_EVENT_HANDSHAKE_SUCCEEDED);
  }
}

// Port scans and wrong keys must not fill the log: the 1st, 2nd, 4th, 8th ... time is told.
void SocketPump::NoteHandshakeFault(int event, int detail) {
  if (!std::has_single_bit(++handshake_faults_)) return;
  LogWarn("a connection was given up before it could be used",
          {{"endpoint", endpoint_},
           {"reason", HandshakeFault(event, detail)},
           {"count", handshake_faults_}});
}

void SocketPump::NoticeInput() {
  int events = 0;
  size_t size = sizeof(events);
  if (zmq_getsockopt(socket_.handle(), ZMQ_EVENTS, &events, &size) != 0) return;
  if ((events & ZMQ_POLLIN) != 0) DrainLater();
}

int SocketPump::SendFrame(const void* data, size_t size, int flags) {
  int rc = -1;
  do {
    rc = zmq_send(socket_.handle(), data, size, flags | ZMQ_DONTWAIT);
  } while (rc < 0 && zmq_errno() == EINTR);
  return rc < 0 ? zmq_errno() : 0;
}

int SocketPump::Send(const std::string& bytes) {
  if (closed_) return ENOTSOCK;
  const int fault = SendFrame(bytes.data(), bytes.size(), 0);
  NoticeInput();
  return fault;
}

int SocketPump::SendTo(const std::string& peer, const std::string& bytes, bool delimited) {
  if (closed_) return ENOTSOCK;
  int fault = SendFrame(peer.data(), peer.size(), ZMQ_SNDMORE);
  if (fault == 0 && delimited) fault = SendFrame(nullptr, 0, ZMQ_SNDMORE);
  if (fault == 0) fault = SendFrame(bytes.data(), bytes.size(), 0);
  NoticeInput();
  return fault;
}

}  // namespace muselet
