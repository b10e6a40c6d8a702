#include "node/model/gguf_parser.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <numeric>
#include <optional>

#include "node/model/file_fault.h"

namespace muselet {
namespace {

constexpr size_t kKeyBytesMax = 65535;      // docs/gguf.md
constexpr size_t kTensorNameBytesMax = 64;  // docs/gguf.md
constexpr uint64_t kEntryBytesMin = 8 + 1 + 4 + 1;
constexpr uint64_t kTensorBytesMin = 8 + 1 + 4 + 8 + 4 + 8;
constexpr uint64_t kAlignmentMin = 8;  // docs/gguf.md; f32 data is read in place
constexpr uint64_t kAlignmentMax = uint64_t{1} << 30;
constexpr std::string_view kSupported =
    "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K and Q6_K are";

struct TensorType {
  uint32_t number;
  std::string_view name;
  std::optional<DType> dtype;  // nothing: known, but not supported
};
constexpr std::array<TensorType, 37> kTensorTypes = {{
    {0, "F32", DType::kF32},
    {1, "F16", DType::kF16},
    {2, "Q4_0", DType::kQ4_0},
    {3, "Q4_1", DType::kQ4_1},
    {6, "Q5_0", DType::kQ5_0},
    {7, "Q5_1", DType::kQ5_1},
    {8, "Q8_0", DType::kQ8_0},
    {9, "Q8_1", {}},
    {10, "Q2_K", {}},
    {11, "Q3_K", {}},
    {12, "Q4_K", DType::kQ4_K},
    {13, "Q5_K", DType::kQ5_K},
    {14, "Q6_K", DType::kQ6_K},
    {15, "Q8_K", {}},
    {16, "IQ2_XXS", {}},
    {17, "IQ2_XS", {}},
    {18, "IQ3_XXS", {}},
    {19, "IQ1_S", {}},
    {20, "IQ4_NL", {}},
    {21, "IQ3_S", {}},
    {22, "IQ2_S", {}},
    {23, "IQ4_XS", {}},
    {24, "I8", {}},
    {25, "I16", {}},
    {26, "I32", {}},
    {27, "I64", {}},
    {28, "F64", {}},
    {29, "IQ1_M", {}},
    {30, "BF16", DType::kBF16},
    {31, "Q4_0_4_4", {}},
    {32, "Q4_0_4_8", {}},
    {33, "Q4_0_8_8", {}},
    {34, "TQ1_0", {}},
    {35, "TQ2_0", {}},
    {36, "IQ4_NL_4_4", {}},
    {39, "MXFP4", {}},
    {40, "NVFP4", {}},
}};

// 0 for strings and arrays, whose size is not fixed.
uint64_t ElementBytes(GgufType type) {
  switch (type) {
    case GgufType::kUint8:
    case GgufType::kInt8:
    case GgufType::kBool:
      return 1;
    case GgufType::kUint16:
    case GgufType::kInt16:
      return 2;
    case GgufType::kUint32:
    case GgufType::kInt32:
    case GgufType::kFloat32:
      return 4;
    case GgufType::kUint64:
    case GgufType::kInt64:
    case GgufType::kFloat64:
      return 8;
    case GgufType::kString:
    case GgufType::kArray:
      return 0;
  }
  return 0;
}

bool IsKnown(uint32_t type) {
  return type <= static_cast<uint32_t>(GgufType::kFloat64);
}

Result<DType> DTypeOf(uint32_t number, std::string_view path, std::string_view tensor) {
  const auto* found = std::find_if(kTensorTypes.begin(), kTensorTypes.end(),
                                   [&](const TensorType& type) { return type.number == number; });
  if (found == kTensorTypes.end()) {
    return LyingFile(path, tensor, "unknown tensor type " + std::to_string(number));
  }
  if (!found->dtype) {
    return BadField(path, tensor,
                    "tensor type " + std::string(found->name) + " is not supported (" +
                        std::string(kSupported) + ")");
  }
  return *found->dtype;
}

// Indices sorted by the name that `name_of(index)` gives; the first name that stands twice, if any.
template <typename NameOf>
std::optional<std::string_view> SortByName(size_t count, NameOf name_of,
                                           std::vector<uint32_t>& order) {
  order.resize(count);
  std::iota(order.begin(), order.end(), 0U);
  std::sort(order.begin(), order.end(),
            [&](uint32_t a, uint32_t b) { return name_of(a) < name_of(b); });
  const auto twin = std::adjacent_find(
      order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return name_of(a) == name_of(b); });
  if (twin == order.end()) return std::nullopt;
  return name_of(*twin);
}

}  // namespace

Status GgufParser::Lying(std::string_view field, std::string_view problem) const {
  return LyingFile(path_, field, problem);
}

template <typename T>
Result<T> GgufParser::Read(std::string_view field) {
  auto value = reader_.Read<T>(Printable(field));
  if (!value.ok()) return value.status().WithContext(path_);
  return value;
}

Result<std::string_view> GgufParser::ReadName(std::string_view field, size_t length_max) {
  ASSIGN_OR_RETURN(const uint64_t length, Read<uint64_t>(field));
  if (length == 0 || length > length_max) {
    return Lying(
        field, "length " + std::to_string(length) + ", must be 1 to " + std::to_string(length_max));
  }
  auto name = reader_.TakeString(length, field);
  if (!name.ok()) return name.status().WithContext(path_);
  return name;
}

Status GgufParser::Parse() {
  RETURN_IF_ERROR(ReadPreamble());
  RETURN_IF_ERROR(ReadEntries());
  RETURN_IF_ERROR(ReadTensors());
  RETURN_IF_ERROR(IndexNames());
  RETURN_IF_ERROR(ReadAlignment());
  return PlaceTensors();
}

Status GgufParser::ReadPreamble() {
  const auto magic = reader_.TakeString(4, "magic");
  if (!magic.ok() || *magic != "GGUF") {
    return InvalidArgument(path_ + ": not a GGUF file (it does not begin with \"GGUF\")");
  }
  ASSIGN_OR_RETURN(out_.version_, Read<uint32_t>("version"));
  if (out_.version_ == 0x02000000 || out_.version_ == 0x03000000) {
    return BadField(path_, "version", "a big-endian file; convert it to little-endian");
  }
  if (out_.version_ != 2 && out_.version_ != 3) {
    return BadField(path_, "version",
                    std::to_string(out_.version_) + " is not supported (2 and 3 are)");
  }
  ASSIGN_OR_RETURN(tensor_count_, Read<uint64_t>("tensor_count"));
  ASSIGN_OR_RETURN(entry_count_, Read<uint64_t>("metadata_kv_count"));
  if (tensor_count_ > reader_.remaining() / kTensorBytesMin) {
    return Lying("tensor_count",
                 std::to_string(tensor_count_) + " tensors do not fit into the file");
  }
  if (entry_count_ > reader_.remaining() / kEntryBytesMin) {
    return Lying("metadata_kv_count",
                 std::to_string(entry_count_) + " entries do not fit into the file");
  }
  return OkStatus();
}

Status GgufParser::ReadEntries() {
  for (uint64_t i = 0; i < entry_count_; ++i) {
    ASSIGN_OR_RETURN(const GgufEntry entry, ReadEntry());
    out_.entries_.push_back(entry);
  }
  return OkStatus();
}

Result<GgufEntry> GgufParser::ReadEntry() {
  GgufEntry entry;
  ASSIGN_OR_RETURN(entry.key, ReadName("metadata key", kKeyBytesMax));
  ASSIGN_OR_RETURN(const uint32_t type, Read<uint32_t>(entry.key));
  if (!IsKnown(type)) return Lying(entry.key, "unknown value type " + std::to_string(type));
  entry.type = entry.element_type = static_cast<GgufType>(type);
  if (entry.type == GgufType::kArray) RETURN_IF_ERROR(ReadArray(entry));
  RETURN_IF_ERROR(ReadValue(entry));
  return entry;
}

Status GgufParser::ReadArray(GgufEntry& entry) {
  ASSIGN_OR_RETURN(const uint32_t type, Read<uint32_t>(entry.key));
  if (!IsKnown(type)) return Lying(entry.key, "unknown element type " + std::to_string(type));
  entry.element_type = static_cast<GgufType>(type);
  if (entry.element_type == GgufType::kArray) {
    return BadField(path_, entry.key, "arrays of arrays are not supported");
  }
  ASSIGN_OR_RETURN(entry.count, Read<uint64_t>(entry.key));
  return OkStatus();
}

Status GgufParser::ReadValue(GgufEntry& entry) {
  const size_t begin = reader_.offset();
  RETURN_IF_ERROR(SkipElements(entry.element_type, entry.count, entry.key));
  entry.payload = out_.file_.bytes().subspan(begin, reader_.offset() - begin);
  if (entry.element_type == GgufType::kBool) {
    for (const std::byte value : entry.payload) {
      if (std::to_integer<uint32_t>(value) > 1)
        return Lying(entry.key, "a bool is neither 0 nor 1");
    }
  }
  return OkStatus();
}

Status GgufParser::SkipElements(GgufType type, uint64_t count, std::string_view key) {
  const uint64_t size = ElementBytes(type);
  if (size > 0) {
    if (count > reader_.remaining() / size) {
      return Lying(key, std::to_string(count) + " elements do not fit into the file");
    }
    return reader_.Take(count * size, key).status();
  }
  for (uint64_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(const uint64_t length, Read<uint64_t>(key));
    const auto text = reader_.Take(length, Printable(key));
    if (!text.ok()) return text.status().WithContext(path_);
  }
  return OkStatus();
}

Status GgufParser::ReadAlignment() {
  constexpr std::string_view kKey = "general.alignment";
  if (!out_.Has(kKey)) return OkStatus();
  ASSIGN_OR_RETURN(alignment_, out_.Uint(kKey));
  const bool power_of_two = alignment_ != 0 && (alignment_ & (alignment_ - 1)) == 0;
  if (!power_of_two || alignment_ < kAlignmentMin || alignment_ > kAlignmentMax) {
    return Lying(kKey, std::to_string(alignment_) + " is not a power of two from 8 to 2^30");
  }
  return OkStatus();
}

Status GgufParser::ReadTensors() {
  for (uint64_t i = 0; i < tensor_count_; ++i) {
    ASSIGN_OR_RETURN(const GgufTensor tensor, ReadTensor());
    out_.tensors_.push_back(tensor);
  }
  out_.header_bytes_ = reader_.offset();
  return OkStatus();
}

Result<GgufTensor> GgufParser::ReadTensor() {
  GgufTensor tensor;
  ASSIGN_OR_RETURN(tensor.name, ReadName("tensor name", kTensorNameBytesMax));
  RETURN_IF_ERROR(ReadShape(tensor.view, tensor.name));
  ASSIGN_OR_RETURN(const uint32_t type, Read<uint32_t>(tensor.name));
  ASSIGN_OR_RETURN(tensor.view.dtype, DTypeOf(type, path_, tensor.name));
  const DTypeTraits traits = Traits(tensor.view.dtype);
  const uint64_t row = tensor.view.shape[tensor.view.rank - 1];
  if (row % traits.block_values != 0) {
    return Lying(tensor.name, "rows of " + std::to_string(row) +
                                  " values are not whole blocks of " + std::string(traits.name));
  }
  ASSIGN_OR_RETURN(const uint64_t offset, Read<uint64_t>(tensor.name));
  offsets_.push_back(offset);
  return tensor;
}

Status GgufParser::ReadShape(TensorView& view, std::string_view name) {
  ASSIGN_OR_RETURN(view.rank, Read<uint32_t>(name));
  if (view.rank < 1 || view.rank > view.shape.size()) {
    return Lying(name, std::to_string(view.rank) + " dimensions, must be 1 to 4");
  }
  // No format takes less than half a byte a value, and the file ends.
  uint64_t budget = 2 * out_.file_.bytes().size();
  for (uint32_t i = 0; i < view.rank; ++i) {
    ASSIGN_OR_RETURN(const uint64_t size, Read<uint64_t>(name));
    if (size == 0) return Lying(name, "a dimension is 0");
    if (size > budget) {
      return Lying(name, "dimension " + std::to_string(size) + " is more than the file can hold");
    }
    budget /= size;
    view.shape[view.rank - 1 - i] = size;
  }
  return OkStatus();
}

Status GgufParser::PlaceTensors() {
  const std::span<const std::byte> file = out_.file_.bytes();
  const uint64_t data_begin = (out_.header_bytes_ + alignment_ - 1) / alignment_ * alignment_;
  const uint64_t data_bytes = data_begin < file.size() ? file.size() - data_begin : 0;
  for (size_t i = 0; i < offsets_.size(); ++i) {
    GgufTensor& tensor = out_.tensors_[i];
    if (offsets_[i] % alignment_ != 0) {
      return Lying(tensor.name, "offset " + std::to_string(offsets_[i]) + " is not a multiple of " +
                                    std::to_string(alignment_));
    }
    if (offsets_[i] > data_bytes || tensor.view.bytes() > data_bytes - offsets_[i]) {
      return Lying(tensor.name, std::to_string(tensor.view.bytes()) + " bytes at offset " +
                                    std::to_string(offsets_[i]) + ", but the file has " +
                                    std::to_string(data_bytes) + " bytes of tensor data");
    }
    tensor.view.data = file.data() + data_begin + offsets_[i];
  }
  std::vector<uint32_t> order(offsets_.size());
  std::iota(order.begin(), order.end(), 0U);
  std::sort(order.begin(), order.end(),
            [&](uint32_t a, uint32_t b) { return offsets_[a] < offsets_[b]; });
  for (size_t i = 1; i < order.size(); ++i) {
    const GgufTensor& before = out_.tensors_[order[i - 1]];
    const GgufTensor& after = out_.tensors_[order[i]];
    if (before.view.data + before.view.bytes() > after.view.data) {
      return Lying(after.name, "overlaps tensor " + Printable(before.name));
    }
  }
  return OkStatus();
}

Status GgufParser::IndexNames() {
  const auto key = SortByName(
      out_.entries_.size(), [&](uint32_t i) { return out_.entries_[i].key; }, out_.entries_by_key_);
  if (key) return Lying(*key, "the metadata key stands twice");
  const auto name = SortByName(
      out_.tensors_.size(), [&](uint32_t i) { return out_.tensors_[i].name; },
      out_.tensors_by_name_);
  if (name) return Lying(*name, "the tensor stands twice");
  return OkStatus();
}

}  // namespace muselet
