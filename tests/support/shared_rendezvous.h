// A rendezvous without a leader, for tests and measurements: values by key in memory that threads
// share, and processes that are forked after it was made. Holds up to 256 short values.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"
#include "comms/rank_rendezvous.h"

namespace muselet::testing {

// Any thread, any process forked from the one that made it. Owns its mapping.
class SharedRendezvous final : public RankRendezvous {
 public:
  SharedRendezvous();
  SharedRendezvous(const SharedRendezvous&) = delete;
  SharedRendezvous& operator=(const SharedRendezvous&) = delete;
  ~SharedRendezvous() override;

  // kResourceExhausted: too many or too long values; kInvalidArgument: the key has a value already.
  Status Put(const std::string& key, std::string value) override;
  Result<std::string> Get(const std::string& key, int64_t deadline_us) override;
  Status ended() override;
  // The epoch is over: every Get gives kUnavailable.
  void End();

 private:
  struct Board;
  Board* board_ = nullptr;
};

}  // namespace muselet::testing
