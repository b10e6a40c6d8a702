// Plays the corpus and mutations of it through every fuzz target: the same ones every time, so that
// a failure can be repeated. Coverage-guided search is the preset "fuzz" (README.md here).
#include <gtest/gtest.h>

#include <ostream>
#include <random>

#include "tests/fuzz/targets.h"
#include "tests/support/fixtures.h"

namespace muselet {
namespace {

using testing::FuzzOutcome;
using testing::FuzzTarget;

class Mutator {
 public:
  Mutator(const std::vector<std::string>& seeds, uint32_t seed) : seeds_(seeds), random_(seed) {}

  std::string Next() {
    std::string bytes = seeds_[Below(seeds_.size())];
    for (size_t left = 1 + Below(4); left > 0; --left) Mutate(bytes);
    return bytes;
  }

 private:
  size_t Below(size_t limit) { return limit == 0 ? 0 : random_() % limit; }

  void Mutate(std::string& bytes) {
    const size_t at = Below(bytes.size());
    const size_t length = 1 + Below(16);
    switch (Below(8)) {
      case 0:
        if (!bytes.empty()) bytes[at] = static_cast<char>(bytes[at] ^ (1 << Below(8)));
        break;
      case 1:
        if (!bytes.empty()) bytes[at] = static_cast<char>(random_());
        break;
      case 2:
        bytes.erase(at, length);
        break;
      case 3:
        bytes.insert(at, bytes.substr(Below(bytes.size()), length));
        break;
      case 4: {  // goes on as another seed
        const std::string& other = seeds_[Below(seeds_.size())];
        bytes = bytes.substr(0, at) + other.substr(Below(other.size()));
        break;
      }
      case 5:
        bytes.resize(at);
        break;
      case 6:
        bytes.insert(at, kTokens[Below(std::size(kTokens))]);
        break;
      default:
        Number(bytes, at);
    }
  }
  // Another number in place of the next one written in digits.
  void Number(std::string& bytes, size_t from) {
    const size_t begin = bytes.find_first_of("0123456789", from);
    if (begin == std::string::npos) return;
    const size_t end = bytes.find_first_not_of("0123456789", begin);
    bytes.replace(begin, (end == std::string::npos ? bytes.size() : end) - begin,
                  kNumbers[Below(std::size(kNumbers))]);
  }

  static constexpr const char* kNumbers[] = {
      "0", "-1", "1e999", "2147483648", "9223372036854775808", "18446744073709551616", "0.5", "07"};
  static constexpr const char* kTokens[] = {
      "{",  "}",  "[",  "]",     "\"",   ",",         ":",          "null", "true",    "{{",
      "}}", "{%", "%}", "{#",    "#}",   " | tojson", " for x in ", "\n",   "\r\n",    "\t",
      "- ", "&a", "*a", "!!int", "<<: ", "\xFF",      "\xF0\x9F",   "\\u",  "\\ud800", "  "};

  const std::vector<std::string>& seeds_;
  std::mt19937 random_;
};

class FuzzReplay : public ::testing::TestWithParam<FuzzTarget> {};

TEST_P(FuzzReplay, SeedsAreGood) {
  size_t accepted = 0;
  for (const std::string& seed : testing::Seeds(GetParam())) {
    const FuzzOutcome outcome = GetParam().run(seed);
    EXPECT_EQ(outcome.broken, "") << seed;
    accepted += outcome.accepted ? 1 : 0;
  }
  EXPECT_GE(accepted, 1U);
}

TEST_P(FuzzReplay, MutationsKeepEveryPromise) {
  const std::vector<std::string> seeds = testing::Seeds(GetParam());
  Mutator mutator(seeds, 7);
  size_t refused = 0, accepted = 0;
  const uint32_t count = testing::SeedCount(1500);
  for (uint32_t i = 0; i < count; ++i) {
    const std::string bytes = mutator.Next();
    const FuzzOutcome outcome = GetParam().run(bytes);
    ASSERT_EQ(outcome.broken, "") << "mutation " << i << ":\n" << bytes;
    ++(outcome.accepted ? accepted : refused);
  }
  EXPECT_GT(refused, 0U);
  EXPECT_GT(accepted, 0U);
}

INSTANTIATE_TEST_SUITE_P(Targets, FuzzReplay, ::testing::ValuesIn(testing::FuzzTargets()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace muselet
