// Thousands of small clusters through faults on virtual time (chaos_run.h). MUSELET_TEST_SEED=N
// plays that one seed again, MUSELET_TEST_TRACE=1 with a line for each message.
#include <gtest/gtest.h>

#include <cstdio>
#include <optional>
#include <string>

#include "tests/node/simulate/chaos_run.h"
#include "tests/support/fixtures.h"

namespace muselet {
namespace {

TEST(ClusterChaos, LosesNothingAndComesToRestWhateverHappens) {
  const std::optional<uint64_t> one = testing::OneSeed();
  const uint64_t first = one.value_or(1);
  const uint64_t last = one ? first : testing::SeedCount(10'000);
  testing::ChaosCounts counts;
  for (uint64_t seed = first; seed <= last; ++seed) {
    testing::ChaosRun run(seed);
    if (one && testing::TraceAsked())
      run.Trace([](const std::string& line) { std::printf("%s\n", line.c_str()); });
    const std::string failure = run.Run();
    counts.Add(run.counts());
    ASSERT_EQ(failure, "") << "play it again with MUSELET_TEST_SEED=" << seed;
  }
  RecordProperty("requests", static_cast<int>(counts.requests));
  RecordProperty("completed", static_cast<int>(counts.completed));
  RecordProperty("reattempts", static_cast<int>(counts.reattempts));
  RecordProperty("crashes", static_cast<int>(counts.crashes));
  if (one) return;
  // The runs are neither all calm nor all chaos.
  EXPECT_GT(counts.completed, 4 * last);
  EXPECT_GT(counts.reattempts, last / 2);
  EXPECT_GT(counts.crashes, last / 2);
  EXPECT_GT(counts.pauses, last / 4);
  EXPECT_GT(counts.cuts, last / 4);
  EXPECT_LT(counts.failed, counts.completed / 5);
}

TEST(ClusterChaos, PlaysTheSameRunAgain) {
  testing::ChaosRun first(17);
  testing::ChaosRun again(17);
  EXPECT_EQ(first.Run(), again.Run());
  EXPECT_EQ(first.counts().events, again.counts().events);
  EXPECT_EQ(first.counts().tokens, again.counts().tokens);
}

}  // namespace
}  // namespace muselet
