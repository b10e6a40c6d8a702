#include "tests/support/shared_rendezvous.h"

#include <pthread.h>
#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"
#include "base/clock.h"

namespace muselet::testing {
namespace {

struct Entry {
  char key[128];
  char value[384];
  size_t value_bytes;
};

Status OverStatus() {
  return Unavailable("rendezvous: the epoch is over");
}

timespec MonotonicAfter(int64_t us) {
  timespec at = {};
  clock_gettime(CLOCK_MONOTONIC, &at);
  const int64_t ns = at.tv_nsec + us % 1'000'000 * 1000;
  at.tv_sec += us / 1'000'000 + ns / 1'000'000'000;
  at.tv_nsec = ns % 1'000'000'000;
  return at;
}

}  // namespace

struct SharedRendezvous::Board {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  bool over;
  size_t count;
  std::array<Entry, 256> entries;

  const Entry* Find(const std::string& key) const {
    const auto* end = entries.data() + count;
    const auto* found =
        std::find_if(entries.data(), end, [&](const Entry& entry) { return key == entry.key; });
    return found == end ? nullptr : found;
  }
};

SharedRendezvous::SharedRendezvous() {
  void* memory =
      mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(memory != MAP_FAILED, "mmap");
  board_ = static_cast<Board*>(memory);
  pthread_mutexattr_t mutex_kind;
  pthread_mutexattr_init(&mutex_kind);
  pthread_mutexattr_setpshared(&mutex_kind, PTHREAD_PROCESS_SHARED);
  pthread_mutex_init(&board_->mutex, &mutex_kind);
  pthread_condattr_t changed_kind;
  pthread_condattr_init(&changed_kind);
  pthread_condattr_setpshared(&changed_kind, PTHREAD_PROCESS_SHARED);
  pthread_condattr_setclock(&changed_kind, CLOCK_MONOTONIC);
  pthread_cond_init(&board_->changed, &changed_kind);
}

SharedRendezvous::~SharedRendezvous() {
  munmap(board_, sizeof(Board));
}

Status SharedRendezvous::Put(const std::string& key, std::string value) {
  pthread_mutex_lock(&board_->mutex);
  Status status;
  Entry& entry = board_->entries[std::min(board_->count, board_->entries.size() - 1)];
  if (board_->Find(key) != nullptr) {
    status = InvalidArgument("rendezvous: " + key + " has a value already");
  } else if (board_->count == board_->entries.size() || key.size() >= sizeof(entry.key) ||
             value.size() > sizeof(entry.value)) {
    status = ResourceExhausted("rendezvous: no room for " + key);
  } else {
    std::memcpy(entry.key, key.c_str(), key.size() + 1);
    std::memcpy(entry.value, value.data(), value.size());
    entry.value_bytes = value.size();
    ++board_->count;
    pthread_cond_broadcast(&board_->changed);
  }
  pthread_mutex_unlock(&board_->mutex);
  return status;
}

Result<std::string> SharedRendezvous::Get(const std::string& key, int64_t deadline_us) {
  pthread_mutex_lock(&board_->mutex);
  Result<std::string> result = DeadlineExceeded("rendezvous: nobody gave " + key);
  while (true) {
    if (board_->over) {
      result = OverStatus();
      break;
    }
    if (const Entry* entry = board_->Find(key); entry != nullptr) {
      result = std::string(entry->value, entry->value_bytes);
      break;
    }
    const int64_t left_us = deadline_us - Clock::Real().NowUs();
    if (left_us <= 0) break;
    const timespec until = MonotonicAfter(left_us);
    pthread_cond_timedwait(&board_->changed, &board_->mutex, &until);
  }
  pthread_mutex_unlock(&board_->mutex);
  return result;
}

Status SharedRendezvous::ended() {
  pthread_mutex_lock(&board_->mutex);
  const bool over = board_->over;
  pthread_mutex_unlock(&board_->mutex);
  return over ? OverStatus() : OkStatus();
}

void SharedRendezvous::End() {
  pthread_mutex_lock(&board_->mutex);
  board_->over = true;
  pthread_cond_broadcast(&board_->changed);
  pthread_mutex_unlock(&board_->mutex);
}

}  // namespace muselet::testing
