#include "comms/raw_dealer.h"

#include <cerrno>
#include <utility>
#include <zmq.hpp>

#include "base/types.h"
#include "comms/socket_pump.h"

namespace muselet {
namespace {

class PumpedDealer final : public RawDealer {
 public:
  PumpedDealer(EventLoop& loop, WireContext& context, std::string endpoint, Handler handler,
               const WireLimits& limits)
      : pump_(std::make_shared<SocketPump>(loop, context, zmq::socket_type::dealer, limits)),
        handler_(std::make_shared<Handler>(std::move(handler))),
        endpoint_(std::move(endpoint)),
        bytes_max_(limits.message_bytes_max) {}
  ~PumpedDealer() override { pump_->Close(); }

  Status Connect(const std::string& identity) {
    // In one process there are no connections to come and go.
    if (endpoint_.starts_with("inproc://")) *connected_ = true;
    OnConnection(nullptr);
    RETURN_IF_ERROR(pump_->Connect(endpoint_, identity));
    pump_->Start([handler = handler_](std::vector<std::string>& frames) {
      if (frames.size() == 1) (*handler)(std::move(frames.front()));
    });
    return OkStatus();
  }

  Status Send(const std::string& body) override {
    if (body.size() > bytes_max_) {
      return InvalidArgument("a message of " + std::to_string(body.size()) + " bytes; " +
                             endpoint_ + " takes " + std::to_string(bytes_max_));
    }
    // ZeroMQ may still take messages for a connection that is known to have broken.
    const int fault = *connected_ ? pump_->Send(body) : ENOTCONN;
    if (fault == 0) return OkStatus();
    if (fault == EAGAIN)
      return ResourceExhausted("the queue to " + endpoint_ + " is full: it does not read");
    return Unavailable("not connected to " + endpoint_);
  }

  void OnConnection(std::function<void(bool)> callback) override {
    pump_->OnConnection([connected = connected_, callback = std::move(callback)](bool now) {
      const bool changed = std::exchange(*connected, now) != now;
      if (changed && callback) callback(now);
    });
  }

 private:
  std::shared_ptr<SocketPump> pump_;
  std::shared_ptr<Handler> handler_;
  std::string endpoint_;
  uint32_t bytes_max_;
  std::shared_ptr<bool> connected_ = std::make_shared<bool>(false);
};

}  // namespace

Result<std::unique_ptr<RawDealer>> RawDealer::Connect(EventLoop& loop, WireContext& context,
                                                      const std::string& endpoint,
                                                      const std::string& identity, Handler handler,
                                                      const WireLimits& limits) {
  try {
    auto dealer =
        std::make_unique<PumpedDealer>(loop, context, endpoint, std::move(handler), limits);
    RETURN_IF_ERROR(dealer->Connect(identity));
    return std::unique_ptr<RawDealer>(std::move(dealer));
  } catch (const zmq::error_t& error) {
    return Unavailable("cannot make a socket for " + endpoint + ": " + error.what());
  }
}

std::string RawDealer::DrawIdentity(const std::string& name) {
  return name.substr(0, 200) + "#" + RequestId::Random().ToString();
}

}  // namespace muselet
