#include "node/model/tensor_table.h"

#include <algorithm>
#include <numeric>

#include "node/model/file_fault.h"

namespace muselet {
namespace {

std::string ShapeText(const TensorSpec& spec) {
  std::string text = "[";
  for (uint32_t axis = 0; axis < spec.rank; ++axis) {
    text += (axis > 0 ? ", " : "") + std::to_string(spec.shape[axis]);
  }
  return text + "]";
}

// Entries of the outermost axis. REQUIRES: each is whole blocks, or the dtype is plain.
TensorView PartOf(const TensorView& whole, const TensorPart& part) {
  const DTypeTraits traits = Traits(whole.dtype);
  const uint64_t values = whole.count() / whole.shape[0];
  TensorView view = whole;
  view.data += part.begin * values / traits.block_values * traits.block_bytes;
  view.shape[0] = part.count;
  if (whole.rank < 3) return view;
  view.rank = 2;
  view.shape = {whole.shape[1], whole.shape[2], 1, 1};
  return view;
}

}  // namespace

Result<TensorTable> TensorTable::Match(const std::string& path, std::vector<TensorSpec> specs,
                                       std::vector<FileTensor> file,
                                       bool (*ignored)(std::string_view)) {
  std::sort(specs.begin(), specs.end(),
            [](const TensorSpec& a, const TensorSpec& b) { return a.name < b.name; });
  std::vector<bool> found(specs.size(), false);
  TensorTable table;
  table.path_ = path;
  for (const FileTensor& tensor : file) {
    const auto spec = std::lower_bound(
        specs.begin(), specs.end(), tensor.name,
        [](const TensorSpec& a, std::string_view wanted) { return a.name < wanted; });
    if (spec == specs.end() || spec->name != tensor.name) {
      if (ignored(tensor.name)) continue;
      return BadField(path, tensor.name, "the config has no use for this tensor");
    }
    if (tensor.view.rank != spec->rank || tensor.view.shape != spec->shape) {
      return LyingFile(path, tensor.name,
                       tensor.view.ToString() + ", the config asks for " + ShapeText(*spec));
    }
    found[spec - specs.begin()] = true;
    table.Add(*spec, tensor.view);
  }
  const auto missing = std::find(found.begin(), found.end(), false);
  if (missing != found.end()) {
    return LyingFile(path, specs[missing - found.begin()].name, "the tensor is missing");
  }
  table.by_name_.resize(table.names_.size());
  std::iota(table.by_name_.begin(), table.by_name_.end(), 0U);
  std::sort(table.by_name_.begin(), table.by_name_.end(),
            [&](uint32_t a, uint32_t b) { return table.names_[a] < table.names_[b]; });
  return table;
}

void TensorTable::Add(const TensorSpec& spec, const TensorView& view) {
  if (spec.parts.empty()) {
    names_.push_back(spec.canonical);
    views_.push_back(view);
    return;
  }
  for (const TensorPart& part : spec.parts) {
    names_.push_back(part.canonical);
    views_.push_back(PartOf(view, part));
  }
}

Result<TensorView> TensorTable::Find(std::string_view canonical) const {
  const auto found =
      std::lower_bound(by_name_.begin(), by_name_.end(), canonical,
                       [&](uint32_t i, std::string_view wanted) { return names_[i] < wanted; });
  if (found == by_name_.end() || names_[*found] != canonical) {
    return NotFound(path_ + ": " + Printable(canonical) + ": the checkpoint has no such tensor");
  }
  return views_[*found];
}

std::vector<std::string> TensorTable::Names() const {
  return names_;
}

}  // namespace muselet
