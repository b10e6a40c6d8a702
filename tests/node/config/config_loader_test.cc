#include "node/config/config_loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace muselet {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// A directory of its own for each test, with a model file and a key file.
class ConfigLoaderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    directory_ = std::filesystem::path(::testing::TempDir()) /
                 (std::string("muselet_config_") + test->name() + std::to_string(getpid()));
    std::filesystem::create_directories(directory_);
    Write("m.gguf", "GGUF");
    Write("keys", "sk-one\n");
    Write("empty.key", "\n");
    Write("bad.key", "sk-two\nsk three\n");
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  void Write(const std::string& name, const std::string& text) {
    std::ofstream(directory_ / name, std::ios::binary) << text;
  }

  ConfigOutcome Load(const std::string& yaml, ConfigRequest request = {}) {
    Write("c.yaml", yaml);
    request.file = (directory_ / "c.yaml").string();
    return LoadConfig(request);
  }

  // The faults with the directory cut out.
  std::vector<std::string> Faults(const ConfigOutcome& outcome) const {
    std::vector<std::string> lines;
    const std::string prefix = directory_.string() + "/";
    for (const ConfigFault& fault : outcome.faults) {
      std::string line = fault.ToString();
      for (size_t at = line.find(prefix); at != std::string::npos; at = line.find(prefix)) {
        line.erase(at, prefix.size());
      }
      lines.push_back(line);
    }
    return lines;
  }
  std::vector<std::string> FaultsOf(const std::string& yaml, ConfigRequest request = {}) {
    const ConfigOutcome outcome = Load(yaml, std::move(request));
    EXPECT_EQ(outcome.loaded.has_value(), outcome.faults.empty());
    return Faults(outcome);
  }

  std::filesystem::path directory_;
};

constexpr const char* kModel = "models: [{path: m.gguf}]\n";

TEST_F(ConfigLoaderTest, AModelAloneMakesAWholeCluster) {
  const ConfigOutcome outcome = Load(kModel);
  ASSERT_THAT(Faults(outcome), IsEmpty());
  const ClusterConfig& config = outcome.loaded->config;
  EXPECT_EQ(config.models[0].id, "m");
  EXPECT_EQ(config.models[0].path, (directory_ / "m.gguf").string());
  ASSERT_EQ(config.gateways.size(), 1U);
  EXPECT_EQ(config.gateways[0].http, "127.0.0.1:8000");
  ASSERT_EQ(config.schedulers.size(), 1U);
  EXPECT_EQ(config.schedulers[0].rpc, "inproc://scheduler-0");
  ASSERT_EQ(config.nodes.size(), 1U);
  ASSERT_EQ(config.replicas.size(), 1U);
  EXPECT_EQ(config.replicas[0].model, "m");
  EXPECT_THAT(config.replicas[0].on, ElementsAre("node-0"));
}

TEST_F(ConfigLoaderTest, ReadsEverySectionAndKindOfOption) {
  const ConfigOutcome outcome = Load(R"(cluster: demo
models: [{id: a/b, path: m.gguf}]
gateways: [{name: g, http: "[::1]:0", rpc: "tcp://127.0.0.1:5556"}]
schedulers: [{name: s, rpc: "tcp://127.0.0.1:5555", metrics: "127.0.0.1:9101"}]
nodes: [{name: n, host: localhost, devices: ["cpu:0"]}]
replicas: [{name: r, model: a/b, on: [n]}]
surfaces: [{name: glasses, key_file: keys, class: realtime, share: 2.5}]
cpu: {activations: float32, threads: 2, isa: scalar}
kv: {bytes: 64MiB}
batch: {prefix_cache: false, step_target: 20ms, step_max: 100}
log: {level: warn}
)");
  ASSERT_THAT(Faults(outcome), IsEmpty());
  const ClusterConfig& config = outcome.loaded->config;
  EXPECT_EQ(config.cluster, "demo");
  EXPECT_EQ(config.nodes[0].host, "localhost");
  EXPECT_EQ(config.surfaces[0].request_class, RequestClass::kRealtime);
  EXPECT_DOUBLE_EQ(config.surfaces[0].share, 2.5);
  EXPECT_EQ(config.engine.cpu.activations, ActivationFormat::kFloat32);
  EXPECT_EQ(config.engine.cpu.isa, IsaLevel::kScalar);
  EXPECT_EQ(config.engine.kv.bytes, 64ULL << 20);
  EXPECT_FALSE(config.engine.batch.prefix_cache);
  EXPECT_EQ(config.engine.batch.step_target_us, 20'000);
  EXPECT_EQ(config.engine.batch.step_max_us, 100'000);
  EXPECT_EQ(config.log_level, LogLevel::kWarn);
}

struct BadCase {
  const char* name;
  const char* yaml;
  std::vector<std::string> faults;
};

const std::vector<BadCase> kBadDocuments = {
    {"unknown key",
     "models: [{path: m.gguf}]\nclustr: x\n",
     {"c.yaml:2:1: clustr: unknown key (did you mean cluster?)"}},
    {"unknown nested key",
     "models: [{path: m.gguf}]\ngateway:\n  http:\n    body_byte_max: 1\n",
     {"c.yaml:4:5: gateway.http.body_byte_max: unknown key (did you mean body_bytes_max?)"}},
    {"key in the wrong place",
     "models: [{path: m.gguf}]\nactivations: int8\n",
     {"c.yaml:2:1: activations: unknown key (did you mean cpu.activations?)"}},
    {"unknown key of an entry",
     "models:\n  - path: m.gguf\n    ide: x\n",
     {"c.yaml:3:5: models[0].ide: unknown key (did you mean id?)"}},
    {"duplicate key",
     "models: [{path: m.gguf}]\nkv:\n  bytes: 2MiB\n  bytes: 3MiB\n",
     {"c.yaml:4:3: kv.bytes: duplicate key (first given at 3:3)"}},
    {"wrong type",
     "models: [{path: m.gguf}]\ncpu: {threads: many}\n",
     {"c.yaml:2:16: cpu.threads: expected a whole number, found \"many\""}},
    {"fraction",
     "models: [{path: m.gguf}]\ncpu: {threads: 1.5}\n",
     {"c.yaml:2:16: cpu.threads: expected a whole number, found \"1.5\""}},
    {"quoted number",
     "models: [{path: m.gguf}]\ncpu: {threads: \"2\"}\n",
     {"c.yaml:2:16: cpu.threads: expected a whole number, found the text \"2\" (remove the "
      "quotes)"}},
    {"out of range",
     "models: [{path: m.gguf}]\ncpu: {threads: -1}\n",
     {"c.yaml:2:16: cpu.threads: -1 is out of range (legal: 0 to 1024)"}},
    {"choice",
     "models: [{path: m.gguf}]\ncpu: {activations: flaot32}\n",
     {"c.yaml:2:20: cpu.activations: expected one of int8, float32, found \"flaot32\" (did you "
      "mean float32?)"}},
    {"bad bytes",
     "models: [{path: m.gguf}]\nkv: {bytes: 3 potatoes}\n",
     {"c.yaml:2:13: kv.bytes: expected a number of bytes, such as 1048576 or \"256MiB\", found "
      "\"3 potatoes\""}},
    {"bool",
     "models: [{path: m.gguf}]\ninsecure: yes\n",
     {"c.yaml:2:11: insecure: expected true or false, found \"yes\" (write true or false, "
      "without "
      "quotes)"}},
    {"nothing",
     "models: [{path: m.gguf}]\nkv:\n  bytes:\n",
     {"c.yaml:3:3: kv.bytes: expected a number of bytes, such as 1048576 or \"256MiB\", found "
      "nothing"}},
    {"scalar for a group",
     "models: [{path: m.gguf}]\nkv: 5\n",
     {"c.yaml:2:5: kv: expected keys and values, found \"5\""}},
    {"map for a list",
     "models: {path: m.gguf}\n",
     {"c.yaml:1:9: models: expected a list, found a map (write each entry as - {key: value, "
      "...})"}},
    {"entry is a word",
     "models: [m.gguf]\n",
     {"c.yaml:1:10: models[0]: expected keys and values, found \"m.gguf\" (write - {id: ...})"}},
    {"missing required",
     "models: [{id: x}]\n",
     {"c.yaml:1:10: models[0].path: missing (GGUF file or Hugging Face directory)"}},
    {"no model", "cluster: x\n", {"c.yaml: models: no model is named (add models: [{path: ...}])"}},
    {"empty file", "", {"c.yaml: models: no model is named (add models: [{path: ...}])"}},
    {"not a map", "- a\n", {"c.yaml:1:1: expected keys and values, found a list"}},
    {"alias",
     "models: &m [{path: m.gguf}]\nreplicas: *m\n",
     {"c.yaml:1:9: models: anchors are not supported (write the value where it is used)",
      "c.yaml:2:11: replicas: aliases are not supported (write the value out)"}},
    {"tag",
     "models: [{path: !!str m.gguf}]\n",
     {"c.yaml:1:17: models[0].path: tags are not supported: tag:yaml.org,2002:str (remove the "
      "tag)"}},
    {"second document",
     "models: [{path: m.gguf}]\n---\ncluster: x\n",
     {"c.yaml:2:1: a second document (one file holds one cluster; remove the ---)"}},
    {"not YAML",
     "models: [{path: m.gguf}\n",
     {"c.yaml:2:1: not YAML: end of sequence flow not found"}},
    {"control character",
     "models: [{path: m.gguf}]\n\x04",
     {"c.yaml:2:1: control character 4 (is this a text file?)"}},
    {"model file",
     "models: [{path: none.gguf}]\n",
     {"c.yaml:1:17: models[0].path: none.gguf does not exist (a GGUF file or a Hugging Face "
      "directory is needed)"}},
    {"key file",
     "models: [{path: m.gguf}]\nsurfaces: [{name: a, key_file: none.key}]\n",
     {"c.yaml:2:32: surfaces[0].key_file: none.key: No such file or directory (one API key a "
      "line)"}},
    {"empty key file",
     "models: [{path: m.gguf}]\nsurfaces: [{name: a, key_file: empty.key}]\n",
     {"c.yaml:2:32: surfaces[0].key_file: empty.key: no key in it: put one key on each line (one "
      "API key a line)"}},
    {"key that no header can carry",
     "models: [{path: m.gguf}]\nsurfaces: [{name: a, key_file: bad.key}]\n",
     {"c.yaml:2:32: surfaces[0].key_file: bad.key:2: a key may hold printable ASCII characters "
      "only, and no spaces (one API key a line)"}},
    {"key of two surfaces",
     "models: [{path: m.gguf}]\nsurfaces: [{name: a, key_file: keys}, {name: b, key_file: keys}]\n",
     {"c.yaml:2:59: surfaces[1].key_file: keys:1: this key belongs to another surface already (one "
      "API key a line)"}},
    {"two keyless surfaces",
     "models: [{path: m.gguf}]\nsurfaces: [{name: a}, {name: b}]\n",
     {"c.yaml:2:23: surfaces[1].key_file: missing (requests without a key are of surface \"a\" "
      "already)"}},
    {"duplicate names",
     "models: [{path: m.gguf}]\nnodes: [{name: a}]\ngateways: [{name: a}]\n",
     {"c.yaml:2:16: nodes[0].name: the name \"a\" is given twice (names must be unique)"}},
    {"duplicate model",
     "models: [{id: x, path: m.gguf}, {id: x, path: m.gguf}]\n",
     {"c.yaml:1:38: models[1].id: the model id \"x\" is given twice (names must be unique)"}},
    {"unknown model",
     "models: [{id: alpha, path: m.gguf}]\nreplicas: [{model: alpa}]\n",
     {"c.yaml:1:15: models[0].id: no replica serves \"alpha\" (add one under replicas)",
      "c.yaml:2:20: replicas[0].model: no model has the id \"alpa\" (did you mean alpha?)"}},
    {"unknown node",
     "models: [{path: m.gguf}]\nnodes: [{name: n0}]\nreplicas: [{on: [n1]}]\n",
     {"c.yaml:3:17: replicas[0].on: no node is called \"n1\" (did you mean n0?)"}},
    {"cuda",
     "models: [{path: m.gguf}]\nnodes: [{devices: [\"cuda:0\"]}]\n",
     {"c.yaml:2:19: nodes[0].devices: cuda:0: this build has no CUDA backend (use cpu, or "
      "cpu:0, cpu:1, ...)"}},
    {"bad address",
     "models: [{path: m.gguf}]\ngateways: [{http: localhost}]\n",
     {"c.yaml:2:19: gateways[0].http: \"localhost\": the port is missing (expected HOST:PORT)"}},
    {"bad port",
     "models: [{path: m.gguf}]\ngateways: [{http: \"127.0.0.1:70000\"}]\n",
     {"c.yaml:2:19: gateways[0].http: \"127.0.0.1:70000\": the port must be a number from 0 to "
      "65535 (expected HOST:PORT)"}},
    {"bad endpoint",
     "models: [{path: m.gguf}]\nschedulers: [{rpc: \"udp://x:1\"}]\n",
     {"c.yaml:2:20: schedulers[0].rpc: \"udp://x:1\": must begin with tcp:// or inproc:// "
      "(expected tcp://HOST:PORT or inproc://NAME)"}},
    {"address taken twice",
     "models: [{path: m.gguf}]\ngateways: [{http: \"127.0.0.1:80\"}, {http: \"127.0.0.1:80\"}]\n",
     {"c.yaml:2:43: gateways[1].http: 127.0.0.1:80 is taken by gateways[0].http (choose another "
      "port)"}},
    {"open without a key",
     "models: [{path: m.gguf}]\ngateways: [{http: \"0.0.0.0:8000\"}]\n",
     {"c.yaml:2:19: gateways[0].http: 0.0.0.0:8000 can be reached from outside without a key "
      "(give every surface a key_file, bind 127.0.0.1, or set insecure: true)"}},
    {"plain wire",
     "models: [{path: m.gguf}]\nnodes: [{host: 10.0.0.2}]\n",
     {"c.yaml:2:16: nodes[0].host: 10.0.0.2 is not a loopback address (give every process a key "
      "with security.key_file (muselet keys generate), use a loopback address, or set insecure: "
      "true on a network that you trust)"}},
    {"options that do not fit",
     "models: [{path: m.gguf}]\nbatch: {prefill_chunk_max: 1024}\n",
     {"c.yaml:2:28: batch.prefill_chunk_max: larger than batch.step_tokens_max (at most 512)"}},
};

TEST_F(ConfigLoaderTest, NamesThePlaceTheProblemAndTheFix) {
  for (const BadCase& bad : kBadDocuments) {
    EXPECT_EQ(FaultsOf(bad.yaml), bad.faults) << bad.name;
  }
}

TEST_F(ConfigLoaderTest, ReportsEveryFaultAtOnceInTheOrderOfTheFile) {
  EXPECT_THAT(
      FaultsOf("kv: {bytes: 1}\nmodels: [{path: 1}, {pth: x}]\ncpu: {isa: sse}\nx: 1\n"),
      ElementsAre("c.yaml:1:13: kv.bytes: 1 is out of range (legal: 1MiB to 16TiB)",
                  "c.yaml:2:17: models[0].path: 1 does not exist (a GGUF file or a Hugging Face "
                  "directory is needed)",
                  "c.yaml:2:21: models[1].path: missing (GGUF file or Hugging Face directory)",
                  "c.yaml:2:22: models[1].pth: unknown key (did you mean path?)",
                  "c.yaml:3:12: cpu.isa: expected one of auto, scalar, avx2, avx512, found \"sse\"",
                  "c.yaml:4:1: x: unknown key"));
}

TEST_F(ConfigLoaderTest, RefusesDepthSizeAndAMissingFile) {
  EXPECT_THAT(FaultsOf("x: " + std::string(100, '[') + std::string(100, ']')),
              ElementsAre(::testing::HasSubstr("nested more than 16 deep")));
  EXPECT_THAT(FaultsOf(std::string(2 << 20, '#')), ElementsAre(::testing::HasSubstr("1048576")));
  ConfigRequest request;
  request.file = "no/such/file.yaml";
  const ConfigOutcome outcome = LoadConfig(request);
  ASSERT_EQ(outcome.faults.size(), 1U);
  EXPECT_THAT(outcome.faults[0].ToString(), ::testing::StartsWith("no/such/file.yaml: "));
}

TEST_F(ConfigLoaderTest, AFlagWinsOverAVariableOverTheFile) {
  const std::string yaml = std::string(kModel) + "kv: {bytes: 2MiB}\nlog: {level: error}\n";
  ConfigRequest request;
  request.environment = {
      {"MUSELET_KV_BYTES", "3MiB"}, {"MUSELET_CPU_THREADS", "3"}, {"MUSELET_LOG_LEVEL", "debug"}};
  request.flags = {{"kv.bytes", "4MiB"}, {"http", "127.0.0.1:9"}};
  const ConfigOutcome outcome = Load(yaml, request);
  ASSERT_THAT(Faults(outcome), IsEmpty());
  EXPECT_EQ(outcome.loaded->config.engine.kv.bytes, 4ULL << 20);
  EXPECT_EQ(outcome.loaded->config.engine.cpu.threads, 3U);
  EXPECT_EQ(outcome.loaded->config.log_level, LogLevel::kDebug);
  EXPECT_EQ(outcome.loaded->config.gateways[0].http, "127.0.0.1:9");
  std::map<std::string, std::string> sources;
  for (const EffectiveValue& value : outcome.loaded->values) {
    sources[value.key] =
        value.text + " " + std::filesystem::path(value.source.ToString()).filename().string();
  }
  EXPECT_EQ(sources["kv.bytes"], "4MiB --kv-bytes");
  EXPECT_EQ(sources["cpu.threads"], "3 MUSELET_CPU_THREADS");
  EXPECT_EQ(sources["models[0].path"].substr(sources["models[0].path"].rfind(' ')), " c.yaml:1:17");
  EXPECT_EQ(sources["cpu.isa"], "auto default");
  EXPECT_EQ(sources["gateways[0].http"], "127.0.0.1:9 --http");
}

TEST_F(ConfigLoaderTest, BlamesTheVariableOrTheFlag) {
  ConfigRequest request;
  request.environment = {{"MUSELET_KV_BYTES", "lots"}};
  request.flags = {{"cpu.threads", "9999"}, {"http", "0.0.0.0:8000"}};
  EXPECT_THAT(FaultsOf(kModel, request),
              ElementsAre("MUSELET_KV_BYTES: expected a number of bytes, such as 1048576 "
                          "or \"256MiB\", found \"lots\"",
                          "--cpu-threads: 9999 is out of range (legal: 0 to 1024)",
                          "--http: 0.0.0.0:8000 can be reached from outside "
                          "without a key (give every surface a key_file, bind 127.0.0.1, or set "
                          "insecure: true)"));
}

TEST_F(ConfigLoaderTest, WarnsOfAVariableThatIsNearlyOneOfOurs) {
  ConfigRequest request;
  request.environment = {{"MUSELET_KV_BYTE", "3MiB"}, {"MUSELET_SERVICE_PORT_HTTP_API", "80"}};
  const ConfigOutcome outcome = Load(kModel, request);
  EXPECT_THAT(outcome.warnings,
              ElementsAre("MUSELET_KV_BYTE is not used: did you mean MUSELET_KV_BYTES?"));
}

TEST_F(ConfigLoaderTest, ServesAPathWithoutAFile) {
  ConfigRequest request;
  request.flags = {{"model", (directory_ / "m.gguf").string()},
                   {"key_file", (directory_ / "keys").string()},
                   {"http", "0.0.0.0:0"}};
  const ConfigOutcome outcome = LoadConfig(request);
  ASSERT_THAT(Faults(outcome), IsEmpty());
  EXPECT_EQ(outcome.loaded->config.models[0].id, "m");
  EXPECT_EQ(outcome.loaded->config.surfaces[0].name, "default");
  EXPECT_THAT(FaultsOf(kModel, request), ElementsAre(::testing::HasSubstr("names models already")));
}

TEST_F(ConfigLoaderTest, RunNeedsOnlyTheFilesOfItsEntryAndReachableSchedulers) {
  const std::string yaml =
      "models: [{id: a, path: none.gguf}, {id: b, path: m.gguf}]\n"
      "gateways: [{name: g}]\nnodes: [{name: n0}, {name: n1}]\n"
      "replicas: [{model: a, on: [n0]}, {model: b, on: [n1]}]\n"
      "schedulers: [{name: s, rpc: \"tcp://127.0.0.1:5555\"}]\n";
  ConfigRequest request;
  request.file_check = ConfigRequest::FileCheck::kOneEntry;
  for (const char* fine : {"s", "n1"}) {
    request.entry = fine;
    EXPECT_THAT(FaultsOf(yaml, request), IsEmpty()) << fine;
  }
  for (const char* lacking : {"g", "n0"}) {
    request.entry = lacking;
    EXPECT_THAT(FaultsOf(yaml, request), ElementsAre(::testing::HasSubstr("does not exist")));
  }
  request.entry = "n2";
  EXPECT_THAT(FaultsOf(yaml, request),
              ElementsAre("--name: no entry is called \"n2\" (did you mean n0?)"));
  request.entry = "node-0";
  EXPECT_THAT(FaultsOf(kModel, request), ElementsAre(::testing::HasSubstr("inproc://scheduler-0")));
}

// Faults of one entry must not hide those of others, nor make up new ones.
TEST_F(ConfigLoaderTest, ChecksBetweenEntriesGoOnAroundThoseThatCannotBeRead) {
  EXPECT_THAT(
      FaultsOf("models: [{id: a, path: none.gguf}, {id: b, pth: m.gguf}]\n"
               "gateways: [{http: nonsense}, {http: \"0.0.0.0:8000\"}]\n"
               "nodes: [{name: n0}, {name: n1}]\n"
               "replicas: [{model: a, on: [n0]}, {model: b, on: [n2]}, {modle: b, on: [n1]}]\n"
               "surfaces: [{name: s, key_file: bad.key}, {name: t}]\n"
               "batch: {step_tokens_max: lots, prefill_chunk_max: 1024, step_target: 1s}\n"),
      ElementsAre("c.yaml:1:24: models[0].path: none.gguf does not exist (a GGUF file or a Hugging "
                  "Face directory is needed)",
                  "c.yaml:1:36: models[1].path: missing (GGUF file or Hugging Face directory)",
                  "c.yaml:1:44: models[1].pth: unknown key (did you mean path?)",
                  "c.yaml:2:19: gateways[0].http: \"nonsense\": the port is missing (expected "
                  "HOST:PORT)",
                  "c.yaml:2:37: gateways[1].http: 0.0.0.0:8000 can be reached from outside without "
                  "a key (give every surface a key_file, bind 127.0.0.1, or set insecure: true)",
                  "c.yaml:4:49: replicas[1].on: no node is called \"n2\" (did you mean n0?)",
                  "c.yaml:4:57: replicas[2].modle: unknown key (did you mean model?)",
                  "c.yaml:5:32: surfaces[0].key_file: bad.key:2: a key may hold printable ASCII "
                  "characters only, and no spaces (one API key a line)",
                  "c.yaml:6:26: batch.step_tokens_max: expected a whole number, found \"lots\"",
                  "c.yaml:6:70: batch.step_target: longer than batch.step_max"));
}

TEST_F(ConfigLoaderTest, NoFaultFollowsFromAWordThatWasOnlyMisspelt) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {"modles: [{path: m.gguf}]\n", "c.yaml:1:1: modles: unknown key (did you mean models?)"},
      {"models: [{path: m.gguf}]\nnodes: [{nmae: n7}]\nreplicas: [{on: [n7]}]\n",
       "c.yaml:2:10: nodes[0].nmae: unknown key (did you mean name?)"},
      {"models: [{path: m.gguf}]\ninsecur: true\ngateways: [{http: \"0.0.0.0:1\"}]\n",
       "c.yaml:2:1: insecur: unknown key (did you mean insecure?)"},
      {"models: [{path: m.gguf}]\nbatch: {step_token_max: 2048, prefill_chunk_max: 1024}\n",
       "c.yaml:2:9: batch.step_token_max: unknown key (did you mean step_tokens_max?)"},
      {"models: [{path: m.gguf}]\nsurfaces: [{name: a, keyfile: keys}]\n"
       "gateways: [{http: \"0.0.0.0:1\"}]\n",
       "c.yaml:2:22: surfaces[0].keyfile: unknown key (did you mean key_file?)"},
  };
  for (const auto& [yaml, fault] : cases) EXPECT_THAT(FaultsOf(yaml), ElementsAre(fault));
}

TEST_F(ConfigLoaderTest, AFlagEndsTheDoubtAboutTheFile) {
  ConfigRequest request;
  request.flags = {{"batch.step_tokens_max", "64"}};
  EXPECT_THAT(
      FaultsOf(std::string(kModel) +
                   "batch: {step_tokens_max: x, sequences_max: 65, prefill_chunk_max: 9}\n",
               request),
      ElementsAre("c.yaml:2:26: batch.step_tokens_max: expected a whole number, found \"x\"",
                  "c.yaml:2:44: batch.sequences_max: larger than batch.step_tokens_max "
                  "(every running sequence needs a row of a step)"));
}

// A machine that a test makes up.
Machine MachineWith(uint64_t memory_bytes) {
  return {{memory_bytes, "the memory of this machine"}, [](IsaLevel level) {
            return level == IsaLevel::kAvx2 ? Unavailable("cpu.isa: avx2 needs a newer processor")
                                            : OkStatus();
          }};
}

TEST_F(ConfigLoaderTest, RefusesMoreKvCacheThanTheMachineHasMemory) {
  ConfigRequest request;
  request.machine = MachineWith(1ULL << 30);
  EXPECT_THAT(FaultsOf(std::string(kModel) + "kv: {bytes: 1GiB}\n", request), IsEmpty());
  EXPECT_THAT(
      FaultsOf(std::string(kModel) + "kv: {bytes: 2GiB}\n", request),
      ElementsAre("c.yaml:2:13: kv.bytes: 2GiB is more than the memory of this machine, 1.0 "
                  "GiB (less than 1GiB, activations need room too)"));
  const std::string two = "models: [{path: m.gguf}]\nnodes: [{name: n0}, {name: n1}]\n";
  EXPECT_THAT(
      FaultsOf(two + "kv: {bytes: 600MiB}\n", request),
      ElementsAre("c.yaml:3:13: kv.bytes: 600MiB for each of 2 ranks is more than the "
                  "memory of this machine, 1.0 GiB (less than 512MiB, activations need room "
                  "too)"));
  // One process serves them all, whatever their hosts are called.
  EXPECT_THAT(FaultsOf("models: [{path: m.gguf}]\n"
                       "nodes: [{name: n0, host: 127.0.0.1}, {name: n1, host: 127.0.0.2}]\n"
                       "kv: {bytes: 600MiB}\n",
                       request),
              ElementsAre(::testing::HasSubstr("600MiB for each of 2 ranks is more than")));
  // Each of two processes has one of them; a scheduler has none.
  const std::string wires = "schedulers: [{name: s, rpc: \"tcp://127.0.0.1:5555\"}]\n";
  request.file_check = ConfigRequest::FileCheck::kOneEntry;
  request.entry = "n0";
  EXPECT_THAT(FaultsOf(two + wires + "kv: {bytes: 600MiB}\n", request), IsEmpty());
  request.entry = "s";
  EXPECT_THAT(FaultsOf(two + wires + "kv: {bytes: 2GiB}\n", request), IsEmpty());
  request.file_check = ConfigRequest::FileCheck::kNone;
  request.entry = "";
  EXPECT_THAT(FaultsOf(std::string(kModel) + "kv: {bytes: 2GiB}\n", request), IsEmpty());
}

TEST_F(ConfigLoaderTest, RefusesAnInstructionSetThatTheProcessorLacks) {
  ConfigRequest request;
  request.machine = MachineWith(0);
  EXPECT_THAT(FaultsOf(std::string(kModel) + "cpu: {isa: scalar}\n", request), IsEmpty());
  EXPECT_THAT(FaultsOf(std::string(kModel) + "cpu: {isa: avx2}\n", request),
              ElementsAre("c.yaml:2:12: cpu.isa: avx2 needs a newer processor"));
}

TEST_F(ConfigLoaderTest, AFileThatIsOnlyLookedAtIsJudgedByThisMachineIfAllItsNodesAreHere) {
  const auto file = [](const std::string& host) {
    return "models: [{path: m.gguf}]\nnodes: [{name: n0}, {name: n1, host: " + host +
           "}]\nschedulers: [{name: s, rpc: \"tcp://10.0.0.1:5555\"}]\ninsecure: true\n"
           "kv: {bytes: 2GiB}\ncpu: {isa: avx2}\n";
  };
  ConfigRequest request;
  request.machine = MachineWith(1ULL << 30);
  request.machine_check = ConfigRequest::MachineCheck::kIfLoopback;
  EXPECT_THAT(FaultsOf(file("10.0.0.2"), request), IsEmpty());
  EXPECT_EQ(FaultsOf(file("localhost"), request).size(), 2U);
}

TEST_F(ConfigLoaderTest, FaultsOfThePathOnTheCommandLineDoNotSpeakOfAFlag) {
  ConfigRequest request;
  request.flags = {{"model", "none.gguf"}};
  const ConfigOutcome outcome = LoadConfig(request);
  EXPECT_THAT(Faults(outcome),
              ElementsAre("PATH: none.gguf does not exist (a GGUF file or a Hugging Face directory "
                          "is needed)"));
}

}  // namespace
}  // namespace muselet
