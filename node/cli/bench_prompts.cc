#include "node/cli/bench_prompts.h"

#include <sstream>

#include "base/json.h"
#include "base/mapped_file.h"

namespace muselet {
namespace {

constexpr size_t kFileBytesMax = 256 << 20;

const std::vector<std::string>& OwnQuestions() {
  static const std::vector<std::string> questions = {
      "Why is the sky blue?",
      "Write a short story about a lighthouse keeper who finds a message in a bottle.",
      "Explain how a hash table works to somebody who has never programmed.",
      "List five things to check before a long bicycle tour and say why each matters.",
      "What is the difference between weather and climate?",
      "A train travels 180 km in 2 hours and 15 minutes. What is its mean speed? Show the steps.",
      "Summarise the plot of Romeo and Juliet in three sentences.",
      "Write a C function that reverses a string in place, and explain it.",
  };
  return questions;
}

Result<std::string> PromptOf(const std::string& line) {
  ASSIGN_OR_RETURN(const Json object, ParseJson(line));
  const Json* turns = FindMember(object, "turns");
  if (turns != nullptr && turns->is_array() && !turns->empty() && turns->front().is_string()) {
    return turns->front().get<std::string>();
  }
  const Json* prompt = FindMember(object, "prompt");
  if (prompt != nullptr && prompt->is_string()) return prompt->get<std::string>();
  return InvalidArgument("needs \"turns\": [\"...\"] or \"prompt\": \"...\"");
}

}  // namespace

Result<std::vector<std::string>> LoadPrompts(const std::string& path) {
  if (path.empty()) return OwnQuestions();
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kFileBytesMax));
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string::npos) return InvalidArgument(path + ": holds no prompt");
  const bool is_json = text[first] == '{';
  std::vector<std::string> prompts;
  std::istringstream lines(text);
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.find_first_not_of(" \t") == std::string::npos) continue;
    if (!is_json) {
      prompts.push_back(line);
      continue;
    }
    Result<std::string> prompt = PromptOf(line);
    if (!prompt.ok()) return prompt.status().WithContext(path + ":" + std::to_string(number));
    prompts.push_back(std::move(*prompt));
  }
  return prompts;
}

}  // namespace muselet
