#include "node/served_models.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/fixtures.h"

namespace muselet {
namespace {

TEST(ServedModels, RefusesALongerContextThanTheCheckpointHas) {
  const std::string path = testing::GoldenPath("gguf/llama-tied-gqa.Q4_1.gguf");
  const std::vector<ModelEntry> models = {{"m", path}};
  EngineOptions engine;
  const Result<ServedModels> by_default = ServedModels::Open(models, {"m"}, engine, false);
  ASSERT_TRUE(by_default.ok()) << by_default.status().message();
  const uint32_t most = by_default->ForGateway(engine)[0].context_tokens;
  engine.context_tokens = most;
  EXPECT_TRUE(ServedModels::Open(models, {"m"}, engine, false).ok());
  engine.context_tokens = most - 1;
  EXPECT_EQ(ServedModels::Open(models, {"m"}, engine, false)->ForGateway(engine)[0].context_tokens,
            most - 1);
  engine.context_tokens = most + 1;
  const Result<ServedModels> refused = ServedModels::Open(models, {"m"}, engine, false);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().message(),
            "engine.context_tokens: " + std::to_string(most + 1) + " is more than the " +
                std::to_string(most) + " tokens of model m (" + path + "): set it to " +
                std::to_string(most) + " or less, or to 0 for what each checkpoint has");
}

}  // namespace
}  // namespace muselet
