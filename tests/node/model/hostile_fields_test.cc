// Every header field of GGUF and safetensors by its name, each made to say what it must not: the
// fault names the file and the field, and nothing large is allocated on the way.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "node/model/checkpoint.h"
#include "node/model/gguf.h"
#include "node/model/safetensors.h"
#include "tests/node/model/allocations.h"
#include "tests/node/model/memory_file.h"
#include "tests/node/model/model_files.h"

namespace muselet {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kAllocationBytesMax = 64 << 10;  // at once, for files of 6 KiB
constexpr uint64_t kLies[] = {0, 1, ~uint64_t{0}, uint64_t{1} << 31, uint64_t{1} << 63};

struct Field {
  std::string kind;   // "key length", "offset", ...
  std::string owner;  // the key or tensor that it belongs to; "" = the file
  size_t offset = 0;
  size_t bytes = 0;
};

// Finds the fields of a valid file; knows the format, but nothing of the reader under test.
class FieldFinder {
 public:
  explicit FieldFinder(const std::string& file) : file_(file) {}

  std::vector<Field> Find() {
    Take("magic", 4);
    Take("version", 4);
    const uint64_t tensors = Take("tensor_count", 8);
    const uint64_t entries = Take("metadata_kv_count", 8);
    for (uint64_t i = 0; i < entries; ++i) Entry();
    for (uint64_t i = 0; i < tensors; ++i) Tensor();
    return std::move(fields_);
  }

 private:
  uint64_t Take(const std::string& kind, size_t bytes) {
    uint64_t value = 0;
    std::memcpy(&value, file_.data() + at_, bytes);
    fields_.push_back({kind, owner_, at_, bytes});
    at_ += bytes;
    return value;
  }
  void Name(const std::string& kind) {
    owner_.clear();
    const uint64_t length = Take(kind, 8);
    owner_ = file_.substr(at_, length);
    at_ += length;
  }
  void Value(uint64_t type) {
    constexpr size_t kBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    if (type == 8) {
      const uint64_t length = Take("string length", 8);
      at_ += length;
    } else {
      Take("value", kBytes[type]);
    }
  }
  void Entry() {
    Name("key length");
    uint64_t type = Take("value type", 4);
    if (type != 9) return Value(type);
    type = Take("element type", 4);
    const uint64_t count = Take("array length", 8);
    for (uint64_t i = 0; i < count; ++i) Value(type);
  }
  void Tensor() {
    Name("name length");
    const uint64_t dims = Take("n_dims", 4);
    for (uint64_t i = 0; i < dims; ++i) Take("dimension", 8);
    Take("tensor type", 4);
    Take("offset", 8);
  }

  const std::string& file_;
  size_t at_ = 0;
  std::string owner_;
  std::vector<Field> fields_;
};

std::string FileWithEveryField() {
  testing::GgufWriter file = testing::TinyLlama();
  file.U32("general.alignment", 32);
  return file.Finish();
}

class HostileFieldsTest : public ::testing::Test {
 protected:
  // "" if the bytes open as a model, else the fault.
  std::string Fault(const std::string& bytes) {
    file_.Write(bytes);
    testing::ForgetLargest();
    const auto checkpoint = Checkpoint::Open(file_.path());
    EXPECT_LT(testing::AllocationsSoFar().largest_bytes, kAllocationBytesMax);
    if (checkpoint.ok()) return "";
    EXPECT_TRUE(checkpoint.status().message().starts_with(file_.path() + ": "));
    EXPECT_EQ(checkpoint.status().message().find('\n'), std::string::npos);
    return checkpoint.status().message();
  }

  testing::MemoryFile file_;
};

// What may be believed: a dtype or a metadata value is not a matter of structure (that a small
// context is a lie nobody can know), and a bool is as large as a number of 8 bits.
bool MayBeTrue(const Field& field, uint64_t lie) {
  return (field.kind == "tensor type" && lie <= 1) ||
         (field.kind == "value type" && field.owner == "tokenizer.ggml.add_bos_token") ||
         (field.kind == "value" && field.owner != "general.alignment");
}

TEST_F(HostileFieldsTest, EveryGgufFieldMayLie) {
  const std::string valid = FileWithEveryField();
  ASSERT_EQ(Fault(valid), "");
  std::map<std::string, int> refused;
  for (const Field& field : FieldFinder(valid).Find()) {
    for (const uint64_t lie : kLies) {
      std::string bytes = valid;
      std::memcpy(bytes.data() + field.offset, &lie, field.bytes);
      if (bytes == valid) continue;
      const std::string fault = Fault(bytes);
      if (fault.empty()) {
        EXPECT_TRUE(MayBeTrue(field, lie)) << field.kind << " of " << field.owner << ": " << lie;
        continue;
      }
      ++refused[field.kind];
      // These are read before anything can come out of step.
      if (field.kind == "version" || field.kind == "tensor_count") {
        EXPECT_THAT(fault, HasSubstr(field.kind == "version" ? ": version: " : ": ")) << lie;
      }
      if (field.kind == "offset" || (field.kind == "value" && field.owner == "general.alignment")) {
        EXPECT_THAT(fault, HasSubstr(": " + field.owner + ": ")) << field.kind << " " << lie;
      }
    }
  }
  for (const char* kind : {"magic", "version", "tensor_count", "metadata_kv_count", "key length",
                           "value type", "element type", "array length", "string length", "value",
                           "name length", "n_dims", "dimension", "tensor type", "offset"}) {
    EXPECT_GE(refused[kind], 3) << kind;
  }
}

TEST_F(HostileFieldsTest, CountsBeyondTheFileAreNamed) {
  const std::string valid = FileWithEveryField();
  for (const uint64_t lie : {~uint64_t{0}, uint64_t{1} << 31, uint64_t{1} << 63}) {
    std::string bytes = valid;
    std::memcpy(bytes.data() + 8, &lie, 8);
    EXPECT_THAT(Fault(bytes), HasSubstr(": tensor_count: "));
    bytes = valid;
    std::memcpy(bytes.data() + 16, &lie, 8);
    EXPECT_THAT(Fault(bytes), HasSubstr(": metadata_kv_count: "));
  }
}

TEST_F(HostileFieldsTest, GgufSizesMayOverflowAndNamesStandTwice) {
  const auto with = [&](const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset) {
    testing::GgufWriter file = testing::TinyLlama();
    file.TensorAt("lie", dims, type, offset);
    return Fault(file.Finish());
  };
  const uint64_t big = uint64_t{1} << 32;
  for (const uint32_t type : {0U, 1U, 2U, 3U, 8U, 14U, 30U}) {
    EXPECT_THAT(with({big, big}, type, 0), HasSubstr(": lie: ")) << type;
    EXPECT_THAT(with({uint64_t{1} << 62, 4}, type, 0), HasSubstr(": lie: ")) << type;
    EXPECT_THAT(with({256, (uint64_t{1} << 56) + 1}, type, 0), HasSubstr(": lie: ")) << type;
    EXPECT_THAT(with({256, 2, 2, 2}, type, ~uint64_t{0} - 31), HasSubstr(": lie: ")) << type;
  }
  testing::GgufWriter keys = testing::TinyLlama();
  keys.U32("llama.block_count", 1);
  EXPECT_THAT(Fault(keys.Finish()), HasSubstr(": llama.block_count: the metadata key stands tw"));
  testing::GgufWriter tensors = testing::TinyLlama();
  tensors.Tensor("output_norm.weight", {8}, 0, 32);
  EXPECT_THAT(Fault(tensors.Finish()), HasSubstr(": output_norm.weight: the tensor stands twice"));
}

TEST_F(HostileFieldsTest, EverySafetensorsFieldMayLie) {
  const auto open = [&](const std::string& dtype, const std::string& rows, const std::string& begin,
                        const std::string& end) {
    std::string header = R"({"a":{"dtype":")" + dtype + R"(","shape":[)" + rows +
                         R"(,4],"data_offsets":[)" + begin + "," + end + "]}}";
    header.resize((header.size() + 7) / 8 * 8, ' ');
    std::string bytes;
    testing::AppendNumber<uint64_t>(header.size(), bytes);
    file_.Write(bytes + header + std::string(32, '\1'));
    testing::ForgetLargest();
    const auto file = Safetensors::OpenFile(file_.path());
    EXPECT_LT(testing::AllocationsSoFar().largest_bytes, kAllocationBytesMax);
    return file.status().message();
  };
  ASSERT_EQ(open("F32", "2", "0", "32"), "");
  const std::string named = file_.path() + ": a: ";
  for (const std::string lie : {"0", "1", "-1", "2147483648", "9223372036854775808",
                                "18446744073709551616", "4294967296", "1e300", "null", "\"2\""}) {
    EXPECT_THAT(open("F32", lie, "0", "32"), HasSubstr(named)) << lie;
    EXPECT_THAT(open("F32", "2", "0", lie), HasSubstr(named)) << lie;
    if (lie != "0") {
      EXPECT_THAT(open("F32", "2", lie, "32"), HasSubstr(named)) << lie;
    }
  }
  for (const std::string dtype : {"", "f32", "F64", "F8_E4M3", "I8", "BOOL", "F32 "}) {
    EXPECT_THAT(open(dtype, "2", "0", "32"), HasSubstr(named + "dtype ")) << dtype;
  }
}

}  // namespace
}  // namespace muselet
