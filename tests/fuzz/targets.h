// The places where bytes from outside are read, each as one function of the bytes: GGUF files,
// safetensors files and their index, tokenizer.json, chat templates, request bodies, wire messages,
// messages between ranks and their leader, YAML configs. libFuzzer drives them with coverage
// (fuzz_main.cc, preset "fuzz"), the everyday test fuzz_replay_test with a corpus and mutations of
// it that are the same every time.
//
// Pure but for a file in memory; one thread.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace muselet::testing {

struct FuzzOutcome {
  bool accepted = false;
  std::string broken;  // the promise that the bytes broke; "" if all were kept
};

struct FuzzTarget {
  const char* name;  // its corpus stands in tests/fuzz/corpus/<name>
  FuzzOutcome (*run)(std::string_view bytes);
  std::vector<std::string> (*made_seeds)();  // valid inputs that are better made than stored
};

std::span<const FuzzTarget> FuzzTargets();

// The made seeds and the files of the corpus, in the order of their names.
std::vector<std::string> Seeds(const FuzzTarget& target);

// A fault that users read: one line of valid UTF-8, not empty, that begins with `start`. "" if so.
std::string BrokenMessage(std::string_view message, std::string_view start);

// file_targets.cc and message_targets.cc.
FuzzOutcome RunGguf(std::string_view bytes);
FuzzOutcome RunSafetensors(std::string_view bytes);
FuzzOutcome RunTokenizer(std::string_view bytes);
FuzzOutcome RunTemplate(std::string_view bytes);
FuzzOutcome RunRequest(std::string_view bytes);
FuzzOutcome RunEnvelope(std::string_view bytes);
FuzzOutcome RunRank(std::string_view bytes);
FuzzOutcome RunConfig(std::string_view bytes);

std::vector<std::string> GgufSeeds();
std::vector<std::string> SafetensorsSeeds();
std::vector<std::string> EnvelopeSeeds();
std::vector<std::string> RankSeeds();

}  // namespace muselet::testing
