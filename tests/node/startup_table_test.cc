#include "node/startup_table.h"

#include <gtest/gtest.h>

#include "node/load_progress.h"

namespace muselet {
namespace {

TEST(FormatStartupTable, PadsNamesToOneColumn) {
  EXPECT_EQ(FormatStartupTable({{"API", "http://x"}, {"", "more"}, {"KV cache", "12 tokens"}}),
            "  API       http://x\n"
            "            more\n"
            "  KV cache  12 tokens\n");
}

TEST(FormatBytes, UsesDecimalUnits) {
  EXPECT_EQ(FormatBytes(1500), "1.5 kB");
  EXPECT_EQ(FormatBytes(98'362'432), "98.4 MB");
  EXPECT_EQ(FormatBytes(55'700'000'000), "55.70 GB");
}

TEST(FormatMemory, UsesTheUnitsOfTheConfig) {
  EXPECT_EQ(FormatMemory(256ULL << 20), "256.0 MiB");
  EXPECT_EQ(FormatMemory(3ULL << 29), "1.50 GiB");
}

TEST(AddModelRows, ShowFormatsBlocksAndTokens) {
  ModelInfo info;
  info.architecture = "llama";
  info.numerics_id = "cpu/lanes8-v2/q8_0+q4_1/int8/kv-f16/strict";
  info.context_tokens = 8192;
  info.block_tokens = 16;
  info.kv_groups = {{728, 0}, {1000, 64}};
  info.weight_bytes = 96'576'768;
  info.kv_bytes = 268'369'920;
  info.parameter_count = 134'515'008;
  StartupRows rows;
  AddModelRows("smol", info, {}, rows);
  EXPECT_EQ(FormatStartupTable(rows),
            "  model     smol: llama, 134.5 M parameters, 92.1 MiB of weights\n"
            "  formats   q8_0+q4_1 weights, int8 activations, f16 KV\n"
            "  numerics  cpu/lanes8-v2/q8_0+q4_1/int8/kv-f16/strict\n"
            "  context   8192 tokens a sequence\n"
            "  KV cache  255.9 MiB: 728 blocks of 16, 11648 tokens, for at most 64 sequences at "
            "once\n");
}

TEST(StartupTable, SaysWhatEachRankHolds) {
  NodeRole::ReplicaSummary replica{"r0", "m", {}, {}, {"n0 cpu:0", "n1 cpu:0"}};
  replica.shards.pipeline = 2;
  replica.shards.ranks.resize(2);
  replica.shards.ranks[0].layer_end = 14;
  replica.shards.ranks[1].rank = 1;
  replica.shards.ranks[1].layer_begin = 14;
  replica.shards.ranks[1].layer_end = 30;
  StartupRows rows;
  AddRankRows(replica, rows);
  EXPECT_EQ(FormatStartupTable(rows),
            "  replica  r0: 2 ranks (tensor 1 x pipeline 2)\n"
            "  ranks    0: n0 cpu:0, layers 0 to 13, part 1 of 1\n"
            "           1: n1 cpu:0, layers 14 to 29, part 1 of 1\n");
}

TEST(StartupTable, SaysThatAReplicaIsOneRank) {
  StartupRows rows;
  AddRankRows({"r0", "m", {}, {}, {}}, rows);
  EXPECT_EQ(FormatStartupTable(rows), "  replica  r0: 1 rank (tensor 1 x pipeline 1)\n");
}

}  // namespace
}  // namespace muselet
