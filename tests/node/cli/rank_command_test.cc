#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <variant>

#include "node/cli/cli.h"
#include "node/cli/command_line.h"

namespace muselet {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(RankCommand, IsForNodesAndNotShownToPeople) {
  const auto help = std::get<CommandLineExit>(ParseCommandLine({"--help"}));
  EXPECT_THAT(help.text, HasSubstr("Run one gateway, scheduler or node"));
  EXPECT_THAT(help.text, Not(HasSubstr("rank of a sharded replica")));
  const auto misspelt = std::get<CommandLineExit>(ParseCommandLine({"ramk"}));
  EXPECT_THAT(misspelt.text, Not(HasSubstr("mean rank")));
}

TEST(RankCommand, TakesTheFileOfItsNodeAndNoVariables) {
  const std::string file =
      ::testing::TempDir() + "muselet_rank_command_" + std::to_string(getpid()) + ".yaml";
  std::ofstream(file) << "models: [{id: m, path: /not/there.gguf}]\n"
                         "nodes: [{name: n, devices: [\"cpu:0\", \"cpu:1\"]}]\n"
                         "replicas: [{name: r0, pipeline: 2, on: [n]}]\ncpu: {threads: 3}\n";
  std::istringstream in;
  std::ostringstream out;
  std::ostringstream err;
  CommandHandlers handlers;
  std::string called;
  handlers.rank = [&](const ClusterConfig& config, const RankInvocation& rank) {
    called = rank.replica + " " + std::to_string(rank.number) + " " + rank.leader + " " +
             (rank.supervised ? "supervised" : "alone") + " " +
             std::to_string(config.engine.cpu.threads);
    return 7;
  };
  const std::vector<std::string> arguments = {
      "rank",     "--replica",         "r0",           "--rank",   "1",
      "--leader", "tcp://127.0.0.1:9", "--supervised", "--config", file};
  EXPECT_EQ(RunCli(arguments, {{"MUSELET_CPU_THREADS", "5"}}, handlers, {in, out, err}), 7);
  EXPECT_EQ(called, "r0 1 tcp://127.0.0.1:9 supervised 3") << err.str();
}

}  // namespace
}  // namespace muselet
