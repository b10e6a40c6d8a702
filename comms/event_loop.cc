#include "comms/event_loop.h"

#include <pthread.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <utility>

namespace muselet {
namespace {

using std::chrono::microseconds;
using SteadyClock = std::chrono::steady_clock;

constexpr int64_t kTurnIntervalUs = 400'000;
constexpr size_t kThreadNameMax = 15;  // the kernel's limit, without the final zero

}  // namespace

struct PeriodicTimer::State : std::enable_shared_from_this<State> {
  State(boost::asio::io_context& io, int64_t interval_us, std::function<void()> work)
      : timer(io), interval(std::max<int64_t>(interval_us, 1)), work(std::move(work)) {}

  void Arm() {
    timer.async_wait([self = shared_from_this(), wait = ++waits](const auto& error) {
      // A wait that had ended already when the interval was set is not ended by that.
      if (error || self->stopped || wait != self->waits) return;
      self->work();
      if (self->stopped || wait != self->waits) return;
      const auto next = self->timer.expiry() + self->interval;
      self->timer.expires_at(std::max(next, SteadyClock::now()));
      self->Arm();
    });
  }

  boost::asio::steady_timer timer;
  microseconds interval;
  std::function<void()> work;
  uint64_t waits = 0;  // begun; only the last one counts
  bool stopped = false;
};

PeriodicTimer::PeriodicTimer(EventLoop& loop, int64_t interval_us, std::function<void()> work)
    : state_(std::make_shared<State>(loop.io(), interval_us, std::move(work))) {
  state_->timer.expires_after(state_->interval);
  state_->Arm();
}

PeriodicTimer::~PeriodicTimer() {
  state_->stopped = true;
  state_->timer.cancel();
}

void PeriodicTimer::SetInterval(int64_t interval_us) {
  const microseconds interval(std::max<int64_t>(interval_us, 1));
  if (interval == state_->interval) return;
  state_->interval = interval;
  state_->timer.expires_after(interval);  // ends the wait that was under way
  state_->Arm();
}

EventLoop::EventLoop(std::string name, const Clock& clock)
    : name_(std::move(name)), clock_(clock), work_(boost::asio::make_work_guard(io_)) {
  Every(kTurnIntervalUs, [this] { turns_.fetch_add(1, std::memory_order_relaxed); });
}

EventLoop::~EventLoop() = default;

void EventLoop::Run() {
  pthread_setname_np(pthread_self(), name_.substr(0, kThreadNameMax).c_str());
  io_.run();
}

void EventLoop::Stop() {
  io_.stop();
}

void EventLoop::Post(std::function<void()> work) {
  boost::asio::post(io_, std::move(work));
}

void EventLoop::Every(int64_t interval_us, std::function<void()> work) {
  Post([this, interval_us, work = std::move(work)]() mutable {
    timers_.push_back(std::make_unique<PeriodicTimer>(*this, interval_us, std::move(work)));
  });
}

uint64_t EventLoop::turns() const {
  return turns_.load(std::memory_order_relaxed);
}

}  // namespace muselet
