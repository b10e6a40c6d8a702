#include "node/gateway/http_gateway.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <future>
#include <sstream>

#include "base/json.h"
#include "tests/node/gateway/http_client.h"
#include "tests/node/gateway/loop_thread.h"
#include "tests/node/gateway/scripted_generation.h"
#include "tests/support/fixtures.h"

namespace muselet {
namespace {

using testing::HttpClient;
using testing::HttpReply;
using testing::LoopThread;
using testing::SayHello;
using testing::ScriptedGeneration;
using testing::SendStart;
using testing::SendText;

const char kChat[] = "/v1/chat/completions";
const char kCompletions[] = "/v1/completions";

class HttpGatewayTest : public ::testing::Test {
 protected:
  HttpGatewayTest() : service_(thread_.loop()) { service_.script = SayHello; }
  void Serve(HttpGatewayOptions options = {}) {
    options.address = "127.0.0.1:0";
    options.version = "1.2.3";
    auto gateway =
        HttpGateway::Start(std::move(options), service_, thread_.loop(), registry_, metrics_);
    ASSERT_TRUE(gateway.ok()) << gateway.status().message();
    gateway_ = std::move(gateway).value();
    address_ = gateway_->address();
    thread_.Start();
  }
  void TearDown() override {
    thread_.Stop();
    gateway_.reset();
  }
  HttpReply Ask(const std::string& path, const std::string& body, const std::string& headers = "") {
    HttpClient client(address_);
    return client.Post(path, body, headers);
  }

  LoopThread thread_;
  MetricRegistry registry_;
  GatewayMetrics metrics_{registry_, "g0", {"smol"}};
  ScriptedGeneration service_;
  std::unique_ptr<HttpGateway> gateway_;
  std::string address_;
};

// The JSON of an answer or a chunk, with its time taken out.
Json Timeless(const std::string& text) {
  Json json = Json::parse(text, nullptr, false);
  if (json.is_object() && json.contains("created")) {
    EXPECT_GT(json["created"].get<int64_t>(), 1'600'000'000);
    json["created"] = 0;
  }
  return json;
}

// The events of a stream, one a line, without "data: ".
std::string Events(const std::string& body) {
  std::string events;
  size_t begin = 0;
  while (begin < body.size()) {
    const size_t end = body.find("\n\n", begin);
    if (end == std::string::npos) return events + "CUT: " + body.substr(begin);
    const std::string event = body.substr(begin, end - begin);
    begin = end + 2;
    if (event.rfind("data: ", 0) != 0) {
      events += event + "\n";
    } else if (event == "data: [DONE]") {
      events += "[DONE]\n";
    } else {
      events += Timeless(event.substr(6)).dump() + "\n";
    }
  }
  return events;
}

std::string ErrorMember(const HttpReply& reply, const char* member) {
  const Json json = Json::parse(reply.body, nullptr, false);
  if (!json.is_object() || !json.contains("error")) return "no error object: " + reply.body;
  const Json& value = json["error"][member];
  return value.is_string() ? value.get<std::string>() : value.dump();
}

TEST_F(HttpGatewayTest, AnswersAChat) {
  Serve();
  const HttpReply reply =
      Ask(kChat, R"({"model":"smol","messages":[{"role":"user","content":"hi"}],"max_tokens":2})");
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(
      Timeless(reply.body).dump(),
      R"({"id":"chatcmpl-00000000000000000000000000000001","object":"chat.completion",)"
      R"("created":0,"model":"smol","system_fingerprint":"cpu-f32","choices":[{"index":0,)"
      R"("message":{"role":"assistant","content":"Hello world","refusal":null},"logprobs":null,)"
      R"("finish_reason":"length","stop_reason":null}],"usage":{"prompt_tokens":3,)"
      R"("total_tokens":5,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":1}}})");
}

TEST_F(HttpGatewayTest, StreamsAChat) {
  Serve();
  const HttpReply reply =
      Ask(kChat, R"({"messages":[{"role":"user","content":"hi"}],"stream":true,)"
                 R"("stream_options":{"include_usage":true}})");
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.Header("Content-Type"), "text/event-stream; charset=utf-8");
  EXPECT_EQ(reply.Header("X-Accel-Buffering"), "no");
  const std::string head =
      R"({"id":"chatcmpl-00000000000000000000000000000001","object":"chat.completion.chunk",)"
      R"("created":0,"model":"smol","system_fingerprint":"cpu-f32","choices":[)";
  const std::string tail = R"(}],"usage":null})";
  EXPECT_EQ(
      Events(reply.body),
      head + R"({"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,)" +
          R"("finish_reason":null)" + tail + "\n" + head +
          R"({"index":0,"delta":{"content":"Hello"},"logprobs":null,"finish_reason":null)" + tail +
          "\n" + head +
          R"({"index":0,"delta":{"content":" world"},"logprobs":null,"finish_reason":null)" + tail +
          "\n" + head +
          R"({"index":0,"delta":{},"logprobs":null,"finish_reason":"length","stop_reason":null)" +
          tail + "\n" + head +
          R"(],"usage":{"prompt_tokens":3,"total_tokens":5,"completion_tokens":2,)"
          R"("prompt_tokens_details":{"cached_tokens":1}}})"
          "\n[DONE]\n");
}

TEST_F(HttpGatewayTest, StreamsTokenIdsAndUsageOfEachChunk) {
  Serve();
  const HttpReply reply = Ask(
      kCompletions, R"({"prompt":"x","stream":true,"return_token_ids":true,)"
                    R"("stream_options":{"continuous_usage_stats":true,"include_usage":false}})");
  const std::string events = Events(reply.body);
  EXPECT_NE(events.find(R"("token_ids":[11],"prompt_token_ids":[1,2,3]}],"usage":{"prompt_tokens":)"
                        R"(3,"total_tokens":4,"completion_tokens":1)"),
            std::string::npos)
      << events;
  EXPECT_NE(events.find(R"("token_ids":[12]}],"usage":{"prompt_tokens":3,"total_tokens":5)"),
            std::string::npos)
      << events;
}

TEST_F(HttpGatewayTest, GivesLogprobsOfChats) {
  Serve();
  const HttpReply reply =
      Ask(kChat, R"({"messages":[{"role":"user","content":"hi"}],)"
                 R"("logprobs":true,"top_logprobs":2,"return_token_ids":true})");
  const Json json = Json::parse(reply.body);
  EXPECT_EQ(json["choices"][0]["logprobs"]["content"][0].dump(),
            R"({"token":"Hello","logprob":-0.5,"bytes":[72,101,108,108,111],"top_logprobs":[)"
            R"({"token":"Hello","logprob":-0.5,"bytes":[72,101,108,108,111]},)"
            R"({"token":"~Hello","logprob":-2.25,"bytes":[126,72,101,108,108,111]}]})");
  EXPECT_EQ(json["choices"][0]["token_ids"].dump(), "[11,12]");
  EXPECT_EQ(json["prompt_token_ids"].dump(), "[1,2,3]");
}

TEST_F(HttpGatewayTest, GivesLogprobsOfCompletionsWithTheEchoedPrompt) {
  service_.script = [](const RequestId& id, const GenerationRequest& request,
                       GenerationSink& sink) {
    EXPECT_TRUE(request.echo);
    EXPECT_EQ(request.sampling.prompt_logprobs, 1);
    GenerationStart start;
    start.request = id;
    start.prompt_ids = {5, 6};
    start.prompt_tokens = {testing::MakeToken(5, "\xC3\xA9"), testing::MakeToken(6, " sea", -3)};
    sink.OnStart(start);
    SendText(sink, 0, "\xC3\xA9 sea of", 7, FinishReason::kLength);
    sink.OnDone({2, 1, 0});
  };
  Serve();
  const HttpReply reply =
      Ask(kCompletions, R"({"prompt":"x","echo":true,"logprobs":1,"max_tokens":1})");
  const Json choice = Json::parse(reply.body)["choices"][0];
  EXPECT_EQ(choice["text"], "\xC3\xA9 sea of");
  EXPECT_EQ(choice["logprobs"]["text_offset"].dump(), "[0,1,5]");
  EXPECT_EQ(choice["logprobs"]["token_logprobs"].dump(), "[null,-3.0,-0.5]")
      << choice["logprobs"].dump();
  EXPECT_EQ(choice["logprobs"]["top_logprobs"][1].dump(), R"({" sea":-3.0})");
}

TEST_F(HttpGatewayTest, AnswersSeveralPromptsAndChoicesInOrder) {
  service_.script = [this](const RequestId& id, const GenerationRequest& request,
                           GenerationSink& sink) {
    if (id.low == 1) return;  // the first prompt answers last
    SayHello(id, request, sink);
    if (id.low == 2) {
      GenerationSink& first = service_.sink(1);
      SendStart({0, 1}, first);
      SendText(first, 1, "b", 1, FinishReason::kStop);
      SendText(first, 0, "a", 2, FinishReason::kStop);
      first.OnDone({3, 2, 0});
    }
  };
  Serve();
  const HttpReply reply = Ask(kCompletions, R"({"prompt":["one","two"],"n":2})");
  const Json json = Json::parse(reply.body);
  std::string texts;
  for (const Json& choice : json["choices"])
    texts += choice["index"].dump() + choice["text"].get<std::string>() + "|";
  EXPECT_EQ(texts, "0a|1b|2Hello world|3Hello world|");
  EXPECT_EQ(json["usage"]["completion_tokens"], 6);
}

TEST_F(HttpGatewayTest, CancelsAtOnceWhenTheClientGoesAway) {
  service_.script = [](const RequestId& id, const GenerationRequest&, GenerationSink& sink) {
    SendStart(id, sink);
    SendText(sink, 0, "Hello", 1);
  };
  Serve();
  const std::string chat = R"({"messages":[{"role":"user","content":"hi"}])";
  HttpClient streaming(address_);
  streaming.Send(HttpClient::PostText(kChat, chat + R"(,"stream":true})"));
  EXPECT_NE(streaming.ReadUntil("Hello"), "");
  streaming.Close();
  EXPECT_TRUE(service_.WaitForCancels(1));
  HttpClient waiting(address_);
  waiting.Send(HttpClient::PostText(kChat, chat + "}"));
  EXPECT_TRUE(service_.WaitForScripts(2));
  waiting.Reset();
  EXPECT_TRUE(service_.WaitForCancels(2));
  HttpClient several(address_);
  several.Send(HttpClient::PostText(kCompletions, R"({"prompt":["a","b","c"]})"));
  EXPECT_TRUE(service_.WaitForScripts(5));
  several.Close();
  EXPECT_TRUE(service_.WaitForCancels(5));
}

TEST_F(HttpGatewayTest, CancelsASlowReader) {
  service_.script = [this](const RequestId& id, const GenerationRequest&, GenerationSink& sink) {
    SendStart(id, sink);
    for (int i = 0; i < 3000 && service_.runs(id.low); ++i)
      SendText(sink, 0, std::string(8192, 'x'), 1);
  };
  Serve();
  HttpClient client(address_, 4096);
  client.Send(HttpClient::PostText(
      kChat, R"({"messages":[{"role":"user","content":"hi"}],"stream":true})"));
  EXPECT_TRUE(service_.WaitForCancels(1));
  EXPECT_EQ(HttpClient(address_).Get("/livez").status, 200);
}

TEST_F(HttpGatewayTest, RefusesWithTheStatusThatSaysWhatToDo) {
  GenerationError error;
  service_.script = [&error](const RequestId& id, const GenerationRequest&, GenerationSink& sink) {
    SendStart(id, sink);
    sink.OnError(error);
  };
  Serve();
  const std::string body = R"({"prompt":"x","stream":true})";
  error = {ResourceExhausted("too many requests in flight"), "", 2'500'000};
  HttpReply reply = Ask(kCompletions, body);
  EXPECT_EQ(reply.status, 429);
  EXPECT_EQ(reply.Header("Retry-After"), "3");
  EXPECT_EQ(ErrorMember(reply, "code"), "rate_limit_exceeded");
  error = {Unavailable("no replica is ready"), "", 0};
  reply = Ask(kCompletions, body);
  EXPECT_EQ(reply.status, 503);
  EXPECT_EQ(reply.Header("Retry-After"), "1");
  error = {DeadlineExceeded("the request's time is over"), "", 0};
  reply = Ask(kCompletions, body);
  EXPECT_EQ(reply.status, 504);
  EXPECT_EQ(ErrorMember(reply, "type"), "timeout_error");
  error = {InvalidArgument("the prompt is longer than the context"), "prompt", 0};
  reply = Ask(kCompletions, body);
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(ErrorMember(reply, "param"), "prompt");
  error = {Internal("oops"), "", 0};
  EXPECT_EQ(Ask(kCompletions, R"({"prompt":"x"})").status, 500);
}

TEST_F(HttpGatewayTest, SaysInTheStreamWhatWentWrongInIt) {
  service_.script = [](const RequestId& id, const GenerationRequest&, GenerationSink& sink) {
    SendStart(id, sink);
    SendText(sink, 0, "Hel", 1);
    sink.OnError({Unavailable("the replica is gone"), "", 0});
  };
  Serve();
  const HttpReply reply = Ask(kCompletions, R"({"prompt":"x","stream":true})");
  EXPECT_EQ(reply.status, 200);
  const std::string events = Events(reply.body);
  EXPECT_TRUE(events.ends_with(
      R"({"error":{"message":"the replica is gone","type":"server_error","param":null,)"
      R"("code":"service_unavailable"}})"
      "\n[DONE]\n"))
      << events;
}

TEST_F(HttpGatewayTest, OneFailedPromptEndsTheAnswerAndCancelsTheOthers) {
  service_.script = [](const RequestId& id, const GenerationRequest&, GenerationSink& sink) {
    if (id.low == 2) sink.OnError({InvalidArgument("too long"), "prompt", 0});
  };
  Serve();
  const HttpReply reply = Ask(kCompletions, R"({"prompt":["a","b","c"]})");
  EXPECT_EQ(reply.status, 400);
  EXPECT_TRUE(service_.WaitForCancels(2));
}

TEST_F(HttpGatewayTest, ListsAndFindsModels) {
  Serve();
  HttpClient client(address_);
  Json list = Json::parse(client.Get("/v1/models").body);
  EXPECT_EQ(list["object"], "list");
  EXPECT_EQ(list["data"][0]["id"], "smol");
  EXPECT_EQ(list["data"][0]["max_model_len"], 2048);
  EXPECT_EQ(Json::parse(client.Get("/v1/models/smol").body)["id"], "smol");
  EXPECT_EQ(client.Get("/v1/models/nope").status, 404);
  const HttpReply reply = client.Post(kCompletions, R"({"model":"nope","prompt":"x"})");
  EXPECT_EQ(reply.status, 404);
  EXPECT_EQ(ErrorMember(reply, "param"), "model");
  EXPECT_EQ(ErrorMember(reply, "code"), "model_not_found");
}

TEST_F(HttpGatewayTest, TokenizesAndBack) {
  Serve();
  HttpClient client(address_);
  EXPECT_EQ(client.Post("/tokenize", R"({"prompt":"ab","return_token_strs":true})").body,
            R"({"count":2,"max_model_len":2048,"tokens":[97,98],"token_strs":["a","b"]})");
  EXPECT_EQ(client.Post("/tokenize", R"({"messages":[{"role":"user","content":"x"}]})").body,
            R"({"count":4,"max_model_len":2048,"tokens":[99,104,97,116],"token_strs":null})");
  EXPECT_EQ(client.Post("/detokenize", R"({"tokens":[104,105]})").body, R"({"prompt":"hi"})");
  EXPECT_EQ(ErrorMember(client.Post("/detokenize", R"({"tokens":[-1]})"), "param"), "tokens");
  EXPECT_EQ(ErrorMember(client.Post("/tokenize", "{}"), "param"), "prompt");
}

TEST_F(HttpGatewayTest, ServesProbesVersionAndMetrics) {
  HttpGatewayOptions options;
  std::atomic<bool> live = true;
  options.live = [&] { return live ? OkStatus() : Unavailable("the loop stands still"); };
  Serve(std::move(options));
  HttpClient client(address_);
  EXPECT_EQ(client.Get("/livez").status, 200);
  EXPECT_EQ(client.Get("/readyz").status, 200);
  EXPECT_EQ(client.Get("/health").status, 200);
  EXPECT_EQ(client.Get("/version").body, R"({"version":"1.2.3"})");
  thread_.Do([&] { service_.ready = Unavailable("model smol has no replica"); });
  live = false;
  EXPECT_EQ(client.Get("/livez").status, 503);
  EXPECT_EQ(client.Get("/readyz").status, 503);
  EXPECT_EQ(client.Get("/health").status, 503);
  const HttpReply metrics = client.Get("/metrics");
  EXPECT_EQ(metrics.Header("Content-Type"), "text/plain; version=0.0.4; charset=utf-8");
  const auto line = [&](const std::string& begin) {
    const size_t at = metrics.body.find("\n" + begin);
    if (at == std::string::npos) return std::string("no ") + begin;
    return metrics.body.substr(at + 1, metrics.body.find('\n', at + 1) - at - 1);
  };
  EXPECT_TRUE(line("muselet_http_responses_total{code=\"2xx\"").ends_with(" 4"))
      << line("muselet_http_responses_total{code=\"2xx\"");
  EXPECT_TRUE(line("muselet_http_responses_total{code=\"5xx\"").ends_with(" 3"));
  EXPECT_TRUE(line("muselet_http_connections").ends_with(" 1")) << line("muselet_http_connections");
}

TEST_F(HttpGatewayTest, TheJsonTestSuiteGetsFaultsOfTheClientAndHurtsNobody) {
  SKIP_WITHOUT_SHARED(folder, "json_test_suite/test_parsing");
  Serve();
  size_t read = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename();
    std::stringstream text;
    text << std::ifstream(entry.path(), std::ios::binary).rdbuf();
    const HttpReply reply = Ask(kChat, text.str());
    // None of them is a chat: where the JSON is good, `messages` is missing.
    EXPECT_EQ(reply.status, 400) << name;
    const bool refused = name[0] == 'n' || name.starts_with("y_object_duplicated_key");
    const bool malformed = reply.body.find("is not usable JSON") != std::string::npos;
    EXPECT_TRUE(name[0] == 'i' || malformed == refused) << name << ": " << reply.body;
    ++read;
  }
  EXPECT_GT(read, 300U);
  EXPECT_EQ(Ask(kCompletions, R"({"prompt":"x"})").status, 200);
}

TEST_F(HttpGatewayTest, WhileItDrainsItAnswersProbesAndRefusesNewWork) {
  service_.script = [](const RequestId& id, const GenerationRequest&, GenerationSink& sink) {
    SendStart(id, sink);
    SendText(sink, 0, "Hel", 11);
  };
  Serve();
  HttpClient running(address_);
  running.Send(HttpClient::PostText(kCompletions, R"({"prompt":"x","stream":true})"));
  ASSERT_TRUE(service_.WaitForScripts(1));
  std::promise<void> drained;
  thread_.Do([&] { gateway_->Drain([&] { drained.set_value(); }); });
  const HttpReply ready = HttpClient(address_).Get("/readyz");
  EXPECT_TRUE(ready.status == 503 && ready.body.find("draining") != std::string::npos);
  for (const char* path : {"/livez", "/health", "/metrics", "/version", "/v1/models"})
    EXPECT_EQ(HttpClient(address_).Get(path).status, 200) << path;
  for (const char* path : {kCompletions, kChat}) {
    const HttpReply refused = Ask(path, R"({"prompt":"x"})");
    EXPECT_TRUE(refused.status == 503 && refused.Header("Retry-After") == "1") << refused.head;
    EXPECT_NE(ErrorMember(refused, "message").find("draining"), std::string::npos);
  }
  thread_.Do([&] {
    SendText(service_.sink(1), 0, "lo", 12, FinishReason::kLength);
    service_.sink(1).OnDone({1, 2, 0});
  });
  const HttpReply whole = running.Read();
  EXPECT_NE(whole.body.find("\"lo\""), std::string::npos) << whole.body;
  EXPECT_TRUE(whole.body.ends_with("data: [DONE]\n\n")) << whole.body;
  EXPECT_EQ(drained.get_future().wait_for(testing::kPatience), std::future_status::ready);
  EXPECT_FALSE(HttpClient(address_).connected());
}

class HttpGatewayKeysTest : public HttpGatewayTest {
 protected:
  // A file that is gone at the end of the test.
  std::string KeyFile(const std::string& text) {
    const std::string path = ::testing::TempDir() + "muselet_keys_" +
                             std::to_string(files_.size()) + "_" + std::to_string(::getpid());
    std::ofstream(path) << text;
    files_.push_back(path);
    return path;
  }
  void TearDown() override {
    HttpGatewayTest::TearDown();
    for (const std::string& file : files_) std::remove(file.c_str());
  }
  HttpGatewayOptions TwoSurfaces() {
    HttpGatewayOptions options;
    options.surfaces = {{"chat", KeyFile("# keys of the chat app\nsk-chat-1\n\n sk-chat-2 \r\n"),
                         RequestClass::kInteractive},
                        {"glasses", KeyFile("sk-glasses-1\n"), RequestClass::kRealtime}};
    return options;
  }
  std::vector<std::string> files_;
};

TEST_F(HttpGatewayKeysTest, AKeyNamesTheSurface) {
  std::string seen;
  service_.script = [&](const RequestId& id, const GenerationRequest& request,
                        GenerationSink& sink) {
    seen += request.surface + "/" + std::string(RequestClassName(request.request_class)) + " ";
    SayHello(id, request, sink);
  };
  Serve(TwoSurfaces());
  for (const char* header : {"Authorization: Bearer sk-chat-2\r\n",
                             "Authorization: bearer sk-glasses-1\r\n", "x-api-key: sk-chat-1\r\n"})
    EXPECT_EQ(Ask(kCompletions, R"({"prompt":"x"})", header).status, 200);
  thread_.Do([&] { EXPECT_EQ(seen, "chat/interactive glasses/realtime chat/interactive "); });
}

TEST_F(HttpGatewayKeysTest, NothingButProbesIsOpenWithoutAKey) {
  Serve(TwoSurfaces());
  for (const char* path : {"/health", "/livez", "/readyz", "/version", "/metrics"})
    EXPECT_EQ(HttpClient(address_).Get(path).status, 200) << path;
  EXPECT_EQ(HttpClient(address_).Get("/v1/models").status, 401);
  EXPECT_EQ(HttpClient(address_).Get("/v1/models/smol").status, 401);
  for (const char* path : {kChat, kCompletions, "/tokenize", "/detokenize"}) {
    const HttpReply none = Ask(path, "{}");
    EXPECT_EQ(none.status, 401) << path;
    EXPECT_EQ(ErrorMember(none, "code"), "invalid_api_key");
    EXPECT_EQ(ErrorMember(none, "type"), "invalid_request_error");
    for (const char* header :
         {"Authorization: Bearer sk-chat-\r\n", "Authorization: Bearer sk-chat-1x\r\n",
          "Authorization: Basic sk-chat-1\r\n", "Authorization: Bearer\r\n",
          "Authorization: Bearer # keys of the chat app\r\n"})
      EXPECT_EQ(Ask(path, "{}", header).status, 401) << path << " " << header;
  }
}

TEST_F(HttpGatewayKeysTest, MetricsMayBeClosed) {
  HttpGatewayOptions options = TwoSurfaces();
  options.metrics_open = false;
  Serve(std::move(options));
  EXPECT_EQ(HttpClient(address_).Get("/metrics").status, 401);
  EXPECT_EQ(HttpClient(address_).Get("/metrics", "Authorization: Bearer sk-chat-1\r\n").status,
            200);
}

TEST_F(HttpGatewayKeysTest, RefusesKeyFilesThatCannotBeMeant) {
  const auto start = [&](std::vector<HttpSurface> surfaces) {
    HttpGatewayOptions options;
    options.address = "127.0.0.1:0";
    options.surfaces = std::move(surfaces);
    return HttpGateway::Start(std::move(options), service_, thread_.loop(), registry_, metrics_)
        .status();
  };
  const std::string shared = KeyFile("same-key\n");
  EXPECT_EQ(start({{"a", "/nowhere/keys", {}}}).code(), StatusCode::kNotFound);
  EXPECT_NE(start({{"a", KeyFile("# nothing\n"), {}}}).message().find("no key in it"),
            std::string::npos);
  EXPECT_NE(start({{"a", KeyFile("ok-key\ntwo words\n"), {}}}).message().find(":2: "),
            std::string::npos);
  EXPECT_NE(start({{"a", shared, {}}, {"b", shared, {}}}).message().find("another surface"),
            std::string::npos);
}

}  // namespace
}  // namespace muselet
