#include "tests/fuzz/targets.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "node/text/utf8.h"

namespace muselet::testing {
namespace {

std::vector<std::string> NoSeeds() {
  return {};
}

constexpr std::array<FuzzTarget, 8> kTargets = {{{"gguf", RunGguf, GgufSeeds},
                                                 {"safetensors", RunSafetensors, SafetensorsSeeds},
                                                 {"tokenizer", RunTokenizer, NoSeeds},
                                                 {"template", RunTemplate, NoSeeds},
                                                 {"request", RunRequest, NoSeeds},
                                                 {"envelope", RunEnvelope, EnvelopeSeeds},
                                                 {"rank", RunRank, RankSeeds},
                                                 {"config", RunConfig, NoSeeds}}};

}  // namespace

std::span<const FuzzTarget> FuzzTargets() {
  return kTargets;
}

std::vector<std::string> Seeds(const FuzzTarget& target) {
  namespace fs = std::filesystem;
  std::vector<std::string> seeds = target.made_seeds();
  std::vector<fs::path> files;
  std::error_code none;
  for (const auto& entry :
       fs::directory_iterator("tests/fuzz/corpus/" + std::string(target.name), none)) {
    files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  for (const fs::path& file : files) {
    std::ifstream in(file, std::ios::binary);
    seeds.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  return seeds;
}

std::string BrokenMessage(std::string_view message, std::string_view start) {
  if (message.empty()) return "a fault without a message";
  if (!message.starts_with(start))
    return "does not name " + std::string(start) + ": " + std::string(message);
  if (!IsValidUtf8(message)) return "a message that is not UTF-8";
  const bool one_line = std::all_of(message.begin(), message.end(), [](char letter) {
    return static_cast<unsigned char>(letter) >= ' ' && letter != '\x7F';
  });
  return one_line ? "" : "control characters in a message: " + std::string(message);
}

}  // namespace muselet::testing
