// The tensors of a checkpoint by canonical name, after each was compared with what the config asks
// for.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/device/tensor.h"
#include "base/status.h"

namespace muselet {

// Whose names a checkpoint uses for its tensors.
enum class TensorNaming : uint8_t { kHuggingFace, kGguf };

// What a tensor holds under one canonical name: entries [begin, begin + count) of its outermost
// axis. Of a tensor of rank 3 it is one matrix.
struct TensorPart {
  std::string canonical;
  uint64_t begin = 0;
  uint64_t count = 0;
};

// A tensor that a config asks for.
struct TensorSpec {
  std::string canonical;  // node/model/checkpoint.h
  std::string name;       // in the checkpoint's own terms
  uint32_t rank = 1;
  std::array<uint64_t, 4> shape = {1, 1, 1, 1};  // outermost first
  std::vector<TensorPart> parts;                 // if not empty, they stand for the whole
};

// A tensor that a file has. The name is viewed.
struct FileTensor {
  std::string_view name;
  TensorView view;
};

class TensorTable {
 public:
  // kDataLoss "path: tensor: problem" if a tensor of `specs` is missing or has another shape,
  // kInvalidArgument if the file has one that neither `specs` nor `ignored` knows: a model computed
  // without some of its weights gives wrong answers silently. REQUIRES: names in `file` differ.
  static Result<TensorTable> Match(const std::string& path, std::vector<TensorSpec> specs,
                                   std::vector<FileTensor> file, bool (*ignored)(std::string_view));

  // kNotFound naming the tensor.
  Result<TensorView> Find(std::string_view canonical) const;
  std::vector<std::string> Names() const;  // canonical, in file order; parts one by one
  std::span<const TensorView> views() const { return views_; }  // in file order

 private:
  void Add(const TensorSpec& spec, const TensorView& view);

  std::string path_;
  std::vector<std::string> names_;  // canonical, in file order
  std::vector<TensorView> views_;
  std::vector<uint32_t> by_name_;  // indices, sorted by canonical name
};

}  // namespace muselet
