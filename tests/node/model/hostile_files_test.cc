// Every field of a model file made to lie: nothing may crash, and little memory may be taken. Run
// under AddressSanitizer, a read past the map's end or past a tensor is found too.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <array>
#include <cstring>
#include <filesystem>

#include "node/model/checkpoint.h"
#include "node/model/gguf.h"
#include "node/model/safetensors.h"
#include "tests/node/model/memory_file.h"
#include "tests/node/model/model_files.h"
#include "tests/support/fixtures.h"

namespace muselet {
namespace {

using testing::MemoryFile;
using testing::TempDir;
using testing::WriteBytes;

constexpr std::array<uint64_t, 8> kLies = {0,
                                           1,
                                           ~uint64_t{0},
                                           uint64_t{1} << 31,
                                           uint64_t{1} << 63,
                                           (uint64_t{1} << 63) - 1,
                                           ~uint64_t{0} - 31,
                                           uint64_t{1} << 32};

long PeakKilobytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

// The growth of resident memory that a test may cause: a sanitizer keeps what was freed.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr long kGrowthKilobytesMax = 600'000;
#else
constexpr long kGrowthKilobytesMax = 16'000;
#endif

// Touches all that an accepted file promises.
uint64_t Walk(const GgufFile& file) {
  uint64_t sum = 0;
  for (const GgufEntry& entry : file.entries()) {
    sum += file.String(entry.key).ok() + file.Int(entry.key).ok() + file.Float(entry.key).ok();
    const auto strings = file.StringArray(entry.key);
    if (strings.ok()) {
      for (const std::string_view text : *strings) sum += text.empty() ? 0 : text.back();
    }
    sum += file.IntArray(entry.key).ok() + file.FloatArray(entry.key).ok();
  }
  for (const GgufTensor& tensor : file.tensors()) {
    sum += static_cast<uint64_t>(tensor.view.data[0]);
    sum += static_cast<uint64_t>(tensor.view.data[tensor.view.bytes() - 1]);
  }
  return sum;
}

class HostileFilesTest : public ::testing::Test {
 protected:
  HostileFilesTest() : peak_before_(PeakKilobytes()) {}
  ~HostileFilesTest() override { EXPECT_LT(PeakKilobytes() - peak_before_, kGrowthKilobytesMax); }

  // Opens the bytes as a GGUF model; a refusal must be one line that names the file.
  bool OpenGguf(const std::string& bytes) {
    const std::string path = file_.path();
    file_.Write(bytes);
    const auto file = GgufFile::Open(path);
    if (file.ok()) Walk(*file);
    const auto checkpoint = Checkpoint::Open(path);
    if (!checkpoint.ok()) CheckMessage(checkpoint.status(), path);
    return checkpoint.ok();
  }
  // Name and shape of each tensor of a checkpoint that opens.
  static std::vector<std::string> TensorsOf(const std::string& path) {
    const auto checkpoint = Checkpoint::Open(path);
    std::vector<std::string> tensors;
    for (const std::string& name : (*checkpoint)->TensorNames()) {
      const TensorView view = *(*checkpoint)->Tensor(name);
      tensors.push_back(name);
      for (const uint64_t size : view.shape) tensors.back() += " " + std::to_string(size);
    }
    return tensors;
  }
  static void CheckMessage(const Status& status, const std::string& path) {
    EXPECT_EQ(status.message().find('\n'), std::string::npos) << status.message();
    EXPECT_TRUE(status.message().starts_with(path)) << status.message();
    EXPECT_TRUE(status.code() == StatusCode::kDataLoss || status.code() == StatusCode::kNotFound ||
                status.code() == StatusCode::kInvalidArgument)
        << status.ToString();
  }

  TempDir dir_;
  MemoryFile file_;
  long peak_before_;
};

TEST_F(HostileFilesTest, GgufFieldsAtEveryOffsetMayLie) {
  const std::string valid = testing::TinyLlama().Finish();
  ASSERT_TRUE(OpenGguf(valid));
  const size_t header_bytes = GgufFile::Open(file_.path())->header().size();
  size_t refused = 0;
  for (size_t offset = 4; offset + 8 <= header_bytes; ++offset) {
    for (const uint64_t lie : kLies) {
      std::string bytes = valid;
      std::memcpy(bytes.data() + offset, &lie, offset % 2 == 0 || lie >> 32U != 0 ? 8 : 4);
      refused += OpenGguf(bytes) ? 0 : 1;
    }
  }
  EXPECT_GT(refused, header_bytes * 4);
}

// A flipped byte is refused, or changes a value: never which tensors there are.
TEST_F(HostileFilesTest, GgufBytesMayFlip) {
  const std::string valid = testing::TinyLlama().Finish();
  ASSERT_TRUE(OpenGguf(valid));
  const std::vector<std::string> names = TensorsOf(file_.path());
  const size_t header_bytes = GgufFile::Open(file_.path())->header().size();
  size_t refused = 0;
  for (size_t offset = 0; offset < valid.size(); ++offset) {
    for (const int mask : {0x01, 0x80}) {
      std::string bytes = valid;
      bytes[offset] = static_cast<char>(bytes[offset] ^ mask);
      const bool accepted = OpenGguf(bytes);
      refused += accepted ? 0 : 1;
      if (accepted) {
        EXPECT_EQ(TensorsOf(file_.path()), names) << offset;
      }
      // Weights may hold anything but frequency divisors, the last 8 bytes that are used.
      if (offset >= header_bytes && offset + 32 < valid.size()) {
        EXPECT_TRUE(accepted) << offset;
      }
    }
  }
  EXPECT_GT(refused, header_bytes / 2);
}

TEST_F(HostileFilesTest, GgufMayEndAnywhere) {
  const std::string valid = testing::TinyLlama().Finish();
  const size_t used = valid.size() - 24;  // the last tensor is padded
  for (size_t size = 0; size < used; ++size) {
    EXPECT_FALSE(OpenGguf(valid.substr(0, size))) << size;
  }
  EXPECT_TRUE(OpenGguf(valid.substr(0, used)));
}

TEST_F(HostileFilesTest, GgufCountsMayWrapTogether) {
  const std::string valid = testing::TinyLlama().Finish();
  for (const uint64_t tensors : kLies) {
    for (const uint64_t entries : kLies) {
      std::string bytes = valid;
      std::memcpy(bytes.data() + 8, &tensors, 8);
      std::memcpy(bytes.data() + 16, &entries, 8);
      EXPECT_FALSE(OpenGguf(bytes));
    }
  }
}

class HostileSafetensorsTest : public HostileFilesTest {
 protected:
  HostileSafetensorsTest() : path_(file_.path()) {}

  static std::string File(const std::string& header, size_t data_bytes) {
    std::string bytes;
    testing::AppendNumber<uint64_t>(header.size(), bytes);
    return bytes + header + std::string(data_bytes, '\1');
  }
  bool Open(const std::string& bytes) {
    file_.Write(bytes);
    const auto file = Safetensors::OpenFile(path_);
    if (!file.ok()) {
      CheckMessage(file.status(), path_);
      message_ = file.status().message();
      return false;
    }
    uint64_t sum = 0;
    for (const SafetensorsTensor& tensor : file->tensors()) {
      if (tensor.view.bytes() == 0) continue;
      sum += static_cast<uint64_t>(tensor.view.data[tensor.view.bytes() - 1]);
    }
    EXPECT_LE(sum, file->tensors().size() * 255);
    return true;
  }
  void ExpectRefused(const std::string& header, size_t data_bytes, const std::string& reason) {
    EXPECT_FALSE(Open(File(header, data_bytes))) << header;
    EXPECT_NE(message_.find(reason), std::string::npos) << message_;
  }

  // 96 bytes, so that the data is aligned.
  const std::string header_ = R"({"a":{"dtype":"F32","shape":[2,4],"data_offsets":[0,32]},)"
                              R"("b":{"dtype":"F16","shape":[2],"data_offsets":[32,36]}}    )";
  std::string path_;
  std::string message_;
};

TEST_F(HostileSafetensorsTest, BytesMayFlipOrEndAnywhere) {
  const std::string valid = File(header_, 36);
  ASSERT_TRUE(Open(valid)) << message_;
  for (size_t offset = 0; offset < valid.size(); ++offset) {
    EXPECT_FALSE(Open(valid.substr(0, offset))) << offset;
    for (int value = 0; value < 256; value += 7) {
      std::string bytes = valid;
      bytes[offset] = static_cast<char>(value);
      Open(bytes);
    }
  }
}

TEST_F(HostileSafetensorsTest, HeaderLengthMayLie) {
  std::string valid = File(header_, 36);
  for (const uint64_t lie : kLies) {
    std::memcpy(valid.data(), &lie, 8);
    EXPECT_FALSE(Open(valid)) << lie;
  }
}

TEST_F(HostileSafetensorsTest, EachLieIsNamed) {
  const auto tensor = [](const std::string& dtype, const std::string& shape,
                         const std::string& offsets) {
    std::string text = R"({"a":{"dtype":")" + dtype + R"(","shape":)" + shape +
                       R"(,"data_offsets":)" + offsets + "}}";
    text.resize((text.size() + 7) / 8 * 8, ' ');
    return text;
  };
  ASSERT_TRUE(Open(File(tensor("F32", "[2,4]", "[0,32]"), 32))) << message_;
  ExpectRefused(tensor("F32", "[2,4]", "[0,36]"), 36, "a: shape and dtype do not match");
  ExpectRefused(tensor("F32", "[4294967296,4294967296]", "[0,32]"), 32, "a: shape and dtype");
  ExpectRefused(tensor("F32", "[4611686018427387905,4]", "[0,16]"), 16, "a: shape and dtype");
  ExpectRefused(tensor("F32", "[2,4]", "[4,36]"), 36, "holes and overlaps");
  ExpectRefused(tensor("F32", "[2,4]", "[32,0]"), 32, "a: ");
  ExpectRefused(tensor("F32", "[2,4]", "[0,32]"), 40, "the tensors take 32 bytes");
  ExpectRefused(tensor("F32", "[2,4]", "[0,32]"), 16, "the file has 16 bytes");
  ExpectRefused(tensor("F32", "[-2,4]", "[0,32]"), 32, "a: shape: a negative number");
  ExpectRefused(tensor("F32", "[2.5]", "[0,32]"), 32, "not an integer");
  ExpectRefused(tensor("F32", "[1,1,1,1,8]", "[0,32]"), 32, "more than 4 dimensions");
  ExpectRefused(tensor("F32", "[8]", "[0]"), 32, "must be [begin, end]");
  ExpectRefused(tensor("I64", "[4]", "[0,32]"), 32, "dtype I64 is not supported (F32, F16");
  ExpectRefused(R"({"a":{"dtype":"F32"}})", 0, "needs dtype, shape and data_offsets");
  ExpectRefused("[]", 0, "header: ");
  ExpectRefused("{\"a\":", 0, "not valid JSON");
  const std::string a = R"("a":{"dtype":"F32","shape":[1],"data_offsets":)";
  std::string twice = "{" + a + "[0,4]}," + a + "[4,8]}}";
  twice.resize((twice.size() + 7) / 8 * 8, ' ');
  ExpectRefused(twice, 8, "the tensor stands twice");
}

TEST_F(HostileSafetensorsTest, ShardsStayInTheirDirectory) {
  WriteBytes(dir_.Path("a.safetensors"), File(header_, 36));
  const auto open = [&](const std::string& map) {
    WriteBytes(dir_.Path("model.safetensors.index.json"), R"({"weight_map":)" + map + "}");
    return Safetensors::OpenDirectory(dir_.path());
  };
  const auto good = open(R"({"a":"a.safetensors","b":"a.safetensors"})");
  ASSERT_TRUE(good.ok()) << good.status().message();
  EXPECT_EQ(good->tensors().size(), 2U);
  for (const std::string name : {"../x", "/etc/passwd", "x/y", "..", "", ".", "a\\\\b"}) {
    const auto refused = open(R"({"a":")" + name + R"("})");
    EXPECT_NE(refused.status().message().find("is not a file name"), std::string::npos) << name;
  }
  EXPECT_EQ(open(R"({"a":"b.safetensors"})").status().code(), StatusCode::kNotFound);
  EXPECT_FALSE(open(R"({"c":"a.safetensors"})").ok());
  EXPECT_FALSE(open(R"({"a":"a.safetensors","a":"a.safetensors"})").ok());
  EXPECT_FALSE(open(R"({"a":["a.safetensors"]})").ok());
  EXPECT_FALSE(open(R"({})").ok());
}

}  // namespace
}  // namespace muselet
