#include "tests/node/model/model_files.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/check.h"

namespace muselet::testing {

TempDir::TempDir() {
  std::string pattern = (std::filesystem::temp_directory_path() / "muselet-XXXXXX").string();
  CHECK(mkdtemp(pattern.data()) != nullptr, "no temporary directory");
  path_ = pattern;
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void WriteBytes(const std::string& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

std::string ReadBytes(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

void AppendString(std::string_view text, std::string& out) {
  AppendNumber<uint64_t>(text.size(), out);
  out += text;
}

void GgufWriter::Raw(std::string_view key, uint32_t type, std::string_view payload) {
  AppendString(key, metadata_);
  AppendNumber(type, metadata_);
  metadata_ += payload;
  ++entries_;
}

void GgufWriter::String(std::string_view key, std::string_view value) {
  std::string payload;
  AppendString(value, payload);
  Raw(key, 8, payload);
}

void GgufWriter::U32(std::string_view key, uint32_t value) {
  std::string payload;
  AppendNumber(value, payload);
  Raw(key, 4, payload);
}

void GgufWriter::F32(std::string_view key, float value) {
  std::string payload;
  AppendNumber(value, payload);
  Raw(key, 6, payload);
}

void GgufWriter::Bool(std::string_view key, uint8_t value) {
  std::string payload;
  AppendNumber(value, payload);
  Raw(key, 7, payload);
}

void GgufWriter::Strings(std::string_view key, const std::vector<std::string>& values) {
  std::string payload;
  AppendNumber<uint32_t>(8, payload);
  AppendNumber<uint64_t>(values.size(), payload);
  for (const std::string& value : values) AppendString(value, payload);
  Raw(key, 9, payload);
}

void GgufWriter::Ints(std::string_view key, const std::vector<int32_t>& values) {
  std::string payload;
  AppendNumber<uint32_t>(5, payload);
  AppendNumber<uint64_t>(values.size(), payload);
  for (const int32_t value : values) AppendNumber(value, payload);
  Raw(key, 9, payload);
}

void GgufWriter::Floats(std::string_view key, const std::vector<float>& values) {
  std::string payload;
  AppendNumber<uint32_t>(6, payload);
  AppendNumber<uint64_t>(values.size(), payload);
  for (const float value : values) AppendNumber(value, payload);
  Raw(key, 9, payload);
}

void GgufWriter::TensorAt(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type,
                          uint64_t offset) {
  AppendString(name, infos_);
  AppendNumber(static_cast<uint32_t>(dims.size()), infos_);
  for (const uint64_t dim : dims) AppendNumber(dim, infos_);
  AppendNumber(type, infos_);
  AppendNumber(offset, infos_);
  ++tensors_;
}

void GgufWriter::Tensor(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type,
                        uint64_t bytes) {
  TensorAt(name, dims, type, data_.size());
  data_.append(bytes, '\1');
  data_.resize((data_.size() + 31) / 32 * 32);
}

std::string GgufWriter::Finish(uint32_t version) const {
  std::string out = "GGUF";
  AppendNumber(version, out);
  AppendNumber(tensors_, out);
  AppendNumber(entries_, out);
  out += metadata_ + infos_;
  out.resize((out.size() + 31) / 32 * 32);
  return out + data_;
}

GgufWriter TinyLlama() {
  GgufWriter file;
  file.String("general.architecture", "llama");
  file.U32("llama.context_length", 64);
  file.U32("llama.embedding_length", 8);
  file.U32("llama.block_count", 1);
  file.U32("llama.feed_forward_length", 16);
  file.U32("llama.attention.head_count", 2);
  file.U32("llama.attention.head_count_kv", 1);
  file.F32("llama.rope.freq_base", 10000.0F);
  file.F32("llama.attention.layer_norm_rms_epsilon", 1e-5F);
  file.Strings("tokenizer.ggml.tokens", {"a", "b", "", "<|end|>"});
  file.Ints("tokenizer.ggml.token_type", {1, 1, 1, 3});
  file.Floats("tokenizer.ggml.scores", {0.5F, -1.0F, 0.0F, 2.0F});
  file.U32("tokenizer.ggml.eos_token_id", 3);
  file.Bool("tokenizer.ggml.add_bos_token", 0);
  file.Tensor("token_embd.weight", {8, 4}, 0, 128);
  file.Tensor("output_norm.weight", {8}, 0, 32);
  file.Tensor("blk.0.attn_norm.weight", {8}, 0, 32);
  file.Tensor("blk.0.attn_q.weight", {8, 8}, 1, 128);
  file.Tensor("blk.0.attn_k.weight", {8, 4}, 0, 128);
  file.Tensor("blk.0.attn_v.weight", {8, 4}, 30, 64);
  file.Tensor("blk.0.attn_output.weight", {8, 8}, 0, 256);
  file.Tensor("blk.0.ffn_norm.weight", {8}, 0, 32);
  file.Tensor("blk.0.ffn_gate.weight", {8, 16}, 0, 512);
  file.Tensor("blk.0.ffn_up.weight", {8, 16}, 0, 512);
  file.Tensor("blk.0.ffn_down.weight", {16, 8}, 0, 512);
  file.Tensor("rope_freqs.weight", {2}, 0, 8);
  return file;
}

}  // namespace muselet::testing
