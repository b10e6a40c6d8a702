#include "node/gateway/text_pool.h"

#include <pthread.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace muselet {
namespace {

constexpr int kNiceness = 5;

// On Linux niceness belongs to the thread. A refusal costs priority only.
void LowerPriority() {
  const auto thread = static_cast<id_t>(syscall(SYS_gettid));
  (void)setpriority(PRIO_PROCESS, thread, kNiceness);
}

}  // namespace

TextPool::TextPool(uint32_t threads, size_t queue_max) : queue_max_(queue_max) {
  for (uint32_t i = 0; i < std::max(1U, threads); ++i) threads_.emplace_back([this] { Work(); });
}

TextPool::~TextPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    jobs_.clear();
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

bool TextPool::Submit(std::function<void()> job) {
  {
    const std::lock_guard lock(mutex_);
    if (jobs_.size() >= queue_max_) return false;
    jobs_.push_back(std::move(job));
  }
  wake_.notify_one();
  return true;
}

void TextPool::Work() {
  pthread_setname_np(pthread_self(), "text");
  LowerPriority();
  for (;;) {
    std::function<void()> job;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
      if (stopping_) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    job();
  }
}

}  // namespace muselet
