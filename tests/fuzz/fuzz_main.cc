// One fuzz program: libFuzzer brings main, MUSELET_FUZZ_TARGET names the target.
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "tests/fuzz/targets.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  for (const muselet::testing::FuzzTarget& target : muselet::testing::FuzzTargets()) {
    if (std::string_view(target.name) != MUSELET_FUZZ_TARGET) continue;
    const muselet::testing::FuzzOutcome outcome = target.run(bytes);
    if (outcome.broken.empty()) return 0;
    std::fprintf(stderr, "%s\n", outcome.broken.c_str());
    std::abort();
  }
  return 0;
}
