#include "node/gateway/openai_request.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <tuple>

#include "node/gateway/openai_fields.h"
#include "node/gateway/openai_writer.h"
#include "tests/support/fixtures.h"

namespace muselet {
namespace {

using Fault = std::optional<ApiError>;

const std::string kHi = R"("messages":[{"role":"user","content":"hi"}])";

Fault Chat(const std::string& members, OpenAiRequest& out) {
  return ParseOpenAiRequest(OpenAiEndpoint::kChat, "{" + kHi + members + "}", {}, 32, out);
}
Fault Completion(const std::string& members, OpenAiRequest& out) {
  return ParseOpenAiRequest(OpenAiEndpoint::kCompletions, "{" + members + "}", {}, 32, out);
}
std::string ParamOf(const Fault& fault) {
  return fault ? fault->param : "no fault";
}

TEST(OpenAiRequestTest, ReadsEveryField) {
  OpenAiRequest o;
  ASSERT_FALSE(Chat(
      R"(,"model":"m","stream":true,"stream_options":{"include_usage":true},"min_tokens":2,)"
      R"("temperature":0.5,"top_p":0.9,"top_k":40,"min_p":0.1,"repetition_penalty":1.1,)"
      R"("presence_penalty":-0.5,"frequency_penalty":0.25,"logit_bias":{"5":-100,"7":1.5},)"
      R"("seed":42,"n":3,"stop":["a","b"],"stop_token_ids":[9],"ignore_eos":true,)"
      R"("include_stop_str_in_output":true,"skip_special_tokens":false,"return_token_ids":true,)"
      R"("timeout":1.5,"max_tokens":5,"max_completion_tokens":7,"logprobs":true,)"
      R"("top_logprobs":3,"documents":[{"text":"d"}],)"
      R"("chat_template_kwargs":{"k":1},"reasoning_effort":"low","add_generation_prompt":false,)"
      R"("user":"u","nonsense":1)",
      o));
  const GenerationRequest& g = o.generation;
  EXPECT_EQ(g.model, "m");
  EXPECT_TRUE(o.stream && o.include_usage && o.return_token_ids && o.logprobs);
  SamplingParams s;
  s.temperature = 0.5F;
  s.top_p = 0.9F;
  s.top_k = 40;
  s.min_p = 0.1F;
  s.repetition_penalty = 1.1F;
  s.presence_penalty = -0.5F;
  s.frequency_penalty = 0.25F;
  s.logit_bias = {{5, -100.0F}, {7, 1.5F}};
  s.seed = 42;
  s.logprobs = 3;
  EXPECT_EQ(g.sampling, s);
  EXPECT_TRUE(g.has_seed && g.ignore_eos && g.include_stop_in_output && !g.skip_special_tokens);
  EXPECT_EQ(g.choices, 3U);
  EXPECT_EQ(g.max_tokens, 7U);
  EXPECT_EQ(g.min_tokens, 2U);
  EXPECT_EQ(g.stop_strings, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(g.stop_token_ids, std::vector<TokenId>{9});
  EXPECT_EQ(g.timeout_us, 1'500'000);
  const auto& chat = std::get<ChatPrompt>(o.prompts.at(0));
  EXPECT_EQ(chat.messages.dump(), R"([{"role":"user","content":"hi"}])");
  EXPECT_EQ(chat.documents.size(), 1U);
  EXPECT_EQ(chat.template_kwargs.dump(), R"({"k":1,"reasoning_effort":"low"})");
  EXPECT_FALSE(chat.add_generation_prompt);
}

TEST(OpenAiRequestTest, DefaultsAreOpenAis) {
  OpenAiRequest chat;
  ASSERT_FALSE(Chat("", chat));
  EXPECT_EQ(chat.generation.sampling, SamplingParams());
  EXPECT_EQ(chat.generation.max_tokens, std::nullopt);
  EXPECT_FALSE(chat.generation.has_seed);
  OpenAiRequest completion;
  ASSERT_FALSE(Completion(R"("prompt":"x","temperature":null,"stop":null,"n":null)", completion));
  EXPECT_EQ(completion.generation.max_tokens, std::nullopt);
  EXPECT_EQ(completion.generation.max_tokens_default, 16U);
  EXPECT_EQ(completion.generation.sampling.temperature, 1.0F);
}

TEST(OpenAiRequestTest, ReadsPromptsOfAllKinds) {
  OpenAiRequest text;
  ASSERT_FALSE(Completion(R"("prompt":["a","b"],"add_special_tokens":false)", text));
  ASSERT_EQ(text.prompts.size(), 2U);
  EXPECT_EQ(std::get<TextPrompt>(text.prompts[1]).text, "b");
  EXPECT_FALSE(std::get<TextPrompt>(text.prompts[1]).add_special_tokens);
  OpenAiRequest ids;
  ASSERT_FALSE(Completion(R"("prompt":[1,2,3])", ids));
  EXPECT_EQ(std::get<TokenPrompt>(ids.prompts.at(0)).ids, (std::vector<TokenId>{1, 2, 3}));
  OpenAiRequest lists;
  ASSERT_FALSE(Completion(R"("prompt":[[1],[2,3]])", lists));
  EXPECT_EQ(std::get<TokenPrompt>(lists.prompts.at(1)).ids, (std::vector<TokenId>{2, 3}));
}

TEST(OpenAiRequestTest, NamesTheFieldAtFault) {
  const std::pair<const char*, const char*> cases[] = {
      {"temperature", "-0.1"},
      {"temperature", "\"hot\""},
      {"temperature", "1e300"},
      {"temperature", "true"},
      {"top_p", "0"},
      {"top_p", "1.01"},
      {"top_k", "-2"},
      {"top_k", "1.5"},
      {"top_k", "99999999999"},
      {"min_p", "2"},
      {"repetition_penalty", "0"},
      {"presence_penalty", "2.5"},
      {"frequency_penalty", "-3"},
      {"n", "0"},
      {"n", "17"},
      {"n", "-1"},
      {"n", "1e30"},
      {"max_tokens", "-5"},
      {"max_tokens", "0"},
      {"max_tokens", "4294967297"},
      {"max_tokens", "\"9\""},
      {"min_tokens", "-1"},
      {"seed", "1.5"},
      {"seed", "\"x\""},
      {"seed", "99999999999999999999999"},
      {"stop", "7"},
      {"stop", "[\"\"]"},
      {"stop", "[1]"},
      {"stop",
       "[\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\","
       "\"a\",\"a\",\"a\",\"a\"]"},
      {"stop_token_ids", "[-1]"},
      {"stop_token_ids", "[3000000000]"},
      {"stop_token_ids", "[18446744073709551615]"},
      {"logit_bias", "[]"},
      {"logit_bias", "{\"x\":1}"},
      {"logit_bias", "{\"1\":101}"},
      {"logit_bias", "{\"1\":\"a\"}"},
      {"logit_bias", "{\"-1\":1}"},
      {"stream", "1"},
      {"stream", "\"yes\""},
      {"stream_options", "3"},
      {"top_logprobs", "21"},
      {"top_logprobs", "1"},
      {"logprobs", "5"},
      {"timeout", "0"},
      {"timeout", "-3"},
      {"model", "5"},
      {"tools", "{}"},
      {"tool_choice", "\"required\""},
      {"functions", "[{}]"},
      {"function_call", "{\"name\":\"f\"}"},
      {"tools", "[{\"type\":\"function\"}]"},
      {"tool_choice", "{\"type\":\"function\"}"},
      {"length_penalty", "0.5"},
      {"include_reasoning", "false"},
      {"verbosity", "\"low\""},
      {"web_search_options", "{}"},
      {"store", "true"},
      {"service_tier", "\"priority\""},
      {"priority", "-1"},
      {"add_special_tokens", "true"},
      {"best_of", "2"},
      {"bad_words", "[\"x\"]"},
      {"structured_outputs", "{\"json\":{}}"},
      {"continue_final_message", "true"},
      {"modalities", "[\"audio\"]"},
      {"use_beam_search", "true"},
      {"guided_json", "{\"a\":1}"},
      {"echo", "true"},
      {"chat_template", "\"x\""},
      {"prompt_logprobs", "-1"},
      {"prompt_logprobs", "21"},
      {"user", "5"},
      {"response_format", "{\"type\":\"json_object\"}"},
  };
  for (const auto& [name, value] : cases) {
    OpenAiRequest out;
    const Fault fault = Chat(",\"" + std::string(name) + "\":" + value, out);
    const bool json_fault = std::string(value).size() > 20 && std::string(name) == "seed";
    if (json_fault) {
      EXPECT_TRUE(fault.has_value()) << value;
      continue;
    }
    EXPECT_EQ(ParamOf(fault), name) << value;
    if (fault) {
      EXPECT_EQ(fault->http_status, 400);
    }
  }
}

TEST(OpenAiRequestTest, LetsInWhatAsksForNothing) {
  for (const char* members :
       {R"("tools":[{"type":"function"}],"tool_choice":"none")",
        R"("tools":[],"tool_choice":"auto")", R"("functions":[],"function_call":"auto")",
        R"("response_format":{"type":"text"})",
        R"("length_penalty":1.0,"early_stopping":false,"include_reasoning":true)",
        R"("verbosity":"medium","web_search_options":null,"store":false,"service_tier":"auto")",
        R"("priority":0,"add_special_tokens":false,"best_of":1,"bad_words":[],"audio":null)",
        R"("user":"u","metadata":{"a":"b"},"prediction":{"type":"content","content":"x"})",
        R"("parallel_tool_calls":true,"prompt_cache_key":"k","safety_identifier":"s")"}) {
    OpenAiRequest out;
    const Fault fault = Chat("," + std::string(members), out);
    EXPECT_FALSE(fault.has_value()) << members << ": " << fault->message;
  }
  OpenAiRequest hidden;
  ASSERT_FALSE(Chat(R"(,"tools":[{"type":"function"}],"tool_choice":"none")", hidden));
  EXPECT_TRUE(std::get<ChatPrompt>(hidden.prompts.at(0)).tools.is_null());
}

TEST(OpenAiRequestTest, NamesTheKeyAndThePlaceOfJsonFaults) {
  const std::tuple<std::string, std::string, std::string> cases[] = {
      {"temperature", R"({"temperature": 1e999})", "number out of range: 1e999 (line 1, column 17"},
      {"model", R"({"model":"a","model":"b"})", "duplicate key \"model\" (line 1, column 14"},
      {"messages", R"({"messages":)" + std::string(50, '['), "nested deeper than 32 levels"},
      {"", "{\"a\":\"\xC3\x28\"}", "ill-formed UTF-8 byte (line 1, column 8, byte 7)"},
      {"", "{} {}", "expected end of input (line 1, column 4, byte 3)"},
  };
  for (const auto& [param, body, message] : cases) {
    OpenAiRequest out;
    const Fault fault = ParseOpenAiRequest(OpenAiEndpoint::kChat, body, {}, 32, out);
    EXPECT_EQ(ParamOf(fault), param);
    ASSERT_TRUE(fault.has_value());
    EXPECT_NE(fault->message.find(message), std::string::npos) << fault->message;
  }
}

TEST(OpenAiRequestTest, NamesTheFieldAtFaultInCompletions) {
  const std::pair<const char*, const char*> cases[] = {
      {"prompt", R"("prompt":5)"},
      {"prompt", R"("prompt":{})"},
      {"prompt", R"("prompt":[])"},
      {"prompt", R"("prompt":[[]])"},
      {"prompt", R"("prompt":["a",1])"},
      {"prompt", R"("prompt":[1,"a"])"},
      {"prompt", R"("prompt":[-1])"},
      {"prompt", R"("model":"m")"},
      {"best_of", R"("prompt":"x","best_of":2)"},
      {"suffix", R"("prompt":"x","suffix":"y")"},
      {"logprobs", R"("prompt":"x","logprobs":true)"},
      {"logprobs", R"("prompt":"x","logprobs":21)"},
      {"min_tokens", R"("prompt":"x","min_tokens":17)"},
      {"stream_options", R"("prompt":"x","stream_options":{"include_usage":true})"},
      {"prompt_logprobs", R"("prompt":"x","stream":true,"prompt_logprobs":1)"},
  };
  for (const auto& [name, members] : cases) {
    OpenAiRequest out;
    EXPECT_EQ(ParamOf(Completion(members, out)), name) << members;
  }
  OpenAiRequest harmless;
  EXPECT_FALSE(Completion(R"("prompt":"x","best_of":1,"suffix":"","guided_json":null)", harmless));
  OpenAiRequest scored;
  EXPECT_FALSE(Completion(R"("prompt":"x","max_tokens":0,"echo":true,"logprobs":0)", scored));
}

TEST(OpenAiRequestTest, ReadsMessagesAsTemplatesExpectThem) {
  Json out;
  ASSERT_FALSE(ParseMessages(
      Json::parse(
          R"([{"role":"developer","content":"s"},)"
          R"({"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},)"
          R"({"role":"assistant","content":null,"tool_calls":[{"function":{"name":"f",)"
          R"("arguments":"{\"x\":1}"}}]},{"role":"tool","content":"4","name":"f"}])"),
      out));
  EXPECT_EQ(out.dump(), R"([{"role":"system","content":"s"},{"role":"user","content":"a\nb"},)"
                        R"({"role":"assistant","content":"","tool_calls":[{"function":{"name":"f",)"
                        R"("arguments":{"x":1}}}]},{"role":"tool","content":"4","name":"f"}])");
}

TEST(OpenAiRequestTest, NamesTheMessageAtFault) {
  const std::pair<const char*, const char*> cases[] = {
      {"messages", "5"},
      {"messages", "[]"},
      {"messages[0]", "[5]"},
      {"messages[0].role", R"([{"content":"x"}])"},
      {"messages[1].role", R"([{"role":"user","content":"x"},{"role":"king","content":"x"}])"},
      {"messages[0].content", R"([{"role":"user"}])"},
      {"messages[0].content", R"([{"role":"user","content":5}])"},
      {"messages[0].content[0].type",
       R"([{"role":"user","content":[{"type":"image_url","image_url":{}}]}])"},
      {"messages[0].content[0].text", R"([{"role":"user","content":[{"type":"text"}]}])"},
  };
  for (const auto& [param, text] : cases) {
    Json out;
    EXPECT_EQ(ParamOf(ParseMessages(Json::parse(text), out)), param) << text;
  }
}

TEST(OpenAiRequestTest, RefusesHostileJson) {
  for (const std::string& body :
       {std::string(100'000, '['), std::string("{\"a\":\"\xC3\x28\"}"),
        std::string("{\"a\":1e999}"), std::string("{\"a\":NaN}"),
        std::string("{\"model\":\"a\",\"model\":\"b\"}"), std::string("{} {}"), std::string(),
        std::string("[1]"), std::string("\"x\"")}) {
    OpenAiRequest out;
    const Fault fault = ParseOpenAiRequest(OpenAiEndpoint::kChat, body, {}, 32, out);
    ASSERT_TRUE(fault.has_value()) << body.substr(0, 40);
    EXPECT_EQ(fault->http_status, 400);
  }
}

TEST(OpenAiRequestTest, TheJsonTestSuiteIsReadAsItsNamesSay) {
  SKIP_WITHOUT_SHARED(folder, "json_test_suite/test_parsing");
  // Two meanings for one text are refused on purpose (base/json.h).
  const std::set<std::string> refused = {"y_object_duplicated_key.json",
                                         "y_object_duplicated_key_and_value.json"};
  size_t read = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename();
    std::stringstream text;
    text << std::ifstream(entry.path(), std::ios::binary).rdbuf();
    Json out;
    const Fault fault = ParseJsonBody(text.str(), 32, out);
    const bool json_fault =
        fault.has_value() && fault->message.find("must be a JSON object") == std::string::npos;
    if (name[0] == 'n') {
      EXPECT_TRUE(json_fault) << name;
    }
    if (name[0] == 'y') {
      EXPECT_EQ(json_fault, refused.count(name) > 0) << name;
    }
    if (fault) {
      EXPECT_EQ(fault->http_status, 400);
    }
    ++read;
  }
  EXPECT_GT(read, 300U);
}

TEST(OpenAiRequestTest, TheFieldTableDocumentsItself) {
  std::set<std::string_view> names;
  for (const auto fields : {OpenAiSamplingFields(), OpenAiChatFields(), OpenAiRefusedFields()}) {
    for (const OpenAiField& field : fields) {
      EXPECT_TRUE(names.insert(field.name).second) << field.name << " stands twice";
      EXPECT_FALSE(field.doc.empty() && field.fallback.empty()) << field.name;
    }
  }
  for (const OpenAiField& field : OpenAiCompletionFields()) EXPECT_FALSE(field.doc.empty());
}

TEST(OpenAiWriterTest, WritesShortestDecimalsAndNoNan) {
  std::string out;
  for (const float value : {-1.5794021F, 0.1F, -2.0F, 1e-7F, -INFINITY, NAN}) {
    AppendLogprob(value, out);
    out += ' ';
  }
  EXPECT_EQ(out, "-1.5794021 0.1 -2.0 1e-07 -9999.0 -9999.0 ");
}

TEST(OpenAiWriterTest, KeepsBytesThatAreNoTextApart) {
  GeneratedToken token;
  token.sampled.id = 1;
  token.sampled.logprob = -1;
  token.text = "\xE2\x82";
  token.sampled.top = {{2, -2.0F}};
  token.top_texts = {"\xAC"};
  std::string out;
  size_t offset = 3;
  AppendCompletionLogprobs(std::span(&token, 1), {1, false}, false, offset, out);
  EXPECT_EQ(out, R"({"text_offset":[3],"token_logprobs":[-1.0],"tokens":["bytes:\\xe2\\x82"],)"
                 R"("top_logprobs":[{"bytes:\\xe2\\x82":-1.0,"bytes:\\xac":-2.0}]})");
  EXPECT_EQ(offset, 4U);
  out.clear();
  AppendChatLogprobs(std::span(&token, 1), {1, true}, out);
  EXPECT_EQ(out, R"({"content":[{"token":"token_id:1","logprob":-1.0,"bytes":[226,130],)"
                 R"("top_logprobs":[{"token":"token_id:2","logprob":-2.0,"bytes":[172]}]}]})");
}

TEST(OpenAiWriterTest, WritesPromptLogprobsWithRanks) {
  GeneratedToken first;
  GeneratedToken second;
  second.sampled.id = 7;
  second.sampled.logprob = -3;
  second.text = "seven";
  second.sampled.top = {{8, -0.5F}};
  second.top_texts = {"eight"};
  const std::vector<GeneratedToken> tokens = {first, second};
  std::string out;
  AppendPromptLogprobs(tokens, out);
  EXPECT_EQ(out, R"([null,{"7":{"logprob":-3.0,"rank":null,"decoded_token":"seven"},)"
                 R"("8":{"logprob":-0.5,"rank":1,"decoded_token":"eight"}}])");
}

}  // namespace
}  // namespace muselet
