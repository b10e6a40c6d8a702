#include "node/role_loop.h"

#include <chrono>
#include <future>
#include <memory>
#include <utility>

namespace muselet {

void RoleLoop::Start() {
  thread_ = std::thread([this] { loop_.Run(); });
}

void RoleLoop::Stop() {
  if (!thread_.joinable()) return;
  loop_.Stop();
  thread_.join();
}

Status RoleLoop::Ask(std::function<Status()> question, int64_t timeout_us) {
  // Shared with the posted work, which may run after this call gave up.
  auto answer = std::make_shared<std::promise<Status>>();
  std::future<Status> future = answer->get_future();
  loop_.Post([answer, question = std::move(question)] { answer->set_value(question()); });
  if (future.wait_for(std::chrono::microseconds(timeout_us)) != std::future_status::ready) {
    return Unavailable("the loop of " + loop_.name() + " does not answer");
  }
  return future.get();
}

}  // namespace muselet
