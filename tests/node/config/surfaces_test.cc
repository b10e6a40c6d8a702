// What the config says of surfaces.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "node/config/config_loader.h"

namespace muselet {
namespace {

std::string TempFile(const std::string& name, const std::string& text) {
  const std::string path = ::testing::TempDir() + name + std::to_string(::getpid());
  std::ofstream(path) << text;
  return path;
}

ConfigOutcome Load(const std::string& yaml, ConfigRequest::FileCheck check) {
  ConfigRequest request;
  request.file = TempFile("surfaces_", yaml);
  request.file_check = check;
  ConfigOutcome outcome = LoadConfig(request);
  std::remove(request.file.c_str());
  return outcome;
}

// The faults of the keys that begin with `key`.
std::string FaultsOf(const std::string& key, const ConfigOutcome& outcome) {
  std::string text;
  for (const ConfigFault& fault : outcome.faults) {
    if (fault.key.starts_with(key)) text += fault.key + ": " + fault.problem;
  }
  return text;
}

TEST(Surfaces, DoNotThinkLongerByDefaultThanTheyMay) {
  const ConfigOutcome outcome = Load(
      "models: [{path: m.gguf}]\nsurfaces:\n  - name: a\n    reasoning_tokens_default: 9\n"
      "    reasoning_tokens_max: 8\n",
      ConfigRequest::FileCheck::kNone);
  EXPECT_EQ(FaultsOf("surfaces", outcome),
            "surfaces[0].reasoning_tokens_default: 9 is more than reasoning_tokens_max");
}

TEST(Surfaces, ASecretThatOthersMayReadIsRefused) {
  const std::string secret = TempFile("secret_", std::string(64, 'a'));
  std::filesystem::permissions(secret, std::filesystem::perms{0644});
  const ConfigOutcome outcome =
      Load("models: [{path: m.gguf}]\nsecurity: {secret_file: " + secret + "}\n",
           ConfigRequest::FileCheck::kAll);
  std::filesystem::remove(secret);
  EXPECT_EQ(
      FaultsOf("security", outcome),
      "security.secret_file: " + secret + " can be read by others than its owner: chmod 600 it");
}

TEST(Surfaces, SayWhatTheyMayUseAndArePromised) {
  const std::string yaml = R"(models: [{path: m.gguf}]
surfaces:
  - name: glasses
    key_file: keys
    class: realtime
    share: 4
    running_max: 64
    requests_per_minute: 6000
    tokens_per_minute: 5000000000
    waiting_requests_max: 128
    waiting_tokens_max: 1000000
    ttft: 200
    tpot: 25ms
    timeout: 30s
    prefix_salt: shared with the phone
    reasoning_tokens_default: 128
    reasoning_tokens_max: 256
  - name: plain
)";
  const ConfigOutcome outcome = Load(yaml, ConfigRequest::FileCheck::kNone);
  ASSERT_TRUE(outcome.loaded.has_value()) << outcome.faults.front().ToString();
  const std::vector<SurfaceEntry>& surfaces = outcome.loaded->config.surfaces;
  ASSERT_EQ(surfaces.size(), 2U);
  const SurfaceEntry& glasses = surfaces[0];
  EXPECT_EQ(glasses.name, "glasses");
  EXPECT_EQ(glasses.running_max, 64U);
  EXPECT_EQ(glasses.requests_per_minute, 6000U);
  EXPECT_EQ(glasses.tokens_per_minute, 5'000'000'000U);
  EXPECT_EQ(glasses.waiting_requests_max, 128U);
  EXPECT_EQ(glasses.waiting_tokens_max, 1'000'000U);
  EXPECT_EQ(glasses.ttft_us, 200'000);
  EXPECT_EQ(glasses.tpot_us, 25'000);
  EXPECT_EQ(glasses.timeout_us, 30'000'000);
  EXPECT_EQ(glasses.prefix_salt, "shared with the phone");
  EXPECT_EQ(glasses.reasoning_tokens_default, 128U);
  EXPECT_EQ(glasses.reasoning_tokens_max, 256U);
  EXPECT_EQ(surfaces[1].request_class, RequestClass::kInteractive);
  EXPECT_EQ(surfaces[1].tokens_per_minute, 0U);
}

}  // namespace
}  // namespace muselet
