#include "node/rank/supervisor_link.h"

#include <sys/socket.h>

#include <boost/asio/posix/stream_descriptor.hpp>
#include <utility>

namespace muselet {

struct SupervisorLink::State {
  State(boost::asio::io_context& io, int descriptor, std::function<void()> on_gone)
      : socket(io, descriptor), on_gone(std::move(on_gone)) {}

  // The supervisor says nothing: what can be read is its end.
  static void AwaitEnd(const std::shared_ptr<State>& state) {
    state->socket.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                             [state](const boost::system::error_code& fault) {
                               if (!fault && state->on_gone) state->on_gone();
                             });
  }

  boost::asio::posix::stream_descriptor socket;
  std::function<void()> on_gone;
};

SupervisorLink::SupervisorLink(EventLoop& loop, int descriptor, int64_t interval_us,
                               std::function<void()> on_gone)
    : state_(std::make_shared<State>(loop.io(), descriptor, std::move(on_gone))),
      timer_(loop, interval_us, [this] { Say(kWordAlive); }) {
  State::AwaitEnd(state_);
  Say(kWordAlive);
}

SupervisorLink::~SupervisorLink() {
  state_->on_gone = nullptr;
  state_->socket.cancel();
}

void SupervisorLink::Say(char word, std::string_view text) {
  const std::string packet = word + std::string(text.substr(0, kWordBytesMax - 1));
  // A full socket means a supervisor that does not read; a closed one is noticed by AwaitEnd.
  [[maybe_unused]] const ssize_t sent = send(state_->socket.native_handle(), packet.data(),
                                             packet.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
}

}  // namespace muselet
