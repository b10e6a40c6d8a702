// The step path takes no memory from the allocator once it has seen its largest step. Counts what
// this thread asks of operator new.
#include <gtest/gtest.h>

#include "node/model/load_model.h"
#include "tests/node/model/allocations.h"
#include "tests/node/model/random_checkpoint.h"

namespace muselet {
namespace {

// `sequences` rows at `position`, or one chunk of `rows` rows from position 0.
StepPlan MakePlan(uint32_t sequences, uint32_t rows, uint32_t position) {
  StepPlan plan;
  for (uint32_t s = 0; s < sequences; ++s) {
    SequenceSlice slice = {s, position, plan.row_count(), rows, 1, true, {}, {}};
    slice.table_begin = {static_cast<uint32_t>(plan.block_tables.size())};
    slice.table_count = {32};
    for (BlockId b = 0; b < 32; ++b) plan.block_tables.push_back(s * 32 + b);
    plan.tokens.insert(plan.tokens.end(), rows, 5);
    plan.slices.push_back(slice);
  }
  return plan;
}

TEST(StepAllocationTest, StepsTakeNoMemoryAfterTheLargest) {
  EngineOptions options;
  options.cpu.threads = 1;  // what other threads compute runs here
  options.kv.bytes = 64 << 20;
  const auto model = LoadModel(
      std::make_shared<testing::RandomCheckpoint>(testing::RandomModelShape{}), options, {});
  ASSERT_TRUE(model.ok()) << model.status().message();
  if (model.value()->info().kv_groups[0].block_count < 8 * 32) GTEST_FAIL() << "cache too small";
  const StepPlan plans[] = {MakePlan(1, 300, 0), MakePlan(8, 1, 500), MakePlan(1, 1, 500),
                            MakePlan(3, 7, 400)};
  for (const StepPlan& plan : plans) ASSERT_TRUE((*model)->Forward(plan).ok());
  const uint64_t before = testing::AllocationsSoFar().count;
  for (const StepPlan& plan : plans) ASSERT_TRUE((*model)->Forward(plan).ok());
  EXPECT_EQ(testing::AllocationsSoFar().count, before);
}

}  // namespace
}  // namespace muselet
