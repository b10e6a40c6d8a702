// The members of a rank group as threads of the test, for every maker that this machine has.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "comms/rank_group.h"
#include "comms/rank_group_makers.h"

namespace muselet::testing {

struct RankMaker {
  std::string name;
  std::function<Result<std::unique_ptr<RankGroup>>(const RankGroupSpec&, RankRendezvous&)> make;
  // Why so many members cannot be had here; "" if they can. Null: they always can.
  std::function<std::string(uint32_t size)> why_not = nullptr;
  bool keeps_sends = true;  // until their receiver asks; else a Send waits for it
};

// Those that the test program is about. comms_test: shared memory, and Gloo over 127.0.0.1.
const std::vector<RankMaker>& RankMakers();

// The monotonic time in so many seconds.
int64_t SecondsFromNow(double seconds);
// Long enough for whatever is going to happen, on a busy machine under a sanitizer.
int64_t Patience();

using Groups = std::vector<std::unique_ptr<RankGroup>>;

// All members of one group; a fault fails the test.
Groups MakeMembers(const RankMaker& maker, uint32_t size, size_t message_bytes_max = 64U << 20);
// Calls `body` for each member on a thread of its own, until all have returned.
void OnMembers(const Groups& groups, const std::function<void(RankGroup&)>& body);

// A tree over the members' values, written down independently of the product's.
float TreeOf(const float* parts, size_t count);

// Values of many magnitudes and both signs: their sum depends on its order. The same for the same
// arguments.
std::vector<float> TouchyValues(uint32_t member, size_t count, uint32_t seed);
std::vector<std::byte> RandomBytes(uint32_t member, size_t count, uint32_t seed);

}  // namespace muselet::testing
