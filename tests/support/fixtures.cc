#include "tests/support/fixtures.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "base/check.h"

namespace muselet::testing {
namespace {

namespace fs = std::filesystem;

// The tests run in the repository's root (CMake's WORKING_DIRECTORY).
fs::path Root() {
  return fs::current_path();
}

std::optional<std::string> IfExists(const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return std::nullopt;
  return fs::weakly_canonical(path).string();
}

}  // namespace

std::string GoldenPath(const std::string& name) {
  const auto path = IfExists(Root() / "tests" / "golden" / name);
  CHECK(path.has_value(), "tests/golden/", name, " is missing; run tests from the repository root");
  return *path;
}

std::optional<std::string> SharedPath(const std::string& name) {
  const auto shared = IfExists(Root() / ".." / "shared" / "data" / name);
  return shared ? shared : IfExists(Root() / "tests" / "golden" / name);
}

std::optional<std::string> SmolLm2Path() {
  return IfExists(Root() / "build" / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf");
}

uint32_t SeedCount(uint32_t everyday) {
  return std::getenv("MUSELET_TEST_LONG") != nullptr ? 20 * everyday : everyday;
}

std::optional<uint64_t> OneSeed() {
  const char* seed = std::getenv("MUSELET_TEST_SEED");
  if (seed == nullptr) return std::nullopt;
  return std::strtoull(seed, nullptr, 10);
}

bool TraceAsked() {
  return std::getenv("MUSELET_TEST_TRACE") != nullptr;
}

}  // namespace muselet::testing
