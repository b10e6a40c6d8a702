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

}  // namespace
}  // namespace muselet
