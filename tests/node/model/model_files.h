// Small model files for tests: written byte by byte, so that each field can be made to lie.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace muselet::testing {

// A fresh directory that is removed at the end.
class TempDir {
 public:
  TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir();
  std::string Path(std::string_view name) const { return path_ + "/" + std::string(name); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

void WriteBytes(const std::string& path, std::string_view bytes);
std::string ReadBytes(const std::string& path);

// Builds a GGUF file in memory; nothing is checked.
class GgufWriter {
 public:
  void String(std::string_view key, std::string_view value);
  void U32(std::string_view key, uint32_t value);
  void F32(std::string_view key, float value);
  void Bool(std::string_view key, uint8_t value);
  void Strings(std::string_view key, const std::vector<std::string>& values);
  void Ints(std::string_view key, const std::vector<int32_t>& values);
  void Floats(std::string_view key, const std::vector<float>& values);
  // Encoded value with its type number before it.
  void Raw(std::string_view key, uint32_t type, std::string_view payload);
  // Data of `bytes` bytes of value 1; `dims` in the file's order, innermost first.
  void Tensor(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type,
              uint64_t bytes);
  void TensorAt(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type,
                uint64_t offset);
  std::string Finish(uint32_t version = 3) const;

 private:
  uint64_t entries_ = 0;
  uint64_t tensors_ = 0;
  std::string metadata_;
  std::string infos_;
  std::string data_;
};

// Appends the bytes of a number, little-endian.
template <typename T>
void AppendNumber(T value, std::string& out) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}
// Length and bytes, as GGUF has strings.
void AppendString(std::string_view text, std::string& out);

// A Llama of one layer, 8 wide, 4 tokens: metadata of every kind and 12 tensors.
GgufWriter TinyLlama();

}  // namespace muselet::testing
