// Writes small safetensors files and Hugging Face directories for tests.
#pragma once

#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tests/node/model/model_files.h"

namespace muselet::testing {

struct FloatTensor {
  std::vector<uint64_t> shape;
  std::vector<float> values;
};
using FloatTensors = std::map<std::string, FloatTensor>;

// The bytes of a file that holds the tensors as F32.
inline std::string SafetensorsBytes(const FloatTensors& tensors) {
  std::string header = "{";
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    std::string shape;
    for (const uint64_t size : tensor.shape) {
      shape += (shape.empty() ? "" : ",") + std::to_string(size);
    }
    const size_t begin = data.size();
    data.append(reinterpret_cast<const char*>(tensor.values.data()), tensor.values.size() * 4);
    if (header.size() > 1) header += ",";
    header += "\"" + name + R"(":{"dtype":"F32","shape":[)" + shape + R"(],"data_offsets":[)" +
              std::to_string(begin) + "," + std::to_string(data.size()) + "]}";
  }
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  std::string bytes;
  AppendNumber<uint64_t>(header.size(), bytes);
  return bytes + header + data;
}

// A text for model.safetensors.index.json: which tensor stands in which file.
inline std::string IndexJson(const std::vector<std::pair<std::string, std::string>>& entries) {
  std::string text;
  for (const auto& [tensor, file] : entries) {
    text += (text.empty() ? "\"" : ",\"") + tensor + "\":\"" + file + "\"";
  }
  return R"({"metadata":{"total_size":1},"weight_map":{)" + text + "}}";
}

}  // namespace muselet::testing
