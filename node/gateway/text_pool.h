// Threads for text work that would hold up a loop: rendering and tokenizing long prompts. They run
// at a lower priority than the loops and the compute threads.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace muselet {

class TextPool {
 public:
  // `threads` >= 1; at most `queue_max` jobs wait.
  TextPool(uint32_t threads, size_t queue_max);
  // Waits for running jobs; waiting ones are dropped.
  ~TextPool();
  // False if the queue is full; the job was not taken then. Any thread.
  bool Submit(std::function<void()> job);

 private:
  void Work();

  const size_t queue_max_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> jobs_;  // guarded by mutex_
  bool stopping_ = false;                   // guarded by mutex_
  std::vector<std::thread> threads_;
};

}  // namespace muselet
