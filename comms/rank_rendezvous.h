// How the members of a group that is being made find each other: values by key, seen by all of one
// epoch. Behind it stands the connection of each rank to its leader; tests use one in the process.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"

namespace muselet {

// Any thread. Keys are written once an epoch. `deadline_us` is of the monotonic clock.
class RankRendezvous {
 public:
  virtual ~RankRendezvous() = default;
  virtual Status Put(const std::string& key, std::string value) = 0;
  // Waits for the value. kDeadlineExceeded naming the key; kUnavailable: the epoch is over.
  virtual Result<std::string> Get(const std::string& key, int64_t deadline_us) = 0;
  // OK while the epoch goes on, then kUnavailable with the reason for ever. Never waits: those who
  // wait for other things than a value look here every now and then.
  virtual Status ended() = 0;
};

}  // namespace muselet
