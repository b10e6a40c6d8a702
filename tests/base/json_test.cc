#include "base/json.h"

#include <gtest/gtest.h>

namespace muselet {
namespace {

TEST(ParseJson, KeepsTheOrderOfKeys) {
  const Result<Json> value = ParseJson(R"({"b": 1, "a": [true, null]})");
  ASSERT_TRUE(value.ok());
  EXPECT_EQ(WriteJson(*value), R"({"b":1,"a":[true,null]})");
}

TEST(ParseJson, RefusesWhatTwoReadersCouldReadDifferently) {
  for (const char* text : {"{\"a\":1,\"a\":2}", "[1] 2", "", "NaN", "[1,]", "\"\xff\"", "1e999",
                           "\"\\ud800\"", "{\"a\"}", "'a'"}) {
    EXPECT_EQ(ParseJson(text).status().code(), StatusCode::kInvalidArgument) << text;
  }
}

TEST(ParseJson, SaysWhatIsWrongAndWhere) {
  struct Case {
    std::string text;
    std::string problem;
    std::string place;
    std::string key;
  };
  const Case cases[] = {
      {R"({"a": 1, "t": 1e999, "b": 2})", "number out of range: 1e999",
       "line 1, column 15, byte 14", "t"},
      {"[1e999]", "number out of range: 1e999", "line 1, column 2, byte 1", ""},
      {"1e999", "number out of range: 1e999", "line 1, column 1, byte 0", ""},
      {"{\n \"a\": \"x\xC3\x28\"}", "ill-formed UTF-8", "line 2, column 10, byte 11", ""},
      {"{\"a\":1,\n\"m\": {\"k\\\"\": 1,\"k\\\"\": 2}}", "duplicate key",
       "line 2, column 16, byte 23", "k\""},
      {R"({"model":"a","model":"b"})", "duplicate key \"model\"", "line 1, column 14, byte 13",
       "model"},
      {R"({"m": [[[[1]]]]})", "nested deeper than 4 levels", "line 1, column 10, byte 9", "m"},
      {R"({"m": 1} x)", "invalid literal", "line 1, column 10, byte 9", ""},
      {"[1] [2]", "expected end of input", "line 1, column 5, byte 4", ""},
      {R"({"m": )", "unexpected end of input", "line 1, column 7, byte 6", ""},
      {"", "unexpected end of input", "line 1, column 1, byte 0", ""},
      {R"("\ud800")", "surrogate", "byte 7", ""},
      {std::string("[1,\0]", 6), "NUL byte", "line 1, column 4, byte 3", ""},
  };
  for (const Case& c : cases) {
    std::string key;
    const Status status = ParseJson(c.text, {.depth_max = 4}, &key).status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << c.text;
    EXPECT_NE(status.message().find(c.problem), std::string::npos) << status.message();
    EXPECT_NE(status.message().find(c.place), std::string::npos) << status.message();
    EXPECT_EQ(key, c.key) << c.text;
  }
}

TEST(ParseJson, StopsAtTheDepthLimitWithoutBuildingTheValue) {
  EXPECT_TRUE(ParseJson(std::string(32, '[') + std::string(32, ']')).ok());
  const Result<Json> deep = ParseJson(std::string(100'000, '['));
  EXPECT_NE(deep.status().message().find("nested deeper than 32"), std::string::npos);
}

TEST(ParseJson, StopsAtTheValueLimit) {
  EXPECT_FALSE(ParseJson("[1,2,3]", {.depth_max = 8, .values_max = 3}).ok());
  EXPECT_TRUE(ParseJson("[1,2,3]", {.depth_max = 8, .values_max = 4}).ok());
}

TEST(ParseJson, RefusesANulByteWherever) {
  EXPECT_FALSE(ParseJson(std::string_view("123\0", 4)).ok());
  EXPECT_FALSE(ParseJson(std::string_view("\"a\0\"", 4)).ok());
}

TEST(ParseJson, BuildsNestedValues) {
  const char* text = R"({"a":[1,{"b":[],"c":{"d":-2.5}},"x"],"e":{},"f":18446744073709551615})";
  EXPECT_EQ(WriteJson(*ParseJson(text)), text);
}

// Quadratic work in the number of keys would not end within the test's time.
TEST(ParseJson, TakesAHugeObjectInLinearTime) {
  std::string text = "{";
  for (int i = 0; i < 400'000; ++i) text += "\"" + std::to_string(i) + "\":0,";
  text += "\"end\":1}";
  const Result<Json> value = ParseJson(text, {.depth_max = 8, .values_max = 1'000'000});
  ASSERT_TRUE(value.ok());
  EXPECT_EQ(value->size(), 400'001U);
}

TEST(ParseJson, QuotesTheTextInOneLineOfWholeCharacters) {
  const auto message = [](const std::string& key) {
    return ParseJson("{\"" + key + "\":1,\"" + key + "\":2}").status().message();
  };
  EXPECT_EQ(message("a\\n\\u007f"), "duplicate key \"a??\" (line 1, column 16, byte 15)");
  const std::string cut = message(std::string(63, 'x') + "\u4E16");
  EXPECT_EQ(cut, "duplicate key \"" + std::string(63, 'x') + "\" (line 1, column 73, byte 72)");
}

TEST(JsonMembers, NameTheKeyAndTheTypeTheyExpected) {
  const Json object = *ParseJson(R"({"n": 3, "s": "x", "none": null})");
  EXPECT_EQ(*GetInt(object, "n", 0, "f"), 3);
  EXPECT_EQ(*GetInt(object, "none", 7, "f"), 7);
  EXPECT_EQ(GetInt(object, "s", 0, "file.json").status().message(),
            "file.json: s: expected an integer, got string");
}

TEST(AppendJsonString, EscapesAndReplacesWhatIsNotUtf8) {
  std::string out;
  AppendJsonString("a\"\n\xff", out);
  EXPECT_EQ(out, "\"a\\\"\\n\xEF\xBF\xBD\"");
}

}  // namespace
}  // namespace muselet
