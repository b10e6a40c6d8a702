#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "base/json.h"
#include "node/cli/bench.h"
#include "node/cli/bench_load.h"
#include "node/cli/bench_prompts.h"
#include "node/cli/chat.h"
#include "node/cli/http_client.h"
#include "node/cli/openai_client.h"
#include "node/cli/sse_reader.h"
#include "tests/node/cli/fake_openai_server.h"

namespace muselet {
namespace {

using ::testing::ElementsAre;
using testing::FakeOpenAiServer;
using ::testing::HasSubstr;

struct Session {
  std::istringstream in;
  std::ostringstream out;
  std::ostringstream err;
  CommandStreams streams() { return {in, out, err}; }
};

FakeOpenAiServer::Script Streaming(int tokens, bool usage) {
  return [=](const std::string& target, const std::string&, const std::string&) {
    return target == "/v1/models" ? FakeOpenAiServer::Models()
                                  : FakeOpenAiServer::Stream(tokens, usage);
  };
}

TEST(SseReader, GivesTheSameEventsHoweverTheBytesAreCut) {
  const std::string text = ": hi\r\ndata: one\r\n\r\nevent: x\ndata:two\ndata: three\n\ndata: end";
  for (size_t piece = 1; piece <= text.size(); ++piece) {
    SseReader reader;
    std::vector<std::string> events;
    for (size_t at = 0; at < text.size(); at += piece) {
      ASSERT_TRUE(reader
                      .Feed(text.substr(at, piece),
                            [&](std::string_view data) { events.emplace_back(data); })
                      .ok());
    }
    EXPECT_THAT(events, ElementsAre("one", "two\nthree")) << piece;
  }
}

TEST(SseReader, RefusesAnEndlessEvent) {
  SseReader reader(10);
  EXPECT_EQ(reader.Feed("data: 1234567890", [](std::string_view) {}).code(),
            StatusCode::kResourceExhausted);
}

TEST(HttpUrl, ReadsHostPortAndPath) {
  const Result<HttpUrl> url = ParseHttpUrl("http://[::1]:8000/api/v1/");
  ASSERT_TRUE(url.ok());
  EXPECT_EQ(url->host + " " + url->port + " " + url->path, "::1 8000 /api/v1");
  EXPECT_EQ(ApiBase(*url), "/api/v1");
  EXPECT_EQ(ApiBase(*ParseHttpUrl("localhost:1")), "/v1");
  EXPECT_EQ(ParseHttpUrl("http://example.org")->port, "80");
  EXPECT_FALSE(ParseHttpUrl("http://example.org")->tls);
  EXPECT_EQ(ParseHttpUrl("https://example.org")->port, "443");
  EXPECT_TRUE(ParseHttpUrl("https://example.org:8443/v1")->tls);
  for (const char* bad : {"httpss://x", "", "http://", "https://", "http://x:port", "ftp://x"}) {
    EXPECT_FALSE(ParseHttpUrl(bad).ok()) << bad;
  }
}

TEST(Chat, StreamsAnswersRemembersAndForgets) {
  FakeOpenAiServer server(Streaming(3, true));
  Session session;
  session.in.str("first\nsecond\n/reset\n\nthird\n/nonsense\n/exit\nnever asked\n");
  ChatOptions options;
  options.url = server.url();
  options.system = "Be brief.";
  EXPECT_EQ(RunChat(options, session.streams()), 0) << session.err.str();
  EXPECT_EQ(session.out.str(), "tok0 tok1 tok2 \ntok0 tok1 tok2 \ntok0 tok1 tok2 \n");
  EXPECT_THAT(session.err.str(), HasSubstr("[3 tokens, "));
  EXPECT_THAT(session.err.str(), HasSubstr("/nonsense is unknown"));
  const std::vector<std::string> bodies = server.bodies();
  ASSERT_EQ(bodies.size(), 3U);
  EXPECT_EQ(ParseJson(bodies[0])->at("messages").size(), 2U);
  EXPECT_EQ(ParseJson(bodies[1])->at("messages").size(), 4U);
  EXPECT_EQ(ParseJson(bodies[2])->at("messages").size(), 2U);
  EXPECT_EQ(ParseJson(bodies[0])->at("model"), "fake-model");
  EXPECT_EQ(ParseJson(bodies[0])->count("max_tokens"), 0U);
}

TEST(Chat, OnceAsksOneQuestionAndFaultsAreOneLine) {
  const FakeOpenAiServer server([](const std::string&, const std::string& head,
                                   const std::string&) {
    if (head.find("Bearer right") != std::string::npos) return FakeOpenAiServer::Stream(1, false);
    return FakeOpenAiServer::Answer(401, "application/json", R"({"error":{"message":"bad key"}})");
  });
  ChatOptions options;
  options.url = server.url();
  options.once = "hello";
  options.has_once = true;
  Session refused;
  EXPECT_EQ(RunChat(options, refused.streams()), 2);
  EXPECT_EQ(refused.err.str(),
            "muselet chat: " + options.url + ": HTTP 401: bad key (give the key with --api-key)\n");
  options.model = "m";
  options.api_key = "right";
  Session answered;
  EXPECT_EQ(RunChat(options, answered.streams()), 0);
  EXPECT_EQ(answered.out.str(), "tok0 \n");
  EXPECT_THAT(answered.err.str(), HasSubstr("counted by chunks"));
  options.api_key = "wrong";
  Session wrong;
  EXPECT_EQ(RunChat(options, wrong.streams()), 1);
  EXPECT_EQ(wrong.err.str(), "muselet: HTTP 401: bad key\n");
}

Json BenchResult(const BenchOptions& options, int exit_code) {
  Session session;
  BenchOptions with_json = options;
  with_json.json = "-";
  EXPECT_EQ(RunBench(with_json, session.streams()), exit_code) << session.err.str();
  return ParseJson(session.out.str()).value();
}

TEST(Bench, ClosedLoopCountsTokensByUsage) {
  FakeOpenAiServer server(Streaming(5, true));
  BenchOptions options;
  options.url = server.url();
  options.requests = 12;
  options.concurrency = 3;
  options.ignore_eos = true;
  const Json result = BenchResult(options, 0);
  EXPECT_EQ(result["requests"]["succeeded"], 12);
  EXPECT_EQ(result["requests"]["failed"], 0);
  EXPECT_EQ(result["output_tokens"], 60);
  EXPECT_EQ(result["prompt_tokens"], 84);
  EXPECT_EQ(result["tokens_counted_by"], "usage");
  EXPECT_EQ(result["ttft_ms"]["samples"], 12);
  EXPECT_EQ(result["itl_ms"]["samples"], 48);
  EXPECT_EQ(result["tpot_ms"]["samples"], 12);
  EXPECT_GT(result["output_tokens_per_s"].get<double>(), 0.0);
  EXPECT_LE(result["mean_in_flight"].get<double>(), 3.0);
  const Json body = *ParseJson(server.bodies()[0]);
  EXPECT_EQ(body["max_tokens"], 128);
  EXPECT_EQ(body["ignore_eos"], true);
  EXPECT_EQ(body["stream_options"]["include_usage"], true);
}

TEST(Bench, OpenLoopSendsEveryArrivalAndCountsChunksWithoutUsage) {
  FakeOpenAiServer server(Streaming(4, false));
  BenchOptions options;
  options.url = server.url();
  options.rate = 2000;
  options.requests = 20;
  options.concurrency = 2;
  options.completions = true;
  const Json result = BenchResult(options, 0);
  EXPECT_EQ(result["requests"]["succeeded"], 20);
  EXPECT_EQ(result["output_tokens"], 80);
  EXPECT_EQ(result["tokens_counted_by"], "chunks");
  EXPECT_TRUE(ParseJson(server.bodies()[0])->contains("prompt"));
}

TEST(Bench, EachWorkerKeepsItsConnection) {
  FakeOpenAiServer server(Streaming(3, true), {.keep_alive = true});
  BenchOptions options;
  options.url = server.url();
  options.model = "m";
  options.requests = 40;
  options.concurrency = 4;
  const Json result = BenchResult(options, 0);
  EXPECT_EQ(result["requests"]["succeeded"], 40);
  EXPECT_EQ(server.bodies().size(), 40U);
  EXPECT_LE(server.connections(), 4);
}

TEST(Bench, AConnectionThatTheServerClosedBetweenRequestsIsNoError) {
  FakeOpenAiServer server(Streaming(3, true));  // closes after each, without a word about it
  BenchOptions options;
  options.url = server.url();
  options.model = "m";
  options.requests = 10;
  options.concurrency = 1;
  const Json result = BenchResult(options, 0);
  EXPECT_EQ(result["requests"]["succeeded"], 10);
  EXPECT_EQ(server.bodies().size(), 10U);
  EXPECT_EQ(server.connections(), 10);
}

// The request cannot be sent whole, over a new connection as over one that was left open.
TEST(HttpClient, ReadsAnAnswerThatCameBeforeTheRequestWasSent) {
  FakeOpenAiServer server(Streaming(1, true),
                          {.keep_alive = true, .tls = nullptr, .body_bytes_max = 1000});
  constexpr int64_t kTimeoutUs = 60'000'000;
  const std::string large(64 << 20, 'x');
  const Result<HttpUrl> url = ParseHttpUrl(server.url());
  const Result<std::unique_ptr<HttpClient>> client = HttpClient::Open(*url, {});
  ASSERT_TRUE(client.ok());
  for (int round = 0; round < 2; ++round) {
    HttpRequest request;
    request.method = "POST";
    request.target = "/v1/completions";
    request.body = large;
    const Result<HttpAnswer> answer = Fetch(**client, request, kTimeoutUs);
    ASSERT_TRUE(answer.ok()) << answer.status().message();
    EXPECT_EQ(answer->status_code, 413);
    EXPECT_EQ(answer->body, "too large");
  }
  EXPECT_EQ(server.connections(), 2);
}

TEST(Bench, SortsErrorsByKind) {
  std::atomic<int> requests = 0;
  FakeOpenAiServer server([&](const std::string& target, const std::string&, const std::string&) {
    if (target == "/v1/models") return FakeOpenAiServer::Models();
    switch (requests.fetch_add(1) % 4) {
      case 0:
        return FakeOpenAiServer::Stream(2, true);
      case 1:
        return FakeOpenAiServer::Answer(429, "application/json", R"({"error":{"message":"full"}})");
      case 2:
        return std::string("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ndata: {}\n\n");
      default:
        return FakeOpenAiServer::Chunked(
            FakeOpenAiServer::Event(R"({"error":{"message":"lost"}})"));
    }
  });
  BenchOptions options;
  options.url = server.url();
  options.requests = 8;
  options.concurrency = 1;
  const Json result = BenchResult(options, 0);
  EXPECT_EQ(result["requests"]["succeeded"], 2);
  EXPECT_EQ(result["errors"], Json({{"cut off", 2}, {"error event", 2}, {"http 429", 2}}));
}

TEST(Bench, FailsWithTwoWithoutAServerOrPrompts) {
  uint16_t port = 0;
  { port = FakeOpenAiServer(Streaming(1, true)).port(); }
  BenchOptions options;
  options.url = "http://127.0.0.1:" + std::to_string(port);
  Session session;
  EXPECT_EQ(RunBench(options, session.streams()), 2);
  EXPECT_THAT(session.err.str(), HasSubstr("cannot connect"));
  options.prompts = "no/such/file";
  EXPECT_EQ(RunBench(options, session.streams()), 2);
  EXPECT_THAT(session.err.str(), HasSubstr("no/such/file"));
}

TEST(Bench, TableShowsWhatPeopleCompare) {
  RequestRecord record;
  record.start_us = 0;
  record.first_us = 100'000;
  record.last_us = record.end_us = 1'000'000;
  record.prompt_tokens = 20;
  record.output_tokens = 10;
  record.has_usage = true;
  record.gaps_us.assign(9, 100'000);
  RequestRecord failed;
  failed.start_us = 0;
  failed.end_us = 1'000;
  failed.error = "http 500";
  failed.error_message = "HTTP 500";
  const BenchSummary summary = Summarise({record, failed});
  EXPECT_DOUBLE_EQ(summary.output_tokens_per_s, 10);
  EXPECT_DOUBLE_EQ(summary.total_tokens_per_s, 30);
  EXPECT_DOUBLE_EQ(summary.ttft.p50, 100);
  EXPECT_DOUBLE_EQ(summary.itl.p99, 100);
  EXPECT_DOUBLE_EQ(summary.tpot.mean, 100);
  const std::string table = BenchTable(summary, {}, "m");
  EXPECT_THAT(table, HasSubstr("output throughput           10.00 tokens/s"));
  EXPECT_THAT(table, HasSubstr("1 succeeded, 1 failed"));
  EXPECT_THAT(table, HasSubstr("1 × http 500: HTTP 500"));
}

TEST(Bench, PercentilesInterpolateBetweenSamples) {
  const Percentiles values = PercentilesOf({4, 1, 3, 2});
  EXPECT_DOUBLE_EQ(values.mean, 2.5);
  EXPECT_DOUBLE_EQ(values.p50, 2.5);
  EXPECT_DOUBLE_EQ(values.p90, 3.7);
  EXPECT_DOUBLE_EQ(values.max, 4);
  EXPECT_EQ(PercentilesOf({}).samples, 0U);
}

TEST(Bench, ArrivalsFollowTheRateAndTheSeed) {
  PoissonArrivals arrivals(50, 7);
  PoissonArrivals again(50, 7);
  PoissonArrivals other(50, 8);
  int64_t sum_us = 0;
  bool differs = false;
  constexpr int kCount = 20000;
  for (int i = 0; i < kCount; ++i) {
    const int64_t gap_us = arrivals.NextGapUs();
    ASSERT_EQ(gap_us, again.NextGapUs());
    differs = differs || gap_us != other.NextGapUs();
    sum_us += gap_us;
  }
  EXPECT_TRUE(differs);
  EXPECT_NEAR(static_cast<double>(sum_us) / kCount, 20'000, 600);
}

TEST(BenchPrompts, ReadsMtBenchAndPlainLinesAndNamesBadLines) {
  const auto mt_bench = LoadPrompts("tests/bench/prompts/mt_bench.jsonl");
  ASSERT_TRUE(mt_bench.ok()) << mt_bench.status().message();
  EXPECT_EQ(mt_bench->size(), 80U);
  EXPECT_THAT(mt_bench->front(), ::testing::StartsWith("Compose an engaging travel blog"));
  const std::string path = ::testing::TempDir() + "muselet_prompts" + std::to_string(getpid());
  std::ofstream(path) << "one\n\ntwo\r\n";
  EXPECT_THAT(*LoadPrompts(path), ElementsAre("one", "two"));
  std::ofstream(path) << "{\"prompt\": \"a\"}\n{\"question\": \"b\"}\n";
  EXPECT_THAT(LoadPrompts(path).status().message(), HasSubstr(path + ":2: needs"));
  EXPECT_EQ(LoadPrompts("")->size(), 8U);
}

}  // namespace
}  // namespace muselet
