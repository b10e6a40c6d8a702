// The two JSON texts of safetensors, read as a stream: published mixtures of experts list tens of
// thousands of tensors, and a document tree of those would cost more than the weights' headers.
// Duplicate names are found by the caller, which sorts them anyway.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace muselet {

// An entry of a safetensors header, as it claims to be.
struct SafetensorsClaim {
  std::string name;
  std::string dtype;
  uint32_t rank = 0;
  std::array<uint64_t, 4> shape = {1, 1, 1, 1};
  uint64_t begin = 0;  // byte offsets in the data section
  uint64_t end = 0;
};

// An entry of model.safetensors.index.json's weight_map.
struct ShardClaim {
  std::string tensor;
  std::string file;
};

// kDataLoss "name: field: problem" for anything but the format's JSON. `__metadata__` is checked
// and left out.
Result<std::vector<SafetensorsClaim>> ParseSafetensorsHeader(std::string_view text);
Result<std::vector<ShardClaim>> ParseSafetensorsIndex(std::string_view text);

}  // namespace muselet
