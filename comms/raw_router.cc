#include "comms/raw_router.h"

#include <cerrno>
#include <utility>
#include <zmq.hpp>

#include "comms/socket_pump.h"

namespace muselet {
namespace {

class PumpedRouter final : public RawRouter {
 public:
  PumpedRouter(EventLoop& loop, WireContext& context, Handler handler, const WireLimits& limits,
               WireAudience audience)
      : pump_(std::make_shared<SocketPump>(loop, context, zmq::socket_type::router, limits)),
        audience_(audience),
        handler_(std::make_shared<Handler>(std::move(handler))) {}
  ~PumpedRouter() override { pump_->Close(); }

  Status Bind(const std::string& endpoint) {
    ASSIGN_OR_RETURN(endpoint_, pump_->Bind(endpoint, audience_));
    pump_->Start([handler = handler_](std::vector<std::string>& frames) {
      const bool delimited = frames.size() == 3 && frames[1].empty();
      if (frames.size() != 2 && !delimited) return;
      (*handler)({frames[0], delimited}, std::move(frames.back()));
    });
    return OkStatus();
  }

  const std::string& endpoint() const override { return endpoint_; }

  Status Send(const RawPeer& peer, const std::string& body) override {
    switch (pump_->SendTo(peer.id, body, peer.delimited)) {
      case 0:
        return OkStatus();
      case EAGAIN:
        return ResourceExhausted("the queue to a peer is full: it does not read");
      default:
        return Unavailable("the peer is not connected to " + endpoint_);
    }
  }

  void OnDisconnect(std::function<void()> callback) override {
    pump_->OnConnection([callback = std::move(callback)](bool connected) {
      if (!connected) callback();
    });
  }

 private:
  std::shared_ptr<SocketPump> pump_;
  WireAudience audience_;
  std::shared_ptr<Handler> handler_;
  std::string endpoint_;
};

}  // namespace

Result<std::unique_ptr<RawRouter>> RawRouter::Bind(EventLoop& loop, WireContext& context,
                                                   const std::string& endpoint, Handler handler,
                                                   const WireLimits& limits,
                                                   WireAudience audience) {
  try {
    auto router =
        std::make_unique<PumpedRouter>(loop, context, std::move(handler), limits, audience);
    RETURN_IF_ERROR(router->Bind(endpoint));
    return std::unique_ptr<RawRouter>(std::move(router));
  } catch (const zmq::error_t& error) {
    return Unavailable("cannot make a socket for " + endpoint + ": " + error.what());
  }
}

}  // namespace muselet
