#include "node/config/config_writer.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "node/config/config_loader.h"

namespace muselet {
namespace {

LoadedConfig Load(const std::string& file) {
  ConfigRequest request;
  request.file = file;
  request.file_check = ConfigRequest::FileCheck::kNone;
  const ConfigOutcome outcome = LoadConfig(request);
  EXPECT_TRUE(outcome.loaded.has_value()) << file << "\n" << FormatFaults(outcome.faults);
  return outcome.loaded.value_or(LoadedConfig{});
}

TEST(ConfigWriter, GivesWhatIsReadBackToTheSameValuesFromAnotherDirectory) {
  const std::filesystem::path directory =
      std::filesystem::temp_directory_path() / ("config_writer_" + std::to_string(getpid()));
  std::filesystem::create_directories(directory);
  const std::string odd = (directory / "odd.yaml").string();
  std::ofstream(odd) << "cluster: of-three\n"
                        "models: [{id: a/b, path: \"/models/with \\\"quotes\\\" and: colon\"}]\n"
                        "schedulers: [{name: s0, rpc: \"inproc://s0\"}]\n"
                        "nodes: [{name: n0, devices: [\"cpu:0\", \"cpu:1\"]}]\n"
                        "replicas: [{name: r0, model: a/b, tensor: 2, on: [n0]}]\n"
                        "kv: {bytes: 96MiB}\ncpu: {threads: 3}\nlog: {level: warn}\n";
  for (const std::string& file : {odd, std::string("deploy/config/quickstart.yaml"),
                                  std::string("deploy/config/three_machines.yaml")}) {
    const LoadedConfig original = Load(file);
    const std::string copy = (directory / "copy.yaml").string();
    std::ofstream(copy) << WriteConfig(original.config);
    const LoadedConfig again = Load(copy);
    ASSERT_EQ(original.values.size(), again.values.size()) << file;
    for (size_t i = 0; i < original.values.size(); ++i) {
      const std::string& key = original.values[i].key;
      EXPECT_EQ(key, again.values[i].key);
      const bool is_path = key.ends_with("path") || key.ends_with("_file");
      const std::string text = original.values[i].text;
      EXPECT_EQ(is_path && !text.empty() ? std::filesystem::absolute(text).string() : text,
                again.values[i].text)
          << key;
    }
  }
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace muselet
