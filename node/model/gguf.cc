#include "node/model/gguf.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/byte_io.h"
#include "node/model/file_fault.h"
#include "node/model/gguf_parser.h"

namespace muselet {
namespace {

std::string_view TypeName(GgufType type) {
  constexpr std::string_view kNames[] = {"uint8",  "int8",    "uint16", "int16",  "uint32",
                                         "int32",  "float32", "bool",   "string", "array",
                                         "uint64", "int64",   "float64"};
  return kNames[static_cast<uint32_t>(type)];
}

template <typename T>
T Load(const std::byte* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

// Sign and magnitude hold every integer type.
struct Integer {
  bool negative = false;
  uint64_t magnitude = 0;
};

template <typename T>
Integer LoadInteger(const std::byte* bytes) {
  const T value = Load<T>(bytes);
  if constexpr (std::is_signed_v<T>) {
    if (value < 0) return {true, uint64_t{0} - static_cast<uint64_t>(int64_t{value})};
  }
  return {false, static_cast<uint64_t>(value)};
}

// The integer at `index`, or nothing if the elements are of another kind.
std::optional<Integer> IntegerAt(const GgufEntry& entry, uint64_t index) {
  const std::byte* base = entry.payload.data();
  switch (entry.element_type) {
    case GgufType::kUint8:
      return LoadInteger<uint8_t>(base + index);
    case GgufType::kInt8:
      return LoadInteger<int8_t>(base + index);
    case GgufType::kUint16:
      return LoadInteger<uint16_t>(base + 2 * index);
    case GgufType::kInt16:
      return LoadInteger<int16_t>(base + 2 * index);
    case GgufType::kUint32:
      return LoadInteger<uint32_t>(base + 4 * index);
    case GgufType::kInt32:
      return LoadInteger<int32_t>(base + 4 * index);
    case GgufType::kUint64:
      return LoadInteger<uint64_t>(base + 8 * index);
    case GgufType::kInt64:
      return LoadInteger<int64_t>(base + 8 * index);
    default:
      return std::nullopt;
  }
}

bool IsString(const GgufEntry& entry) {
  return entry.element_type == GgufType::kString;
}

std::string Expected(std::string_view wanted, const GgufEntry& entry) {
  std::string text =
      "expected " + std::string(wanted) + ", got " + std::string(TypeName(entry.type));
  if (entry.type == GgufType::kArray) text += " of " + std::string(TypeName(entry.element_type));
  return text;
}

}  // namespace

Result<GgufFile> GgufFile::Open(const std::string& path) {
  ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  GgufFile gguf(std::move(file));
  RETURN_IF_ERROR(GgufParser(gguf).Parse());
  return gguf;
}

const GgufEntry* GgufFile::Find(std::string_view key) const {
  const auto found = std::lower_bound(
      entries_by_key_.begin(), entries_by_key_.end(), key,
      [&](uint32_t i, std::string_view wanted) { return entries_[i].key < wanted; });
  if (found == entries_by_key_.end() || entries_[*found].key != key) return nullptr;
  return &entries_[*found];
}

const GgufTensor* GgufFile::FindTensor(std::string_view name) const {
  const auto found = std::lower_bound(
      tensors_by_name_.begin(), tensors_by_name_.end(), name,
      [&](uint32_t i, std::string_view wanted) { return tensors_[i].name < wanted; });
  if (found == tensors_by_name_.end() || tensors_[*found].name != name) return nullptr;
  return &tensors_[*found];
}

Status GgufFile::Fault(std::string_view key, std::string_view problem) const {
  return BadField(path(), key, problem);
}

Result<const GgufEntry*> GgufFile::Need(std::string_view key) const {
  const GgufEntry* entry = Find(key);
  if (entry == nullptr) return NotFound(path() + ": " + Printable(key) + ": missing");
  return entry;
}

Result<std::string_view> GgufFile::String(std::string_view key) const {
  ASSIGN_OR_RETURN(const GgufEntry* entry, Need(key));
  if (entry->type != GgufType::kString) return Fault(key, Expected("a string", *entry));
  // The payload is the 64-bit length and the bytes.
  const auto text = entry->payload.subspan(sizeof(uint64_t));
  return std::string_view(reinterpret_cast<const char*>(text.data()), text.size());
}

Result<uint64_t> GgufFile::Uint(std::string_view key) const {
  ASSIGN_OR_RETURN(const GgufEntry* entry, Need(key));
  const auto value = entry->type == GgufType::kArray ? std::nullopt : IntegerAt(*entry, 0);
  if (!value) return Fault(key, Expected("an integer", *entry));
  if (value->negative) {
    return Fault(key, "-" + std::to_string(value->magnitude) + ", must not be negative");
  }
  return value->magnitude;
}

Result<int64_t> GgufFile::Int(std::string_view key) const {
  ASSIGN_OR_RETURN(const GgufEntry* entry, Need(key));
  const auto value = entry->type == GgufType::kArray ? std::nullopt : IntegerAt(*entry, 0);
  if (!value) return Fault(key, Expected("an integer", *entry));
  if (value->negative) return static_cast<int64_t>(uint64_t{0} - value->magnitude);
  if (value->magnitude > uint64_t{INT64_MAX}) {
    return Fault(key, std::to_string(value->magnitude) + " is too large");
  }
  return static_cast<int64_t>(value->magnitude);
}

Result<double> GgufFile::Float(std::string_view key) const {
  ASSIGN_OR_RETURN(const GgufEntry* entry, Need(key));
  if (entry->type == GgufType::kFloat32) return double{Load<float>(entry->payload.data())};
  if (entry->type == GgufType::kFloat64) return Load<double>(entry->payload.data());
  return Fault(key, Expected("a float", *entry));
}

Result<bool> GgufFile::Bool(std::string_view key) const {
  ASSIGN_OR_RETURN(const GgufEntry* entry, Need(key));
  if (entry->type != GgufType::kBool) return Fault(key, Expected("a bool", *entry));
  return entry->payload[0] != std::byte{0};
}

Result<std::vector<std::string_view>> GgufFile::StringArray(std::string_view key) const {
  ASSIGN_OR_RETURN(const GgufEntry* entry, Need(key));
  if (entry->type != GgufType::kArray || !IsString(*entry)) {
    return Fault(key, Expected("an array of strings", *entry));
  }
  std::vector<std::string_view> values;
  values.reserve(entry->count);  // each took 8 bytes of the file: Open counted them
  ByteReader reader(entry->payload);
  for (uint64_t i = 0; i < entry->count; ++i) {
    ASSIGN_OR_RETURN(const uint64_t length, reader.Read<uint64_t>(key));
    ASSIGN_OR_RETURN(const std::string_view text, reader.TakeString(length, key));
    values.push_back(text);
  }
  return values;
}

Result<std::vector<float>> GgufFile::FloatArray(std::string_view key) const {
  ASSIGN_OR_RETURN(const GgufEntry* entry, Need(key));
  if (entry->type != GgufType::kArray || entry->element_type != GgufType::kFloat32) {
    return Fault(key, Expected("an array of float32", *entry));
  }
  std::vector<float> values(entry->count);
  if (!values.empty()) std::memcpy(values.data(), entry->payload.data(), entry->payload.size());
  return values;
}

Result<std::vector<int32_t>> GgufFile::IntArray(std::string_view key) const {
  ASSIGN_OR_RETURN(const GgufEntry* entry, Need(key));
  const bool integers =
      entry->type == GgufType::kArray && (entry->count == 0 || IntegerAt(*entry, 0).has_value());
  if (!integers) return Fault(key, Expected("an array of integers", *entry));
  std::vector<int32_t> values(entry->count);
  for (uint64_t i = 0; i < entry->count; ++i) {
    const Integer value = *IntegerAt(*entry, i);
    if (value.magnitude > uint64_t{INT32_MAX} + (value.negative ? 1 : 0)) {
      return Fault(key, "element " + std::to_string(i) + " does not fit into 32 bits");
    }
    const auto magnitude = static_cast<int64_t>(value.magnitude);
    values[i] = static_cast<int32_t>(value.negative ? -magnitude : magnitude);
  }
  return values;
}

Result<std::string_view> GgufFile::StringOr(std::string_view key, std::string_view fallback) const {
  return Has(key) ? String(key) : Result<std::string_view>(fallback);
}

Result<uint64_t> GgufFile::UintOr(std::string_view key, uint64_t fallback) const {
  return Has(key) ? Uint(key) : Result<uint64_t>(fallback);
}

Result<double> GgufFile::FloatOr(std::string_view key, double fallback) const {
  return Has(key) ? Float(key) : Result<double>(fallback);
}

Result<bool> GgufFile::BoolOr(std::string_view key, bool fallback) const {
  return Has(key) ? Bool(key) : Result<bool>(fallback);
}

}  // namespace muselet
