#include "node/cli/cli.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <new>
#include <sstream>
#include <stdexcept>
#include <system_error>

#include "base/json.h"
#include "comms/wire_keys.h"
#include "node/cli/version.h"
#include "node/config/option_table.h"
#include "node/gateway/cluster_secret.h"
#include "tests/node/cli/fake_openai_server.h"

namespace muselet {
namespace {

using testing::FakeOpenAiServer;
using ::testing::HasSubstr;
using ::testing::StartsWith;

struct Outcome {
  int exit_code = 0;
  std::string out;
  std::string err;
  std::string called;
  std::string out_of_reload;
};

Outcome Muselet(const std::vector<std::string>& arguments,
                const std::map<std::string, std::string>& environment = {},
                const std::string& input = "") {
  Outcome outcome;
  CommandHandlers handlers;
  handlers.serve = [&](const ClusterConfig& config) {
    outcome.called = "serve " + config.models[0].path + " " + config.gateways[0].http;
    return 0;
  };
  handlers.run = [&](const ClusterConfig&, const std::string& name) {
    outcome.called = "run " + name;
    return 0;
  };
  handlers.drain = [&](const ClusterConfig& config, const std::string& name) {
    outcome.called = "drain " + name + " of " + config.cluster;
    return 0;
  };
  handlers.offer_reload = [&](const std::function<Result<ClusterConfig>()>& reload) {
    const Result<ClusterConfig> again = reload();
    outcome.out_of_reload = again.ok() ? again->cluster : again.status().message();
  };
  handlers.check_shards = [](const ModelEntry&, const ReplicaEntry& replica) {
    return replica.tensor == 2 ? InvalidArgument("no two") : OkStatus();
  };
  handlers.inspect_model = [](const std::string& path, bool json) -> Result<std::string> {
    if (path == "broken") return DataLoss("broken: not a checkpoint");
    return path + (json ? " json" : " text");
  };
  handlers.plan_model = [](const std::string& path, const PlanArguments& plan,
                           bool json) -> Result<std::string> {
    std::string text = path + (json ? " json" : " text") + " " + std::to_string(plan.tensor) + "x" +
                       std::to_string(plan.pipeline) + " " + plan.device_memory;
    for (const uint32_t layers : plan.layers) text += " " + std::to_string(layers);
    return text;
  };
  std::istringstream in(input);
  std::ostringstream out;
  std::ostringstream err;
  outcome.exit_code = RunCli(arguments, environment, handlers, {in, out, err});
  outcome.out = out.str();
  outcome.err = err.str();
  return outcome;
}

std::string TempFile(const std::string& name, const std::string& text) {
  const std::string path = ::testing::TempDir() + "muselet_cli_" + std::to_string(getpid()) + name;
  std::ofstream(path) << text;
  return path;
}

TEST(Cli, UsageErrorsExitWithTwoAndADidYouMean) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"sevre"}, "muselet: unknown command sevre: did you mean serve?\n"},
      {{"config", "chekc"}, "muselet config: unknown command chekc: did you mean check?\n"},
      {{"serve", "--kv-byte", "3"},
       "muselet serve: unknown option --kv-byte: did you mean --kv-bytes?\n"},
      {{"bench", "--concurency=3"},
       "muselet bench: unknown option --concurency: did you mean --concurrency?\n"},
      {{"version", "now"}, "muselet version: unknown argument now\n"},
      {{"run"}, "muselet run: --name is required: Its name in the file\n"},
      {{"run", "--nmae", "x"}, "muselet run: unknown option --nmae: did you mean --name?\n"},
      {{"model", "inspect"},
       "muselet model inspect: PATH is required: GGUF file or Hugging Face directory\n"},
      {{"config"}, "muselet config: a command is missing: one of check, show, schema, reference\n"},
      {{"serve", "--http"}, "muselet serve: --http needs a value: --http HOST:PORT\n"},
      {{"serve", "m.gguf", "-c"}, "muselet serve: --config needs a value: --config FILE\n"},
      {{"bench", "--concurrency", "0"},
       "muselet bench: --concurrency: expected a whole number from 1 to 65536, found \"0\"\n"},
      {{"chat", "--max-tokens", "-1"},
       "muselet chat: --max-tokens: expected a whole number from 1 to 16777216, found \"-1\"\n"},
      {{"bench", "--seed", "18446744073709551616"},
       "muselet bench: --seed: expected a whole number from 0 to 18446744073709551615, found "
       "\"18446744073709551616\"\n"},
      {{"chat", "--temperature", "hot"},
       "muselet chat: --temperature: expected a number from 0 to 10, found \"hot\"\n"},
      {{"bench", "--seed", "1", "--seed", "2"}, "muselet bench: --seed is given more than once\n"},
      {{"bench", "--quiet=maybe"}, "muselet bench: --quiet takes true or false, found \"maybe\"\n"},
      {{"bench", "--chat", "--completions"},
       "muselet bench: --chat and --completions exclude each other: give one of them\n"},
      {{"--verson"}, "muselet: unknown option --verson: did you mean --version?\n"},
      {{"serve"},
       "muselet: nothing to serve is named: give a cluster file with --config FILE, or a "
       "model: muselet serve PATH\n"},
  };
  for (const auto& [arguments, message] : cases) {
    const Outcome outcome = Muselet(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << message;
    EXPECT_THAT(outcome.err, StartsWith(message));
    EXPECT_EQ(outcome.out, "");
  }
  EXPECT_THAT(Muselet({}).err, HasSubstr("Usage: muselet"));
  EXPECT_EQ(Muselet({}).exit_code, 2);
}

TEST(Cli, HelpIsGroupedAndNamesDefaultsAndVariables) {
  const Outcome top = Muselet({"--help"});
  EXPECT_EQ(top.exit_code, 0);
  EXPECT_EQ(top.out, R"(Serve language models on one machine or on many.
Usage: muselet [OPTIONS] SUBCOMMAND

Options:
  -h,--help
      Print this help
  --version
      Print the version

Subcommands:
  serve     Run the whole cluster in this process
  run       Run one gateway, scheduler or node of a cluster
  drain     Let one process of a cluster end its work and stop, by a word to a scheduler
  simulate  What a cluster would do under a trace, faster than real time
  chat      Talk to a server
  bench     Measure any OpenAI-compatible server
  config    Check and explain configuration
  model     Look at models
  keys      Make keys for the wires between processes, and secrets
  version   Print what this program is

muselet COMMAND --help tells more. Start with: muselet serve MODEL.gguf
)");
  const std::string serve = Muselet({"serve", "--help"}).out;
  for (const Option& option : OptionTable()) {
    EXPECT_THAT(serve, HasSubstr("  " + option.flag()));
    EXPECT_THAT(serve, HasSubstr("[" + option.variable() + "]"));
    EXPECT_THAT(serve, HasSubstr("\n" + option.group + ":\n"));
  }
  EXPECT_THAT(serve, HasSubstr("Size of a request's body (default 4MiB)"));
  EXPECT_THAT(serve, HasSubstr("--batch-prefix-cache=false turns it off)"));
  for (const char* command : {"run", "chat", "bench", "config", "model"}) {
    EXPECT_THAT(Muselet({command, "-h"}).out, HasSubstr(std::string("Usage: muselet ") + command));
  }
}

TEST(Cli, ServeTakesAPathFlagsAndVariables) {
  const std::string model = TempFile("m.gguf", "GGUF");
  const Outcome served = Muselet({"serve", model, "--insecure", "--http", "127.0.0.1:0"});
  EXPECT_EQ(served.called, "serve " + model + " 127.0.0.1:0") << served.err;
  const Outcome by_variable =
      Muselet({"serve"}, {{"MUSELET_MODEL", model}, {"MUSELET_HTTP", "[::1]:0"}});
  EXPECT_EQ(by_variable.called, "serve " + model + " [::1]:0") << by_variable.err;
  const Outcome bad = Muselet({"serve", model, "--insecure=maybe", "--kv-bytes", "x"});
  EXPECT_EQ(bad.exit_code, 2);
  EXPECT_THAT(bad.err, HasSubstr("--kv-bytes: expected a number of bytes"));
  EXPECT_THAT(bad.err, HasSubstr("--insecure: expected true or false"));
}

TEST(Cli, ServeNamesThePathAndNotAFlagThatNobodyTyped) {
  const Outcome outcome = Muselet({"serve", "no/such.gguf", "--cpu-threads", "x"});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("PATH: no/such.gguf does not exist ("));
  EXPECT_THAT(outcome.err, HasSubstr("--cpu-threads: expected a whole number, found \"x\"\n"));
}

TEST(Cli, ServeSaysInOneLineThatThePortIsTaken) {
  const FakeOpenAiServer other([](auto&&...) { return std::string(); });
  const std::string model = TempFile("m.gguf", "GGUF");
  const std::string address = "127.0.0.1:" + std::to_string(other.port());
  const Outcome outcome = Muselet({"serve", model, "--http", address});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_EQ(outcome.called, "");
  EXPECT_EQ(outcome.err, "muselet: gateway-0 http: " + address +
                             " is taken by another process (stop the other process, or choose "
                             "another address with --http HOST:PORT)\n");
}

TEST(Cli, ConfigCommandsCheckShowAndExplain) {
  const std::string model = TempFile("m.gguf", "GGUF");
  const std::string file =
      TempFile("c.yaml", "models: [{path: " + model + "}]\nkv: {bytes: 2MiB}\n");
  EXPECT_EQ(Muselet({"config", "check", file}).out,
            file + ": ok, cluster muselet: 1 model, 1 gateway, 1 scheduler, 1 node, 1 replica\n");
  EXPECT_EQ(Muselet({"config", "check", "--config", file}).exit_code, 0);
  const Outcome shown = Muselet({"config", "show", file, "--cpu-threads", "2"});
  EXPECT_EQ(shown.out, "models[0].path: " + model + "  # " + file + ":1:17\ncpu.threads: 2  # " +
                           "--cpu-threads\nkv.bytes: 2MiB  # " + file + ":2:13\n");
  EXPECT_THAT(Muselet({"config", "show", file, "--effective"}).out,
              HasSubstr("\nbatch.prefix_cache: true  # default\n"));
  const Result<Json> json = ParseJson(Muselet({"config", "show", file, "--json"}).out);
  ASSERT_TRUE(json.ok());
  EXPECT_EQ((*json)[1]["value"], "2MiB");
  const Outcome bad = Muselet({"config", "check", TempFile("b.yaml", "modles: []\n")});
  EXPECT_EQ(bad.exit_code, 2);
  EXPECT_THAT(bad.err, HasSubstr("b.yaml:1:1: modles: unknown key (did you mean models?)\n"));
  EXPECT_TRUE(ParseJson(Muselet({"config", "schema"}).out).ok());
  EXPECT_THAT(Muselet({"config", "reference"}).out, StartsWith("# Configuration\n"));
}

std::string ClusterFile(const std::string& name) {
  return "cluster: demo\nmodels: [{id: m, path: /nowhere/m.gguf}]\n"
         "gateways: [{name: g0, http: 127.0.0.1:0}]\n"
         "schedulers: [{name: s0, rpc: \"tcp://127.0.0.1:5555\"}]\nnodes: [{name: " +
         name + "}]\nreplicas: [{name: r0, model: m, on: [" + name + "]}]\n";
}

TEST(Cli, DrainNamesAProcessAndNeedsNoModelFiles) {
  const std::string file = TempFile("drain.yaml", ClusterFile("n0"));
  const Outcome outcome = Muselet({"drain", "n0", "--config", file});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_EQ(outcome.called, "drain n0 of demo");
  EXPECT_EQ(Muselet({"drain", "--config", file}).exit_code, 2);
  EXPECT_EQ(Muselet({"drain", "n0"}).exit_code, 2);
}

TEST(Cli, AProcessIsToldHowToReadItsFileAgain) {
  const std::string model = TempFile("reload.gguf", "GGUF");
  std::string text = ClusterFile("n0");
  text.replace(text.find("/nowhere/m.gguf"), 15, model);
  const std::string file = TempFile("reload.yaml", text);
  const Outcome outcome = Muselet({"serve", "--config", file});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_EQ(outcome.out_of_reload, "demo");
  // Without a file there is nothing to read again.
  EXPECT_EQ(Muselet({"serve", model, "--http", "127.0.0.1:0"}).out_of_reload, "");
}

TEST(Cli, ARefusalOfTheMachineIsOneLineWithAHint) {
  const auto serve = [](const std::function<void()>& fail) {
    CommandHandlers handlers;
    handlers.serve = [&](const ClusterConfig&) {
      fail();
      return 0;
    };
    std::istringstream in;
    std::ostringstream out;
    std::ostringstream err;
    const std::string model = TempFile("m.gguf", "GGUF");
    EXPECT_EQ(RunCli({"serve", model, "--http", "127.0.0.1:0"}, {}, handlers, {in, out, err}), 2);
    return err.str();
  };
  const std::string threads = serve([] {
    throw std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again));
  });
  EXPECT_THAT(threads, StartsWith("muselet: Resource temporarily unavailable (no thread can"));
  EXPECT_THAT(threads, HasSubstr("lower cpu.threads"));
  EXPECT_THAT(serve([] { throw std::bad_alloc(); }), HasSubstr("lower kv.bytes"));
  EXPECT_EQ(serve([] { throw std::runtime_error("odd"); }), "muselet: odd\n");
}

TEST(Cli, ConfigCheckTakesAFileForLargerMachines) {
  const std::string model = TempFile("m.gguf", "GGUF");
  const auto file = [&](const std::string& host) {
    return TempFile("l.yaml", "models: [{path: " + model + "}]\nnodes: [{name: n, host: " + host +
                                  "}]\nkv: {bytes: 16TiB}\n"
                                  "schedulers: [{name: s0, rpc: \"tcp://127.0.0.1:5555\"}]\n"
                                  "insecure: true\n");
  };
  for (const char* command : {"check", "show"}) {
    const Outcome fine = Muselet({"config", command, "--config", file("10.0.0.1")});
    EXPECT_EQ(fine.exit_code, 0) << fine.err;
    EXPECT_EQ(Muselet({"config", command, "--config", file("127.0.0.1")}).exit_code, 2);
  }
  EXPECT_THAT(Muselet({"run", "--name", "n", "--config", file("10.0.0.1")}).err,
              HasSubstr("kv.bytes: 16TiB is more than"));
}

TEST(Cli, KeysGenerateWritesAPairAndPrintsThePublicOne) {
  const std::string prefix = TempFile("pair", "");
  const Outcome made = Muselet({"keys", "generate", "--out", prefix});
  EXPECT_EQ(made.exit_code, 0) << made.err;
  const Result<WireKeyPair> pair = ReadSecretKeyFile(prefix + ".key");
  ASSERT_TRUE(pair.ok()) << pair.status().message();
  EXPECT_EQ(made.out, pair->public_key + "\n");
  const Outcome again = Muselet({"keys", "generate", "--out", prefix});
  EXPECT_EQ(again.exit_code, 2);
  EXPECT_THAT(again.err, HasSubstr("exists: keys are never overwritten"));
  EXPECT_EQ(ReadSecretKeyFile(prefix + ".key")->public_key, pair->public_key);
  EXPECT_THAT(Muselet({"keys", "generate"}).err, HasSubstr("--out is required"));
  std::filesystem::remove(prefix + ".key");
  std::filesystem::remove(prefix + ".pub");
}

TEST(Cli, KeysSecretWritesASecretAndNeverOverAFile) {
  const std::string path = TempFile("secret", "");
  std::filesystem::remove(path);
  const Outcome made = Muselet({"keys", "secret", "--out", path});
  EXPECT_EQ(made.exit_code, 0) << made.err;
  EXPECT_TRUE(ClusterSecret::ReadFrom(path).ok());
  EXPECT_EQ(Muselet({"keys", "secret", "--out", path}).exit_code, 2);
  std::filesystem::remove(path);
}

TEST(Cli, ShardsThatDoNotFitTheModelAreRefusedBeforeAnythingStarts) {
  const std::string file =
      TempFile("s.yaml", "models: [{path: " + TempFile("m.gguf", "GGUF") +
                             "}]\nnodes: [{name: n, devices: [cpu:0, cpu:1]}, {name: o}]\n"
                             "replicas: [{tensor: 2, on: [n]}]\n"
                             "schedulers: [{name: s0, rpc: \"tcp://127.0.0.1:5555\"}]\n");
  for (const auto& command :
       std::vector<std::vector<std::string>>{{"config", "check", file},
                                             {"serve", "--config", file, "--http", "127.0.0.1:0"},
                                             {"run", "--config", file, "--name", "n"}}) {
    const Outcome bad = Muselet(command);
    EXPECT_EQ(bad.exit_code, 2);
    EXPECT_THAT(bad.err, HasSubstr("s.yaml:3:21: replicas[0]: no two\n"));
    EXPECT_EQ(bad.called, "");
  }
  EXPECT_EQ(Muselet({"config", "check", "--no-files", file}).exit_code, 0);
  EXPECT_EQ(Muselet({"run", "--config", file, "--name", "o"}).called, "run o");
}

TEST(Cli, RunInspectAndVersionReachTheirHandlers) {
  const std::string model = TempFile("m.gguf", "GGUF");
  const std::string file = TempFile("r.yaml", "models: [{path: " + model +
                                                  "}]\nschedulers: [{name: s0, rpc: "
                                                  "\"tcp://127.0.0.1:0\"}]\n");
  EXPECT_THAT(Muselet({"run", "--name", "s0", "--config", file}).err, HasSubstr("port 0"));
  EXPECT_EQ(Muselet({"model", "inspect", "x", "--json"}).out, "x json\n");
  EXPECT_EQ(Muselet({"model", "inspect", "x", "--tensor", "2", "--layers", "3,4"}).out,
            "x text 2x0  3 4\n");
  EXPECT_EQ(Muselet({"model", "inspect", "x", "--device-memory=80GiB", "--json"}).out,
            "x json 0x0 80GiB\n");
  EXPECT_EQ(Muselet({"model", "inspect", "x", "--tensor", "0"}).exit_code, 2);
  const Outcome broken = Muselet({"model", "inspect", "broken"});
  EXPECT_EQ(broken.exit_code, 2);
  EXPECT_EQ(broken.err, "muselet: broken: not a checkpoint\n");
  EXPECT_THAT(Muselet({"version"}).out, StartsWith("muselet 0."));
  EXPECT_THAT(Muselet({"version"}).out,
              HasSubstr("revision " + std::string(SoftwareRevision()) + ","));
  EXPECT_TRUE(ParseJson(Muselet({"version", "--json"}).out).ok());
}

}  // namespace
}  // namespace muselet
