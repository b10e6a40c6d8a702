#include <gtest/gtest.h>

#include <sstream>

#include "base/json.h"
#include "node/text/chat_template.h"
#include "tests/node/text/tokenizer_cases.h"
#include "tests/support/fixtures.h"

namespace muselet {
namespace {

using testing::ReadFile;

// "2025-03-14T15:09:26" as microseconds since 1970, UTC.
int64_t ParseTime(const std::string& text) {
  std::tm utc{};
  strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &utc);
  return static_cast<int64_t>(timegm(&utc)) * 1'000'000;
}

ChatTemplateInput ReadInput(const Json& stored) {
  ChatTemplateInput input;
  input.messages = stored["messages"];
  input.tools = stored["tools"];
  input.documents = stored["documents"];
  input.kwargs = stored["kwargs"];
  input.add_generation_prompt = stored["add_generation_prompt"];
  input.bos_token = stored["bos_token"];
  input.eos_token = stored["eos_token"];
  input.now_unix_us = ParseTime(stored["now"]);
  return input;
}

void ExpectCase(const Json& stored, const Result<RenderedPrompt>& rendered) {
  const Json& expected = stored["expect"];
  if (expected.contains("text")) {
    ASSERT_TRUE(rendered.ok()) << rendered.status().ToString();
    EXPECT_EQ(rendered->text, expected["text"].get<std::string>());
    return;
  }
  ASSERT_FALSE(rendered.ok()) << "expected " << expected.dump() << ", got " << rendered->text;
  if (expected["error"] == "raise_exception") {
    EXPECT_EQ(rendered.status().message(), expected["message"].get<std::string>());
  } else {
    EXPECT_TRUE(rendered.status().message().starts_with("line ")) << rendered.status().message();
  }
}

TEST(ChatCases, PublishedTemplatesRenderAsJinja2) {
  SKIP_WITHOUT_SHARED(directory, "chat");
  std::istringstream lines(ReadFile(directory + "/cases.jsonl"));
  size_t count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    const auto stored = ParseJson(line, {.depth_max = 64});
    ASSERT_TRUE(stored.ok()) << stored.status().ToString();
    SCOPED_TRACE((*stored)["id"].get<std::string>());
    const std::string name = (*stored)["template"];
    const auto parsed = ChatTemplate::Parse(ReadFile(directory + "/" + name));
    ASSERT_TRUE(parsed.ok()) << parsed.status().ToString();
    ExpectCase(*stored, (*parsed)->Render(ReadInput(*stored)));
  }
  EXPECT_GT(count, 500U);
}

}  // namespace
}  // namespace muselet
