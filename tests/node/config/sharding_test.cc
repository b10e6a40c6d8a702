// What a config says about ranks, their devices and the keys of the wires.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "comms/wire_keys.h"
#include "node/config/config_loader.h"
#include "node/config/rank_placement.h"

namespace muselet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class ShardingConfigTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(::testing::TempDir()) /
              ("muselet_sharding_" + std::to_string(getpid()));
    std::filesystem::create_directories(folder_);
    std::ofstream(folder_ / "m.gguf") << "GGUF";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  ConfigOutcome Load(const std::string& yaml, ConfigRequest request = {}) {
    request.file = (folder_ / "c.yaml").string();
    std::ofstream(request.file) << "models: [{path: m.gguf}]\n" << yaml;
    return LoadConfig(request);
  }
  std::vector<std::string> FaultsOf(const std::string& yaml, const ConfigRequest& request = {}) {
    std::vector<std::string> lines;
    const std::string prefix = folder_.string() + "/";
    for (const ConfigFault& fault : Load(yaml, request).faults) {
      std::string line = fault.ToString();
      for (size_t at = line.find(prefix); at != std::string::npos; at = line.find(prefix)) {
        line.erase(at, prefix.size());
      }
      lines.push_back(line);
    }
    return lines;
  }
  // "n0 cpu:0, n1 cpu:1" for the replica `index` of a config without faults.
  std::string Places(const std::string& yaml, size_t index = 0) {
    const ConfigOutcome outcome = Load(yaml);
    if (!outcome.loaded) return FormatFaults(outcome.faults);
    const ClusterConfig& config = outcome.loaded->config;
    std::string text;
    uint32_t number = 0;
    for (const RankPlacement& rank : PlaceRanks(config, config.replicas[index])) {
      EXPECT_EQ(rank.rank, number++);
      text += (text.empty() ? "" : ", ") + rank.node + " " + rank.device;
    }
    return text;
  }

  std::filesystem::path folder_;
};

constexpr const char* kFour = "nodes: [{name: n0, devices: [cpu:0, cpu:1, cpu:2, cpu:3]}]\n";
constexpr const char* kTwoNodes =
    "nodes: [{name: n0, ranks: \"tcp://127.0.0.1:5560\"}, {name: n1, devices: [cpu:0, cpu:1]}]\n";

TEST_F(ShardingConfigTest, RanksTakeTheDevicesOfTheNodesInOrder) {
  EXPECT_EQ(Places(std::string(kFour) + "replicas: [{tensor: 2, pipeline: 2}]\n"),
            "n0 cpu:0, n0 cpu:1, n0 cpu:2, n0 cpu:3");
  EXPECT_EQ(Places(std::string(kTwoNodes) + "replicas: [{pipeline: 3, on: [n0, n1]}]\n"),
            "n0 cpu:0, n1 cpu:0, n1 cpu:1");
}

// Every rank has a cache of kv.bytes; a machine has its ranks' part of the weights.
TEST_F(ShardingConfigTest, CountsTheMemoryOfTheRanksOfAMachine) {
  ConfigRequest request;
  request.machine =
      Machine{{1ULL << 30, "the memory of this machine"}, [](IsaLevel) { return OkStatus(); }};
  const std::string two = std::string(kFour) + "replicas: [{tensor: 2}]\n";
  EXPECT_THAT(FaultsOf(two + "kv: {bytes: 512MiB}\n", request), IsEmpty());
  EXPECT_THAT(FaultsOf(two + "kv: {bytes: 513MiB}\n", request),
              ElementsAre(HasSubstr("kv.bytes: 513MiB for each of 2 ranks is more than the memory "
                                    "of this machine, 1.0 GiB (less than 512MiB")));
  // A sparse file: a third of it on one machine, two thirds on the other.
  std::filesystem::resize_file(folder_ / "m.gguf", 600 << 20);
  const std::string spread = std::string(kTwoNodes) + "replicas: [{pipeline: 3, on: [n0, n1]}]\n" +
                             "schedulers: [{name: s, rpc: \"tcp://127.0.0.1:5555\"}]\n";
  request.file_check = ConfigRequest::FileCheck::kOneEntry;
  request.entry = "n0";
  EXPECT_THAT(FaultsOf(spread + "kv: {bytes: 800MiB}\n", request), IsEmpty());
  request.entry = "n1";
  EXPECT_THAT(FaultsOf(spread + "kv: {bytes: 312MiB}\n", request), IsEmpty());
  EXPECT_THAT(
      FaultsOf(spread + "kv: {bytes: 313MiB}\n", request),
      ElementsAre(HasSubstr("313MiB for each of 2 ranks and 400 MiB of weights is more than "
                            "the memory of this machine, 1.0 GiB (less than 312MiB")));
}

TEST_F(ShardingConfigTest, ShardedReplicasShareNodesButNoDevice) {
  const std::string yaml =
      std::string(kFour) + "replicas: [{tensor: 2, on: [n0]}, {pipeline: 2, on: [n0]}]\n";
  EXPECT_EQ(Places(yaml, 0), "n0 cpu:0, n0 cpu:1");
  EXPECT_EQ(Places(yaml, 1), "n0 cpu:2, n0 cpu:3");
}

TEST_F(ShardingConfigTest, ReplicasOfOneRankShareADeviceThatNoShardHas) {
  const std::string yaml =
      "nodes: [{devices: [cpu:0, cpu:1, cpu:2]}]\nreplicas: [{}, {tensor: 2}, {}]\n";
  EXPECT_EQ(Places(yaml, 0), "node-0 cpu:0");
  EXPECT_EQ(Places(yaml, 1), "node-0 cpu:1, node-0 cpu:2");
  EXPECT_EQ(Places(yaml, 2), "node-0 cpu:0");
}

TEST_F(ShardingConfigTest, RanksJoinOverLoopbackUnlessSomeAreElsewhere) {
  const ConfigOutcome one = Load(std::string(kFour) + "replicas: [{tensor: 4}]\n");
  ASSERT_TRUE(one.loaded) << FormatFaults(one.faults);
  EXPECT_EQ(RanksEndpoint(one.loaded->config, one.loaded->config.replicas[0]), "tcp://127.0.0.1:0");
  const ConfigOutcome two =
      Load(std::string(kTwoNodes) + "replicas: [{pipeline: 2, on: [n0, n1]}]\n");
  ASSERT_TRUE(two.loaded) << FormatFaults(two.faults);
  EXPECT_EQ(RanksEndpoint(two.loaded->config, two.loaded->config.replicas[0]),
            "tcp://127.0.0.1:5560");
}

TEST_F(ShardingConfigTest, LayersByHandAreKeptAndShown) {
  const ConfigOutcome outcome =
      Load(std::string(kFour) + "replicas: [{pipeline: 2, layers: [16, 14]}]\n");
  ASSERT_TRUE(outcome.loaded) << FormatFaults(outcome.faults);
  EXPECT_THAT(outcome.loaded->config.replicas[0].layers, ElementsAre(16U, 14U));
  const auto& values = outcome.loaded->values;
  EXPECT_TRUE(std::any_of(values.begin(), values.end(), [](const EffectiveValue& value) {
    return value.key == "replicas[0].layers" && value.text == "[16, 14]";
  }));
}

TEST_F(ShardingConfigTest, DeviceNamesAreReadStrictly) {
  EXPECT_EQ(DeviceOf("cpu"), "cpu:0");
  EXPECT_EQ(DeviceOf("cpu:12"), "cpu:12");
  EXPECT_EQ(DeviceOf("cuda:0"), "cuda:0");
  for (const char* wrong :
       {"", "cuda", "cpu:", "cpu:-1", "cpu:01", "cpu:1x", "tpu:0", "cpu:9999", "cpu:99999999999"}) {
    EXPECT_EQ(DeviceOf(wrong), "") << wrong;
  }
}

struct BadCase {
  const char* yaml;
  std::vector<std::string> faults;
};

const std::vector<BadCase> kBadShards = {
    {"replicas: [{tensor: 2}]\n",
     {"c.yaml:2:12: replicas[0]: 2 ranks need a device each, and 1 device is free on node-0 (name "
      "more under devices, as in [cpu:0, cpu:1], or more nodes)"}},
    {"nodes: [{devices: [cpu:0, cpu:1, cpu:2]}]\nreplicas: [{name: a, tensor: 2}, {name: b, "
     "pipeline: 2, on: [node-0]}]\n",
     {"c.yaml:3:61: replicas[1].on: 2 ranks need a device each, and 1 device is free on node-0: a "
      "has cpu:0 of node-0, a has cpu:1 of node-0 (name more under devices, as in [cpu:0, cpu:1], "
      "or more nodes)"}},
    {"nodes: [{devices: [cpu, cpu:0]}]\n",
     {"c.yaml:2:19: nodes[0].devices: \"cpu:0\" stands in the list twice (cpu is the same)"}},
    {"nodes: [{devices: [cpu:1, cpu:1]}]\n",
     {"c.yaml:2:19: nodes[0].devices: \"cpu:1\" stands in the list twice"}},
    {"replicas: [{tensor: 0, pipeline: 5000}]\n",
     {"c.yaml:2:21: replicas[0].tensor: 0 is out of range (legal: 1 to 1024)",
      "c.yaml:2:34: replicas[0].pipeline: 5000 is out of range (legal: 1 to 1024)"}},
    {"replicas: [{tensor: 1024, pipeline: 1024}]\n",
     {"c.yaml:2:37: replicas[0].pipeline: tensor x pipeline is 1048576 ranks (at most 1024)"}},
    {"nodes: [{devices: [cpu:0, cpu:1]}]\nreplicas: [{pipeline: 2, layers: [10, 10, 10]}]\n",
     {"c.yaml:3:34: replicas[0].layers: 3 numbers for 2 stages (one number for each stage of the "
      "pipeline)"}},
    {"replicas: [{layers: [10, 0]}]\n",
     {"c.yaml:2:21: replicas[0].layers: 0 is out of range (legal: 1 to 100000)"}},
    {"replicas: [{layers: ten}]\n",
     {"c.yaml:2:21: replicas[0].layers: expected a list of whole numbers, such as [15, 15], found "
      "\"ten\""}},
    {"nodes: [{name: n0}, {name: n1}]\nreplicas: [{on: [n0, n1]}]\n",
     {"c.yaml:3:17: replicas[0].on: a replica of one rank runs on one node (write one replica for "
      "each node, or shard it with tensor and pipeline)"}},
    {"nodes: [{name: n0}, {name: n1}]\nreplicas: [{name: r, pipeline: 2, on: [n0, n1]}]\n",
     {"c.yaml:2:9: nodes[0].ranks: missing: ranks of r on other nodes join n0 there (such as "
      "tcp://127.0.0.1:5560)"}},
    {"nodes: [{name: n0, ranks: \"tcp://127.0.0.1:0\"}, {name: n1}]\nreplicas: [{pipeline: 2, on: "
     "[n0, n1]}]\n",
     {"c.yaml:2:27: nodes[0].ranks: port 0 cannot be found by the others (choose a port)"}},
    {"nodes: [{name: n0, ranks: \"inproc://x\"}, {name: n1}]\nreplicas: [{pipeline: 2, on: [n0, "
     "n1]}]\n",
     {"c.yaml:2:27: nodes[0].ranks: no other process can reach inproc://x (such as "
      "tcp://127.0.0.1:5560)"}},
    {"nodes: [{name: n0, ranks: \"tcp://127.0.0.1:8000\"}]\n",
     {"c.yaml:2:27: nodes[0].ranks: 127.0.0.1:8000 is taken by gateways[0].http (choose another "
      "port)"}},
    {"nodes: [{name: n0, devices: [cpu:0, cpu:1]}, {name: n1}]\nreplicas: [{pipeline: 2, on: [n0, "
     "n1]}]\n",
     {"c.yaml:3:30: replicas[0].on: no rank is left for n1 (the ranks take the free devices of the "
      "nodes in order: leave n1 out, or list fewer devices on the others)"}},
    {"nodes: [{name: n0}, {name: n1}]\nreplicas: [{pipeline: 2, on: [n0, n2]}]\n",
     {"c.yaml:3:30: replicas[0].on: no node is called \"n2\" (did you mean n0?)"}},
    {"nodes: [{name: n0, devices: [cpu:0, cpu:1], ranks: \"tcp://127.0.0.1:5560\"}, {name: n1, "
     "devices: [cpu:0, cpu:1, cpu:2]}]\nreplicas: [{name: a, pipeline: 3, on: [n0, n1]}, {}]\n",
     {"c.yaml:3:50: replicas[1].on: missing (there are several nodes: name one)"}},
};

TEST_F(ShardingConfigTest, NamesThePlaceTheProblemAndTheFix) {
  for (const BadCase& bad : kBadShards) EXPECT_EQ(FaultsOf(bad.yaml), bad.faults) << bad.yaml;
}

TEST_F(ShardingConfigTest, ANodeLeadsOneReplicaThatSpansNodes) {
  EXPECT_THAT(
      FaultsOf("nodes: [{name: n0, devices: [cpu:0, cpu:1], ranks: \"tcp://127.0.0.1:5560\"},\n"
               "  {name: n1}, {name: n2}]\n"
               "replicas: [{name: a, pipeline: 2, on: [n1, n2]}, {name: b, pipeline: 3, on: [n0, "
               "n1]}]\n"),
      ElementsAre(HasSubstr("nodes[1].ranks: missing"),
                  HasSubstr("replicas[1].on: 3 ranks need a device each, and 2 devices are free on "
                            "n0, n1: a has cpu:0 of n1")));
  EXPECT_THAT(
      FaultsOf("nodes: [{name: n0, devices: [cpu:0, cpu:1], ranks: \"tcp://127.0.0.1:5560\"},\n"
               "  {name: n1, devices: [cpu:0, cpu:1]}]\n"
               "replicas: [{name: a, pipeline: 3, on: [n0, n1]}, {name: b, on: [n1]}]\n"),
      IsEmpty());
}

constexpr const char* kTwoHosts =
    "schedulers: [{rpc: \"tcp://10.0.0.2:5555\"}]\n"
    "nodes: [{name: n0, host: 10.0.0.2, ranks: \"tcp://10.0.0.2:5560\"},\n"
    "  {name: n1, host: 10.0.0.3}]\n"
    "replicas: [{pipeline: 2, on: [n0, n1]}]\n";

TEST_F(ShardingConfigTest, WiresOffLoopbackNeedKeysAndTensorsAPrivateNetwork) {
  ASSERT_TRUE(WriteWireKeyFiles((folder_ / "cluster").string()).ok());
  const std::string keys = "security: {key_file: cluster.key}\n";
  EXPECT_EQ(FaultsOf(kTwoHosts).size(), 5U);
  EXPECT_THAT(FaultsOf(kTwoHosts + keys),
              ElementsAre("c.yaml:5:30: replicas[0].on: tensors between its ranks cross the "
                          "network to 10.0.0.2 in plain TCP, keys or not (ranks.private_network: "
                          "true says that nobody else can reach that network; or keep its ranks on "
                          "one node)"));
  EXPECT_THAT(FaultsOf(kTwoHosts + keys + "ranks: {private_network: true}\n"), IsEmpty());
  EXPECT_THAT(FaultsOf(std::string(kTwoHosts) + "insecure: true\n"), IsEmpty());
}

TEST_F(ShardingConfigTest, KeyFilesAreReadBeforeAnythingStarts) {
  ASSERT_TRUE(WriteWireKeyFiles((folder_ / "a").string()).ok());
  chmod((folder_ / "a.key").c_str(), 0644);
  EXPECT_THAT(FaultsOf("security: {key_file: a.key, known_keys_file: none.pub}\n"),
              ElementsAre(HasSubstr("c.yaml:2:22: security.key_file: a.key: others than its owner "
                                    "may use this secret key: chmod 600"),
                          HasSubstr("c.yaml:2:46: security.known_keys_file: none.pub: No such")));
  chmod((folder_ / "a.key").c_str(), 0600);
  EXPECT_THAT(FaultsOf("security: {key_file: a.key, known_keys_file: a.key}\n"),
              ElementsAre(HasSubstr("a secret key: it must not be here")));
  EXPECT_THAT(FaultsOf("security: {key_file: a.pub}\n"), ElementsAre(HasSubstr("a.pub")));
  EXPECT_THAT(FaultsOf("security: {key_file: a.key, known_keys_file: a.pub}\n"), IsEmpty());
}

TEST_F(ShardingConfigTest, AMachineMayNameItsKeyByAVariable) {
  ASSERT_TRUE(WriteWireKeyFiles((folder_ / "own").string()).ok());
  ConfigRequest request;
  request.environment = {{"MUSELET_SECURITY_KEY_FILE", (folder_ / "own.key").string()}};
  EXPECT_THAT(FaultsOf("security: {key_file: absent.key}\nranks: {private_network: true}\n" +
                           std::string(kTwoHosts),
                       request),
              IsEmpty());
}

TEST_F(ShardingConfigTest, KeysWithoutAKeyOfTheProcessAreRefused) {
  const std::string key(40, 'k');
  EXPECT_THAT(
      FaultsOf("schedulers: [{public_key: " + key + "}]\nsecurity: {known_keys_file: x}\n"),
      ElementsAre(HasSubstr("c.yaml:2:27: schedulers[0].public_key: is of no use without a key of "
                            "this process (give security.key_file too"),
                  HasSubstr("security.known_keys_file: "),
                  HasSubstr("security.known_keys_file: ")));
  EXPECT_THAT(FaultsOf("nodes: [{public_key: short}]\n"),
              ElementsAre("c.yaml:2:22: nodes[0].public_key: \"short\": a key has 40 characters of "
                          "Z85 (expected a public key of muselet keys generate)"));
}

}  // namespace
}  // namespace muselet
