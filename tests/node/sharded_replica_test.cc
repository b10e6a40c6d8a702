#include "node/sharded_replica.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "node/cpu/thread_pool.h"
#include "node/wire_security.h"

namespace muselet {
namespace {

using ::testing::HasSubstr;

// Three stages: two on the first host, one on the second.
ClusterConfig TwoHosts() {
  ClusterConfig config;
  config.models = {{"m", "/models/m.gguf"}};
  NodeEntry first;
  first.name = "n0";
  first.host = "10.0.0.2";
  first.devices = {"cpu:0", "cpu:1"};
  first.ranks = "tcp://0.0.0.0:5560";
  NodeEntry second;
  second.name = "n1";
  second.host = "10.0.0.3";
  config.nodes = {first, second};
  ReplicaEntry sharded;
  sharded.name = "r0";
  sharded.model = "m";
  sharded.pipeline = 3;
  sharded.on = {"n0", "n1"};
  config.replicas = {sharded};
  return config;
}

TEST(ShardedReplica, RanksOfOtherHostsAreToldTheLeadersOwnAddressAndKey) {
  ClusterConfig config = TwoHosts();
  EXPECT_EQ(LeaderEndpoint(config, config.replicas[0]), "tcp://10.0.0.2:5560");
  config.nodes[0].public_key = std::string(40, 'k');
  EXPECT_EQ(LeaderEndpoint(config, config.replicas[0]),
            "tcp://10.0.0.2:5560#" + std::string(40, 'k'));
  config.nodes[0].ranks = "tcp://10.0.0.9:5560";
  EXPECT_THAT(LeaderEndpoint(config, config.replicas[0]), HasSubstr("tcp://10.0.0.9:5560#"));
}

TEST(ShardedReplica, NobodyIsToldAKeyForLoopbackWhichIsPlain) {
  ClusterConfig config = TwoHosts();
  config.nodes[0].public_key = std::string(40, 'k');
  config.nodes[0].ranks = "tcp://127.0.0.1:5560";
  EXPECT_EQ(LeaderEndpoint(config, config.replicas[0]), "tcp://127.0.0.1:5560");
  SchedulerEntry scheduler;
  scheduler.rpc = "tcp://127.0.0.1:5555";
  scheduler.public_key = std::string(40, 'k');
  EXPECT_EQ(ConnectEndpoint(scheduler), "tcp://127.0.0.1:5555");
  scheduler.rpc = "tcp://10.0.0.1:5555";
  EXPECT_EQ(ConnectEndpoint(scheduler), "tcp://10.0.0.1:5555#" + scheduler.public_key);
}

TEST(ShardedReplica, EachNodeStartsTheRanksOfItsOwnDevices) {
  const ClusterConfig config = TwoHosts();
  const auto first = RanksOnNode(config, config.replicas[0], config.nodes[0], "tcp://l:1", false);
  ASSERT_EQ(first.size(), 2U);
  EXPECT_EQ(first[0].rank, 0U);
  EXPECT_EQ(first[1].rank, 1U);
  EXPECT_EQ(first[1].leader, "tcp://l:1");
  const auto second = RanksOnNode(config, config.replicas[0], config.nodes[1], "tcp://l:1", false);
  ASSERT_EQ(second.size(), 1U);
  EXPECT_EQ(second[0].rank, 2U);
  EXPECT_THAT(second[0].config_yaml, HasSubstr("pipeline: 3"));
}

TEST(ShardedReplica, TheCoresOfAMachineAreDividedAmongItsRanks) {
  ClusterConfig config = TwoHosts();
  const uint32_t cores = cpu::ThreadPool::AvailableCpus();
  EXPECT_EQ(ThreadsPerRank(config, config.nodes[1], /*whole_cluster=*/false), cores);
  EXPECT_EQ(ThreadsPerRank(config, config.nodes[0], false), std::max(cores / 2, 1U));
  EXPECT_EQ(ThreadsPerRank(config, config.nodes[1], /*whole_cluster=*/true),
            std::max(cores / 3, 1U));
  config.engine.cpu.threads = 7;
  EXPECT_EQ(ThreadsPerRank(config, config.nodes[0], true), 7U);
  EXPECT_THAT(RanksOnNode(config, config.replicas[0], config.nodes[1], "l", true)[0].config_yaml,
              HasSubstr("threads: 7"));
}

TEST(ShardedReplica, ARankIsSetUpFromTheConfigOfItsNode) {
  const ClusterConfig config = TwoHosts();
  const auto options = RankOptionsOf(config, {"r0", 2, "tcp://l:1", true});
  ASSERT_TRUE(options.ok()) << options.status().message();
  EXPECT_EQ(options->node, "n1");
  EXPECT_EQ(options->host, "10.0.0.3");
  EXPECT_EQ(options->position.stage(), 2U);
  EXPECT_TRUE(options->position.samples());
  EXPECT_TRUE(options->supervised);
  EXPECT_EQ(options->slots, config.engine.batch.sequences_max);
  // Its model is not there: it says so instead of joining.
  EXPECT_THAT(options->load().status().message(), HasSubstr("/models/m.gguf"));
}

TEST(ShardedReplica, TheSilenceTimeoutIsAlsoTheLeastTimeoutOfAStep) {
  EngineOptions engine;
  engine.ranks.silence_timeout_us = 700'000;
  const EpochTiming timing = EpochTimingOf(engine);
  EXPECT_EQ(timing.silence_us, 700'000);
  EXPECT_EQ(StepTimeoutUs(timing, 1'000), 700'000);
  EXPECT_EQ(StepTimeoutUs(timing, 1'000'000), 8'000'000);
}

TEST(ShardedReplica, ARankThatTheConfigDoesNotHaveIsRefused) {
  const ClusterConfig config = TwoHosts();
  EXPECT_EQ(RankOptionsOf(config, {"r9", 0, "l", false}).status().code(), StatusCode::kNotFound);
  const Status beyond = RankOptionsOf(config, {"r0", 3, "l", false}).status();
  EXPECT_EQ(beyond.code(), StatusCode::kNotFound);
  EXPECT_THAT(beyond.message(), HasSubstr("replica r0 has no rank 3"));
}

}  // namespace
}  // namespace muselet
