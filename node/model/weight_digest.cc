#include "node/model/weight_digest.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>

#include "base/check.h"

namespace muselet {
namespace {

constexpr uint64_t kSampleBytes = 1024;
constexpr uint64_t kSamples = 4;

XXH3_state_t* State(void* state) {
  return static_cast<XXH3_state_t*>(state);
}

}  // namespace

WeightDigest::WeightDigest() : state_(XXH3_createState()) {
  CHECK(state_ != nullptr, "out of memory");
  XXH3_128bits_reset(State(state_));
}

WeightDigest::~WeightDigest() {
  XXH3_freeState(State(state_));
}

void WeightDigest::Add(std::span<const std::byte> bytes) {
  // The length separates neighbours.
  const uint64_t size = bytes.size();
  XXH3_128bits_update(State(state_), &size, sizeof(size));
  XXH3_128bits_update(State(state_), bytes.data(), bytes.size());
}

void WeightDigest::Add(std::string_view text) {
  Add(std::as_bytes(std::span(text)));
}

void WeightDigest::AddTensor(std::string_view name, const TensorView& tensor) {
  Add(name);
  Add(tensor.ToString());
  const std::span<const std::byte> bytes(tensor.data, tensor.bytes());
  const uint64_t size = std::min<uint64_t>(kSampleBytes, bytes.size());
  for (uint64_t i = 0; i < kSamples; ++i) {
    const uint64_t begin = (bytes.size() - size) / (kSamples - 1) * i;
    const bool last = i + 1 == kSamples;
    Add(bytes.subspan(last ? bytes.size() - size : begin, size));
  }
}

std::string WeightDigest::Hex() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(State(state_));
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

}  // namespace muselet
