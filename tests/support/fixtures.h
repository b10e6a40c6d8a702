// Where the tests find their data, and how they skip loudly when it is not there.
//
// tests/golden/ stands in the repository; ../shared/data, beside the clone, has more and may be
// missing; the default model is what deploy/quickstart.sh downloaded and may be missing too.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace muselet::testing {

// Absolute path of tests/golden/<name>; fails the test program if it is missing.
std::string GoldenPath(const std::string& name);

// Absolute path of ../shared/data/<name>, else of tests/golden/<name>, or nothing.
std::optional<std::string> SharedPath(const std::string& name);

// Path of SmolLM2-135M-Instruct.Q4_1.gguf, or nothing.
std::optional<std::string> SmolLm2Path();

// How many seeds a property test plays: `everyday`, or twenty times as many with `tests/run.sh
// --long`.
uint32_t SeedCount(uint32_t everyday);

// MUSELET_TEST_SEED: the one seed that a property test is to play again.
std::optional<uint64_t> OneSeed();
// MUSELET_TEST_TRACE: it is to print what happens.
bool TraceAsked();

}  // namespace muselet::testing

// Skips the running test with the reason that tests/skips.txt allows.
#define SKIP_WITHOUT_SHARED(path_variable, name)                           \
  const auto path_variable##_found = ::muselet::testing::SharedPath(name); \
  if (!path_variable##_found) GTEST_SKIP() << "no ../shared: " << (name);  \
  const std::string path_variable = *path_variable##_found
#define SKIP_WITHOUT_MODEL(path_variable)                                                        \
  const auto path_variable##_found = ::muselet::testing::SmolLm2Path();                          \
  if (!path_variable##_found) GTEST_SKIP() << "no default model: run deploy/quickstart.sh once"; \
  const std::string path_variable = *path_variable##_found
