#include "monitoring/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace muselet {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(GatewayMetrics, ShowsEverySeriesAtZeroBeforeTheFirstRequest) {
  MetricRegistry registry;
  const GatewayMetrics metrics(registry, "g0", {"smollm2"});
  const std::string text = registry.Text();
  EXPECT_THAT(text, HasSubstr("muselet_requests_total{gateway=\"g0\",model=\"smollm2\","
                              "outcome=\"cancelled\"} 0"));
  EXPECT_THAT(text, HasSubstr("muselet_time_to_first_token_seconds_count{gateway=\"g0\","
                              "model=\"smollm2\"} 0"));
  EXPECT_THAT(text, HasSubstr("muselet_http_responses_total{code=\"4xx\",gateway=\"g0\"} 0"));
}

TEST(GatewayMetrics, CountsAModelItDoesNotKnowUnderOneLabel) {
  MetricRegistry registry;
  const GatewayMetrics metrics(registry, "g0", {"smollm2"});
  metrics.model("from-the-network-1").prompt_tokens.Increment(3);
  metrics.model("from-the-network-2").prompt_tokens.Increment(4);
  const std::string text = registry.Text();
  EXPECT_THAT(text, HasSubstr("muselet_prompt_tokens_total{gateway=\"g0\",model=\"unknown\"} 7"));
  EXPECT_THAT(text, Not(HasSubstr("from-the-network")));
}

TEST(MetricRegistry, HoldsSeveralRolesOfOneProcessUnderOneFamily) {
  MetricRegistry registry;
  const NodeMetrics first(registry, "n0", "r0", "m");
  const NodeMetrics second(registry, "n0", "r1", "m");
  second.running.Set(5);
  const std::string text = registry.Text();
  const std::string type_line = "# TYPE muselet_sequences_running gauge";
  EXPECT_NE(text.find(type_line), std::string::npos);
  EXPECT_EQ(text.find(type_line), text.rfind(type_line));
  EXPECT_THAT(text, HasSubstr("{model=\"m\",node=\"n0\",replica=\"r0\"} 0"));
  EXPECT_THAT(text, HasSubstr("{model=\"m\",node=\"n0\",replica=\"r1\"} 5"));
}

TEST(MetricRegistry, ReportsTheProcessItself) {
  const std::string text = MetricRegistry().Text();
  for (const char* name : {"process_cpu_seconds_total", "process_resident_memory_bytes",
                           "process_open_fds", "process_start_time_seconds"}) {
    EXPECT_THAT(text, HasSubstr(std::string("# TYPE ") + name));
  }
}

TEST(RankMetrics, CountsLossesByTheirReason) {
  MetricRegistry registry;
  const RankMetrics metrics(registry, "n0", "r0", {"silent", "fault"});
  metrics.losses[1].Increment();
  const std::string text = registry.Text();
  EXPECT_THAT(text, HasSubstr("muselet_rank_losses_total{node=\"n0\",reason=\"silent\","
                              "replica=\"r0\"} 0"));
  EXPECT_THAT(text, HasSubstr("muselet_rank_losses_total{node=\"n0\",reason=\"fault\","
                              "replica=\"r0\"} 1"));
  EXPECT_THAT(text, HasSubstr("muselet_rank_forming_seconds_count{node=\"n0\",replica=\"r0\"} 0"));
}

TEST(RankProcessMetrics, CountsDeathsByTheirCause) {
  MetricRegistry registry;
  const RankProcessMetrics metrics(registry, "n0", {"own_fault", "outside"});
  metrics.deaths[1].Increment();
  EXPECT_THAT(registry.Text(), HasSubstr("muselet_rank_process_deaths_total{cause=\"outside\","
                                         "node=\"n0\"} 1"));
}

TEST(SchedulerMetrics, HasNoSeriesForAModelOutsideTheConfig) {
  MetricRegistry registry;
  const SchedulerMetrics metrics(registry, "s0", {"smollm2"});
  EXPECT_NE(metrics.replicas_ready("smollm2"), nullptr);
  EXPECT_EQ(metrics.replicas_ready("other"), nullptr);
}

}  // namespace
}  // namespace muselet
