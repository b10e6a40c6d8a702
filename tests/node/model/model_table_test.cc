// The README's table of models, formats and parallelism, made of what the tests go over: a row that
// no fixture shows cannot stand there, and an architecture without a row fails.
#include <gtest/gtest.h>

#include <cctype>

#include "base/device/dtype.h"
#include "base/mapped_file.h"
#include "node/model/architectures/architecture.h"
#include "node/model/checkpoint.h"
#include "node/model/gguf.h"
#include "tests/node/cpu/random_data.h"
#include "tests/node/model/architecture_cases.h"
#include "tests/support/fixtures.h"

namespace muselet {
namespace {

using testing::ArchitectureCase;

std::string Upper(std::string_view text) {
  std::string upper;
  for (const char c : text) upper += static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return upper;
}

std::string Formats(bool quantised) {
  std::string text;
  for (const DType dtype : testing::kMatrixDTypes)
    if (quantised || !IsQuantized(dtype))
      text += (text.empty() ? "" : ", ") + Upper(Traits(dtype).name);
  return text;
}

std::string Row(const ArchitectureCase& row) {
  std::string gguf = "-";
  if (row.gguf_file[0] != '\0') {
    const std::string name = "gguf/" + std::string(row.gguf_file) + ".gguf";
    const auto file = Checkpoint::Open(testing::GoldenPath(name));
    CHECK(file.ok(), file.status().message());
    gguf = "`" + std::string((*file)->gguf()->String("general.architecture").value()) + "`";
  }
  return "| " + std::string(row.models) + " | `" + row.hugging_face_class + "` | " + gguf +
         " | yes | yes |\n";
}

std::string Table() {
  std::string text =
      "| Model | Hugging Face class | GGUF architecture | Tensor ranks | Pipeline ranks |\n"
      "| --- | --- | --- | --- | --- |\n";
  for (const ArchitectureCase& row : testing::kArchitectureCases) text += Row(row);
  text += "\nHugging Face: safetensors in one file or several, " + Formats(false) +
          ". GGUF: " + Formats(true) + ".\n";
  return text;
}

TEST(ModelTableTest, StandsInTheReadmeAsTheTestsShowIt) {
  const auto readme = ReadFile("README.md", 1 << 20);
  ASSERT_TRUE(readme.ok()) << readme.status().message();
  EXPECT_NE(readme->find(Table()), std::string::npos) << "the README should have:\n" << Table();
}

TEST(ModelTableTest, HasARowForEveryArchitecture) {
  std::string classes;
  for (const ArchitectureCase& row : testing::kArchitectureCases)
    classes += (classes.empty() ? "" : ", ") + std::string(row.hugging_face_class);
  EXPECT_EQ(classes, SupportedHuggingFaceArchitectures());
}

}  // namespace
}  // namespace muselet
