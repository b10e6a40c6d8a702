#include "tests/comms/rank_members.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "tests/support/shared_rendezvous.h"

namespace muselet::testing {

int64_t SecondsFromNow(double seconds) {
  return Clock::Real().NowUs() + static_cast<int64_t>(seconds * 1e6);
}

int64_t Patience() {
  return SecondsFromNow(120);
}

Groups MakeMembers(const RankMaker& maker, uint32_t size, size_t message_bytes_max) {
  SharedRendezvous rendezvous;
  Groups groups(size);
  std::vector<std::thread> threads;
  for (uint32_t rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      auto made = maker.make({.name = "test",
                              .rank = rank,
                              .size = size,
                              .message_bytes_max = message_bytes_max,
                              .deadline_us = Patience()},
                             rendezvous);
      ASSERT_TRUE(made.ok()) << made.status().ToString();
      groups[rank] = std::move(*made);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return groups;
}

void OnMembers(const Groups& groups, const std::function<void(RankGroup&)>& body) {
  std::vector<std::thread> threads;
  for (const auto& group : groups) {
    ASSERT_NE(group, nullptr);
  }
  for (const auto& group : groups) threads.emplace_back([&] { body(*group); });
  for (std::thread& thread : threads) thread.join();
}

float TreeOf(const float* parts, size_t count) {
  if (count == 1) return parts[0];
  size_t left = 1;  // the largest power of two below the number of parts
  while (left * 2 < count) left *= 2;
  return TreeOf(parts, left) + TreeOf(parts + left, count - left);
}

std::vector<float> TouchyValues(uint32_t member, size_t count, uint32_t seed) {
  std::mt19937 random(seed * 1000 + member);
  std::vector<float> values(count);
  for (float& value : values) {
    const float mantissa = 1.0F + static_cast<float>(random() % 8'388'608) / 8'388'608.0F;
    const float sign = random() % 2 == 0 ? 1.0F : -1.0F;
    value = std::ldexp(sign * mantissa, static_cast<int>(random() % 24) - 12);
  }
  return values;
}

std::vector<std::byte> RandomBytes(uint32_t member, size_t count, uint32_t seed) {
  std::mt19937 random(seed * 1000 + member);
  std::vector<std::byte> bytes(count);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

}  // namespace muselet::testing
