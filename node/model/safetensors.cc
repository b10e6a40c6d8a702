#include "node/model/safetensors.h"

#include <algorithm>
#include <numeric>

#include "base/byte_io.h"
#include "node/model/file_fault.h"
#include "node/model/safetensors_json.h"

namespace muselet {
namespace {

constexpr uint64_t kHeaderBytesMax = 100'000'000;  // the reference implementation's limit
constexpr size_t kIndexBytesMax = 100'000'000;

Result<DType> DTypeOf(const SafetensorsClaim& claim, const std::string& path) {
  if (claim.dtype == "F32") return DType::kF32;
  if (claim.dtype == "F16") return DType::kF16;
  if (claim.dtype == "BF16") return DType::kBF16;
  return BadField(path, claim.name,
                  "dtype " + Printable(claim.dtype) + " is not supported (F32, F16 and BF16 are)");
}

// The bytes that shape and dtype ask for; kDataLoss if that overflows.
Result<uint64_t> ByteCount(const SafetensorsClaim& claim, DType dtype) {
  uint64_t count = Traits(dtype).block_bytes;
  for (const uint64_t size : claim.shape) {
    ASSIGN_OR_RETURN(count, CheckedMultiply(count, size, "shape"));
  }
  return count;
}

// Checks one claim, which must begin where the one before it ended.
Result<TensorView> Place(const SafetensorsClaim& claim, std::span<const std::byte> data,
                         uint64_t expected_begin, const std::string& path) {
  ASSIGN_OR_RETURN(const DType dtype, DTypeOf(claim, path));
  if (claim.begin != expected_begin) {
    return LyingFile(path, claim.name,
                     "begins at byte " + std::to_string(claim.begin) +
                         ", the tensor before it ends at " + std::to_string(expected_begin) +
                         " (holes and overlaps are not allowed)");
  }
  if (claim.end < claim.begin || claim.end > data.size()) {
    return LyingFile(path, claim.name,
                     "data_offsets end at " + std::to_string(claim.end) + ", the file has " +
                         std::to_string(data.size()) + " bytes of tensor data");
  }
  const auto bytes = ByteCount(claim, dtype);
  if (!bytes.ok() || *bytes != claim.end - claim.begin) {
    return LyingFile(path, claim.name,
                     "shape and dtype do not match the " + std::to_string(claim.end - claim.begin) +
                         " bytes of data_offsets");
  }
  TensorView view{data.data() + claim.begin, dtype, claim.rank, claim.shape};
  if (reinterpret_cast<uintptr_t>(view.data) % Traits(dtype).block_bytes != 0) {
    return BadField(path, claim.name,
                    "data is not aligned to its element size; save the file again with "
                    "safetensors 0.3 or later");
  }
  return view;
}

Status CheckShardName(const std::string& name, const std::string& index_path) {
  const bool inside = !name.empty() && name != "." && name.find("..") == std::string::npos &&
                      name.find('/') == std::string::npos && name.find('\\') == std::string::npos &&
                      name.find('\0') == std::string::npos;
  if (inside) return OkStatus();
  return BadField(index_path, "weight_map",
                  "\"" + Printable(name) + "\" is not a file name in the model's directory");
}

}  // namespace

Result<Safetensors> Safetensors::OpenFile(const std::string& path) {
  Safetensors weights;
  RETURN_IF_ERROR(weights.Add(path));
  RETURN_IF_ERROR(weights.IndexNames());
  return weights;
}

Result<Safetensors> Safetensors::OpenDirectory(const std::string& directory) {
  const std::string single = directory + "/model.safetensors";
  const std::string index = single + ".index.json";
  if (IsPresent(single)) return OpenFile(single);
  if (!IsPresent(index)) {
    return NotFound(directory +
                    ": has no model.safetensors and no model.safetensors.index.json; download the "
                    "safetensors weights of the model");
  }
  Safetensors weights;
  RETURN_IF_ERROR(weights.AddShards(index, directory));
  return weights;
}

Status Safetensors::AddShards(const std::string& index_path, const std::string& directory) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(index_path, kIndexBytesMax));
  auto claims = ParseSafetensorsIndex(text);
  if (!claims.ok()) return claims.status().WithContext(index_path);
  if (claims->empty()) return BadField(index_path, "weight_map", "missing or empty");
  std::vector<std::string> names;
  for (const ShardClaim& claim : *claims) {
    RETURN_IF_ERROR(CheckShardName(claim.file, index_path));
    names.push_back(claim.file);
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  for (const std::string& name : names) RETURN_IF_ERROR(Add(directory + "/" + name));
  RETURN_IF_ERROR(IndexNames());
  std::sort(claims->begin(), claims->end(),
            [](const ShardClaim& a, const ShardClaim& b) { return a.tensor < b.tensor; });
  for (size_t i = 0; i < claims->size(); ++i) {
    const ShardClaim& claim = (*claims)[i];
    if (i > 0 && claim.tensor == (*claims)[i - 1].tensor) {
      return LyingFile(index_path, claim.tensor, "stands twice in weight_map");
    }
    const SafetensorsTensor* tensor = Find(claim.tensor);
    if (tensor == nullptr || !files_[tensor->file].path().ends_with("/" + claim.file)) {
      return LyingFile(index_path, claim.tensor, "is not in " + Printable(claim.file));
    }
  }
  return OkStatus();
}

Status Safetensors::Add(const std::string& path) {
  ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  ByteReader reader(file.bytes());
  const auto length = reader.Read<uint64_t>("header length");
  if (!length.ok()) return length.status().WithContext(path);
  if (*length > kHeaderBytesMax) {
    return LyingFile(path, "header length",
                     std::to_string(*length) + " bytes, the limit is 100000000");
  }
  const auto text = reader.TakeString(*length, "header");
  if (!text.ok()) return text.status().WithContext(path);
  auto claims = ParseSafetensorsHeader(*text);
  if (!claims.ok()) return claims.status().WithContext(path);
  std::sort(claims->begin(), claims->end(), [](const auto& a, const auto& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  const std::span<const std::byte> data = file.bytes().subspan(reader.offset());
  uint64_t end = 0;
  for (SafetensorsClaim& claim : *claims) {
    ASSIGN_OR_RETURN(const TensorView view, Place(claim, data, end, path));
    end = claim.end;
    tensors_.push_back({std::move(claim.name), view, static_cast<uint32_t>(files_.size())});
  }
  if (end != data.size()) {
    return LyingFile(path, "header",
                     "the tensors take " + std::to_string(end) + " bytes, the file has " +
                         std::to_string(data.size()) + " bytes of tensor data");
  }
  files_.push_back(std::move(file));
  header_bytes_.push_back(reader.offset());
  return OkStatus();
}

Status Safetensors::IndexNames() {
  by_name_.resize(tensors_.size());
  std::iota(by_name_.begin(), by_name_.end(), 0U);
  std::sort(by_name_.begin(), by_name_.end(),
            [&](uint32_t a, uint32_t b) { return tensors_[a].name < tensors_[b].name; });
  for (size_t i = 1; i < by_name_.size(); ++i) {
    const SafetensorsTensor& tensor = tensors_[by_name_[i]];
    if (tensor.name == tensors_[by_name_[i - 1]].name) {
      return LyingFile(files_[tensor.file].path(), tensor.name, "the tensor stands twice");
    }
  }
  return OkStatus();
}

const SafetensorsTensor* Safetensors::Find(std::string_view name) const {
  const auto found = std::lower_bound(
      by_name_.begin(), by_name_.end(), name,
      [&](uint32_t i, std::string_view wanted) { return tensors_[i].name < wanted; });
  if (found == by_name_.end() || tensors_[*found].name != name) return nullptr;
  return &tensors_[*found];
}

}  // namespace muselet
