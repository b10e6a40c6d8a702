#include "node/model/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/crc.hpp>
#include <cmath>

#include "base/device/dequantize.h"
#include "base/json.h"
#include "tests/node/model/model_files.h"
#include "tests/support/fixtures.h"

namespace muselet {
namespace {

using ::testing::ElementsAre;
using testing::GgufWriter;
using ::testing::HasSubstr;
using testing::TempDir;
using testing::TinyLlama;
using testing::WriteBytes;

class GgufTest : public ::testing::Test {
 protected:
  Result<GgufFile> OpenBytes(const std::string& bytes) {
    WriteBytes(dir_.Path("m.gguf"), bytes);
    return GgufFile::Open(dir_.Path("m.gguf"));
  }
  std::string Refusal(const GgufWriter& writer) { return Refusal(writer.Finish()); }
  std::string Refusal(const std::string& bytes) {
    const auto file = OpenBytes(bytes);
    EXPECT_FALSE(file.ok());
    EXPECT_TRUE(file.ok() || file.status().message().starts_with(dir_.Path("m.gguf: ")));
    return file.status().message();
  }
  TempDir dir_;
};

// Every tensor of one file against the sums and first values of the reference dequantisation.
void ExpectTensors(const GgufFile& file, const Json& expected) {
  ASSERT_EQ(file.tensors().size(), expected["tensors"].size());
  for (const Json& wanted : expected["tensors"]) {
    const auto name = wanted["name"].get<std::string>();
    const GgufTensor* tensor = file.FindTensor(name);
    ASSERT_NE(tensor, nullptr) << name;
    const TensorView& view = tensor->view;
    ASSERT_EQ(view.rank, wanted["shape"].size()) << name;
    for (uint32_t axis = 0; axis < view.rank; ++axis) {
      EXPECT_EQ(view.dim(axis), wanted["shape"][axis].get<uint64_t>()) << name;
    }
    std::vector<float> values(view.count());
    ASSERT_TRUE(DequantizeRow(view.dtype, view.data, view.count(), values.data()).ok());
    double sum = 0.0;
    double abs_sum = 0.0;
    for (const float value : values) {
      sum += value;
      abs_sum += std::fabs(value);
    }
    EXPECT_NEAR(sum, wanted["sum"].get<double>(), 1e-6 * abs_sum) << name;
    EXPECT_NEAR(abs_sum, wanted["abs_sum"].get<double>(), 1e-6 * abs_sum) << name;
    for (size_t i = 0; i < 8; ++i) {
      EXPECT_EQ(values[i], wanted["first8"][i].get<float>()) << name << " " << i;
    }
  }
}

void ExpectFiles(const std::string& folder) {
  const auto expected = ParseJson(testing::ReadBytes(folder + "/expected.json"));
  ASSERT_TRUE(expected.ok()) << expected.status().message();
  for (const auto& [name, wanted] : (*expected)["files"].items()) {
    const auto file = GgufFile::Open(folder + "/" + name);
    ASSERT_TRUE(file.ok()) << file.status().message();
    ExpectTensors(*file, wanted);
  }
}

TEST_F(GgufTest, DequantisesTensorsAsTheReferenceDoes) {
  ExpectFiles(testing::GoldenPath("gguf"));
}

TEST_F(GgufTest, DequantisesEverySupportedTypeAsTheReferenceDoes) {
  SKIP_WITHOUT_SHARED(last, "gguf/llama-k256.Q6_K.gguf");
  ExpectFiles(last.substr(0, last.rfind('/')));
}

// Whole tensors, bit for bit.
TEST_F(GgufTest, DequantisesToTheBitsOfTheReference) {
  SKIP_WITHOUT_SHARED(last, "gguf/llama-k256.Q6_K.gguf");
  const auto sums = ParseJson(testing::ReadBytes(testing::GoldenPath("gguf/dequantised.json")));
  ASSERT_TRUE(sums.ok()) << sums.status().message();
  for (const auto& [name, tensors] : (*sums)["crc32"].items()) {
    const auto file = GgufFile::Open(last.substr(0, last.rfind('/') + 1) + name);
    ASSERT_TRUE(file.ok()) << file.status().message();
    ASSERT_EQ(file->tensors().size(), tensors.size()) << name;
    for (const GgufTensor& tensor : file->tensors()) {
      const TensorView& view = tensor.view;
      std::vector<float> values(view.count());
      ASSERT_TRUE(DequantizeRow(view.dtype, view.data, view.count(), values.data()).ok());
      boost::crc_32_type sum;
      sum.process_bytes(values.data(), values.size() * sizeof(float));
      EXPECT_EQ(sum.checksum(), tensors[tensor.name].get<uint32_t>()) << name << " " << tensor.name;
    }
  }
}

TEST_F(GgufTest, ReadsMetadataOfEveryType) {
  const auto file = OpenBytes(TinyLlama().Finish());
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_EQ(*file->String("general.architecture"), "llama");
  EXPECT_EQ(*file->Uint("llama.context_length"), 64U);
  EXPECT_EQ(*file->Int("llama.context_length"), 64);
  EXPECT_EQ(*file->Float("llama.rope.freq_base"), 10000.0);
  EXPECT_FALSE(*file->Bool("tokenizer.ggml.add_bos_token"));
  EXPECT_THAT(*file->StringArray("tokenizer.ggml.tokens"), ElementsAre("a", "b", "", "<|end|>"));
  EXPECT_THAT(*file->IntArray("tokenizer.ggml.token_type"), ElementsAre(1, 1, 1, 3));
  EXPECT_THAT(*file->FloatArray("tokenizer.ggml.scores"), ElementsAre(0.5F, -1.0F, 0.0F, 2.0F));
  EXPECT_EQ(*file->UintOr("absent", 7), 7U);
}

TEST_F(GgufTest, NamesTheKeyThatIsMissingOrOfAnotherType) {
  const auto file = OpenBytes(TinyLlama().Finish());
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(file->Uint("absent").status().code(), StatusCode::kNotFound);
  EXPECT_THAT(file->Uint("general.architecture").status().message(),
              HasSubstr("general.architecture: expected an integer, got string"));
  EXPECT_THAT(file->StringArray("tokenizer.ggml.token_type").status().message(),
              HasSubstr("expected an array of strings, got array of int32"));
  EXPECT_FALSE(file->UintOr("general.architecture", 1).ok());
}

TEST_F(GgufTest, ReadsBothVersionsAndRefusesOthers) {
  EXPECT_TRUE(OpenBytes(TinyLlama().Finish(2)).ok());
  EXPECT_THAT(Refusal(TinyLlama().Finish(1)), HasSubstr("version: 1 is not supported"));
  EXPECT_THAT(Refusal(TinyLlama().Finish(0x03000000)), HasSubstr("big-endian"));
  EXPECT_THAT(Refusal("GGML not really"), HasSubstr("not a GGUF file"));
}

TEST_F(GgufTest, RefusesNamesThatStandTwice) {
  GgufWriter keys = TinyLlama();
  keys.U32("llama.block_count", 1);
  EXPECT_THAT(Refusal(keys), HasSubstr("llama.block_count: the metadata key stands twice"));
  GgufWriter tensors = TinyLlama();
  tensors.Tensor("output_norm.weight", {8}, 0, 32);
  EXPECT_THAT(Refusal(tensors), HasSubstr("output_norm.weight: the tensor stands twice"));
}

TEST_F(GgufTest, RefusesTensorsThatLieAboutTheirBytes) {
  const auto with = [&](const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset) {
    GgufWriter writer = TinyLlama();
    writer.TensorAt("extra", dims, type, offset);
    return Refusal(writer);
  };
  EXPECT_THAT(with({8}, 0, 1 << 20), HasSubstr("extra: 32 bytes at offset 1048576"));
  EXPECT_THAT(with({8}, 0, 0), HasSubstr("overlaps tensor"));
  EXPECT_THAT(with({8}, 0, 33), HasSubstr("not a multiple of 32"));
  EXPECT_THAT(with({0}, 0, 0), HasSubstr("a dimension is 0"));
  EXPECT_THAT(with({}, 0, 0), HasSubstr("0 dimensions"));
  EXPECT_THAT(with({1, 1, 1, 1, 1}, 0, 0), HasSubstr("5 dimensions"));
  EXPECT_THAT(with({uint64_t{1} << 32, uint64_t{1} << 32}, 0, 0), HasSubstr("file can hold"));
  EXPECT_THAT(with({(uint64_t{1} << 62) + 2}, 0, 0), HasSubstr("file can hold"));
  EXPECT_THAT(with({8}, 2, 0), HasSubstr("not whole blocks of q4_0"));
  EXPECT_THAT(with({256}, 10, 0), HasSubstr("extra: tensor type Q2_K is not supported (F32, F16"));
  EXPECT_THAT(with({8}, 99, 0), HasSubstr("unknown tensor type 99"));
}

TEST_F(GgufTest, RefusesMetadataThatLies) {
  const auto with = [&](uint32_t type, const std::string& payload) {
    GgufWriter writer = TinyLlama();
    writer.Raw("extra", type, payload);
    return Refusal(writer);
  };
  std::string nested;
  testing::AppendNumber<uint32_t>(9, nested);
  testing::AppendNumber<uint64_t>(1, nested);
  EXPECT_THAT(with(9, nested), HasSubstr("extra: arrays of arrays"));
  std::string huge;
  testing::AppendNumber<uint32_t>(5, huge);
  testing::AppendNumber<uint64_t>(uint64_t{1} << 62, huge);
  EXPECT_THAT(with(9, huge), HasSubstr("elements do not fit into the file"));
  EXPECT_THAT(with(13, ""), HasSubstr("extra: unknown value type 13"));
  EXPECT_THAT(with(7, "\2"), HasSubstr("extra: a bool is neither 0 nor 1"));
  for (const uint32_t alignment : {0U, 1U, 24U, 0x80000000U}) {
    GgufWriter writer = TinyLlama();
    writer.U32("general.alignment", alignment);
    EXPECT_THAT(Refusal(writer), HasSubstr("general.alignment: ")) << alignment;
  }
}

}  // namespace
}  // namespace muselet
