// The files of a Hugging Face directory: absent, empty, unreadable, in several shards; and the two
// spellings of RoPE.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/fsuid.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "base/json.h"
#include "node/model/checkpoint.h"
#include "node/model/safetensors.h"
#include "tests/node/model/model_files.h"
#include "tests/node/model/safetensors_writer.h"
#include "tests/support/fixtures.h"

namespace muselet {
namespace {

using ::testing::HasSubstr;
using testing::WriteBytes;
namespace fs = std::filesystem;

class HfDirectoryTest : public ::testing::Test {
 protected:
  HfDirectoryTest() : model_(dir_.Path("tiny")) {
    fs::copy(testing::GoldenPath("models/llama-tied-gqa"), model_);
    config_ = *ParseJson(testing::ReadBytes(model_ + "/config.json"));
    config_.erase("rope_parameters");
  }
  std::string Fault() { return Checkpoint::Open(model_).status().message(); }
  Result<RopeSpec> Rope(const Json& fields) {
    Json config = config_;
    config.update(fields);
    WriteBytes(model_ + "/config.json", WriteJson(config));
    ASSIGN_OR_RETURN(const auto checkpoint, Checkpoint::Open(model_));
    return checkpoint->config().layers[0].rope;
  }
  std::string RopeFault(const Json& fields) { return std::string(Rope(fields).status().message()); }

  testing::TempDir dir_;
  std::string model_;
  Json config_;
};

TEST_F(HfDirectoryTest, AnEmptyFileIsNotAnAbsentOne) {
  for (const std::string name : {"config.json", "generation_config.json", "tokenizer_config.json",
                                 "tokenizer.json", "chat_template.jinja", "model.safetensors"}) {
    const std::string path = model_ + "/" + name;
    const std::string before = fs::exists(path) ? testing::ReadBytes(path) : "";
    WriteBytes(path, "");
    EXPECT_THAT(Fault(), ::testing::StartsWith(path + ": the file is empty")) << name;
    fs::remove(path);
    const bool needed = name == "config.json" || name == "model.safetensors";
    EXPECT_EQ(Fault().empty(), !needed) << name << ": " << Fault();
    if (!before.empty()) WriteBytes(path, before);
  }
}

TEST_F(HfDirectoryTest, ALinkThatLeadsNowhereIsNotAnAbsentFile) {
  for (const std::string name :
       {"generation_config.json", "tokenizer_config.json", "tokenizer.json"}) {
    const std::string path = model_ + "/" + name;
    fs::remove(path);
    fs::create_symlink("../blobs/gone", path);
    EXPECT_THAT(Fault(), ::testing::StartsWith(path + ": No such file"));
    fs::remove(path);
  }
  EXPECT_EQ(Fault(), "");
}

// Reads files as another user for a while, if the test runs as root.
class AsNobody {
 public:
  AsNobody() { setfsuid(65534); }
  AsNobody(const AsNobody&) = delete;
  AsNobody& operator=(const AsNobody&) = delete;
  ~AsNobody() { setfsuid(geteuid()); }
};

TEST_F(HfDirectoryTest, UnreadableFilesAreRefusedWithTheFix) {
  const auto readable = static_cast<fs::perms>(0755);
  fs::permissions(dir_.path(), readable);
  fs::permissions(model_, readable);
  for (const fs::directory_entry& file : fs::directory_iterator(model_)) {
    fs::permissions(file, readable);
  }
  for (const std::string name : {"config.json", "generation_config.json", "tokenizer_config.json",
                                 "tokenizer.json", "model.safetensors"}) {
    const std::string path = model_ + "/" + name;
    const fs::perms before = fs::status(path).permissions();
    fs::permissions(path, fs::perms::none);
    Status status;
    {
      const AsNobody nobody;
      status = Checkpoint::Open(model_).status();
    }
    fs::permissions(path, before);
    EXPECT_EQ(status.code(), StatusCode::kPermissionDenied) << name;
    EXPECT_EQ(status.message(), path + ": permission denied; let this user read the file");
  }
  fs::permissions(model_, fs::perms::none);
  {
    const AsNobody nobody;
    EXPECT_THAT(Fault(), HasSubstr("permission denied; let this user read"));
  }
  fs::permissions(model_, fs::perms::owner_all);
}

TEST_F(HfDirectoryTest, BothSpellingsOfRopeMeanTheSame) {
  const Json linear_new = {{"rope_theta", 5e5}, {"rope_type", "linear"}, {"factor", 4.0}};
  const Json linear_old = {{"type", "linear"}, {"factor", 4.0}};
  const Json spellings[] = {
      {{"rope_parameters", linear_new}},
      {{"rope_theta", 5e5}, {"rope_scaling", linear_old}},
      {{"rope_theta", 5e5}, {"rope_scaling", {{"rope_type", "linear"}, {"factor", 4.0}}}},
      {{"rope_scaling", linear_new}},
      {{"rope_theta", 5e5}, {"rope_parameters", linear_new}, {"rope_scaling", linear_old}},
      {{"rope_parameters", linear_new}, {"rope_scaling", nullptr}},
      {{"rope_parameters", {{"type", "linear"}, {"rope_type", "linear"}, {"factor", 4}}},
       {"rope_theta", 5e5}},
  };
  for (const Json& spelling : spellings) {
    const auto rope = Rope(spelling);
    ASSERT_TRUE(rope.ok()) << rope.status().message();
    EXPECT_EQ(rope->theta, 5e5) << spelling;
    EXPECT_EQ(rope->scaling, RopeScaling::kLinear) << spelling;
    EXPECT_EQ(rope->factor, 4.0) << spelling;
    EXPECT_EQ(rope->rotary_dim, 16U) << spelling;
  }
  EXPECT_EQ(Rope(Json::object())->theta, 10000.0);
}

TEST_F(HfDirectoryTest, RopeThatContradictsItselfIsRefused) {
  const Json linear = {{"rope_type", "linear"}, {"factor", 4.0}};
  const Json other = {{"rope_type", "linear"}, {"factor", 8.0}};
  const Json plain = {{"rope_type", "default"}};
  EXPECT_THAT(RopeFault({{"rope_parameters", linear}, {"rope_scaling", other}}),
              HasSubstr("config.json: rope_scaling: contradicts rope_parameters"));
  EXPECT_THAT(RopeFault({{"rope_parameters", plain}, {"rope_scaling", linear}}),
              HasSubstr("config.json: rope_scaling: contradicts rope_parameters"));
  EXPECT_THAT(RopeFault({{"rope_parameters", {{"rope_theta", 5.0}}}, {"rope_theta", 7.0}}),
              HasSubstr("rope_parameters: rope_theta 5 contradicts rope_theta 7"));
  EXPECT_THAT(
      RopeFault({{"rope_scaling", {{"type", "linear"}, {"rope_type", "llama3"}, {"factor", 2}}}}),
      HasSubstr("rope_scaling: rope_type: \"llama3\" contradicts type \"linear\""));
}

TEST_F(HfDirectoryTest, RopeThatIsNotImplementedIsRefusedByName) {
  for (const std::string type : {"yarn", "dynamic", "longrope", "su", "mrope", "proportional"}) {
    for (const std::string object : {"rope_parameters", "rope_scaling"}) {
      EXPECT_THAT(RopeFault({{object, {{"type", type}, {"factor", 2.0}}}}),
                  HasSubstr("config.json: " + object + ": rope_type: \"" + type +
                            "\" is not supported (default, linear and llama3 are)"));
    }
  }
  EXPECT_THAT(RopeFault({{"rope_scaling", {{"factor", 2.0}}}}), HasSubstr("rope_type: missing"));
  EXPECT_THAT(RopeFault({{"rope_parameters", {{"partial_rotary_factor", 0.5}}}}),
              HasSubstr("partial_rotary_factor: 0.5 is not supported"));
  EXPECT_THAT(RopeFault({{"rope_parameters", {{"full_attention", Json::object()}}}}),
              HasSubstr("rope_parameters: full_attention: rotations that differ between layers"));
}

// The same weights in two files.
class ShardedTest : public HfDirectoryTest {
 protected:
  ShardedTest() {
    const auto whole = Safetensors::OpenFile(model_ + "/model.safetensors");
    size_t i = 0;
    for (const SafetensorsTensor& tensor : whole->tensors()) {
      testing::FloatTensor copy;
      copy.shape.assign(tensor.view.shape.begin(), tensor.view.shape.begin() + tensor.view.rank);
      copy.values.resize(tensor.view.count());
      std::memcpy(copy.values.data(), tensor.view.data, tensor.view.bytes());
      shards_[i++ % 2][tensor.name] = std::move(copy);
    }
    digest_of_weights_ = Weights(*Checkpoint::Open(model_).value());
    fs::remove(model_ + "/model.safetensors");
  }
  static std::string Name(int shard) {
    return "model-0000" + std::to_string(shard + 1) + "-of-00002.safetensors";
  }
  static std::string Weights(const Checkpoint& checkpoint) {
    std::string bytes;
    auto names = checkpoint.TensorNames();
    std::sort(names.begin(), names.end());
    for (const std::string& name : names) {
      const TensorView view = *checkpoint.Tensor(name);
      bytes += name;
      bytes.append(reinterpret_cast<const char*>(view.data), view.bytes());
    }
    return bytes;
  }
  std::vector<std::pair<std::string, std::string>> Map() const {
    std::vector<std::pair<std::string, std::string>> map;
    for (int shard = 0; shard < 2; ++shard) {
      for (const auto& [name, tensor] : shards_[shard]) map.emplace_back(name, Name(shard));
    }
    return map;
  }
  void Write(const std::vector<std::pair<std::string, std::string>>& map) {
    for (int shard = 0; shard < 2; ++shard) {
      WriteBytes(model_ + "/" + Name(shard), testing::SafetensorsBytes(shards_[shard]));
    }
    WriteBytes(model_ + "/model.safetensors.index.json", testing::IndexJson(map));
  }

  testing::FloatTensors shards_[2];
  std::string digest_of_weights_;
};

TEST_F(ShardedTest, ShardsGiveTheWeightsOfTheWholeFile) {
  Write(Map());
  const auto checkpoint = Checkpoint::Open(model_);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().message();
  EXPECT_EQ(Weights(**checkpoint), digest_of_weights_);
  (*checkpoint)->Release(*(*checkpoint)->Tensor("embedding"));
  EXPECT_EQ(Weights(**checkpoint), digest_of_weights_);
}

TEST_F(ShardedTest, AMissingShardIsNamed) {
  Write(Map());
  fs::remove(model_ + "/" + Name(1));
  EXPECT_THAT(Fault(), ::testing::StartsWith(model_ + "/" + Name(1) + ": No such file"));
  WriteBytes(model_ + "/" + Name(1), "");
  EXPECT_THAT(Fault(), ::testing::StartsWith(model_ + "/" + Name(1) + ": the file is empty"));
}

TEST_F(ShardedTest, ATensorInTheWrongShardIsNamed) {
  auto map = Map();
  map.front().second = Name(1);
  Write(map);
  EXPECT_THAT(Fault(), HasSubstr("index.json: " + map.front().first + ": is not in " + Name(1)));
}

TEST_F(ShardedTest, ATensorInTwoShardsIsNamed) {
  const auto map = Map();
  shards_[1].insert(*shards_[0].begin());
  Write(map);
  EXPECT_THAT(Fault(), HasSubstr(": " + shards_[0].begin()->first + ": the tensor stands twice"));
}

TEST_F(ShardedTest, AnIndexThatListsATensorTwiceOrLeavesOneOutIsRefused) {
  auto map = Map();
  map.push_back(map.front());
  Write(map);
  EXPECT_THAT(Fault(), HasSubstr("index.json: " + map.front().first + ": stands twice"));
  map = Map();
  const std::string lost = map.back().first;
  shards_[1].erase(lost);
  map.pop_back();
  Write(map);
  EXPECT_THAT(Fault(), HasSubstr(lost + ": the tensor is missing"));
  WriteBytes(model_ + "/model.safetensors.index.json", "");
  EXPECT_THAT(Fault(), HasSubstr("index.json: "));
}

}  // namespace
}  // namespace muselet
