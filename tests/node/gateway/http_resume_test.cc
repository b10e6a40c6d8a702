// Idempotency-Key, Last-Event-ID and rate-limit headers at the HTTP door.
#include <gtest/gtest.h>

#include <map>

#include "base/json.h"
#include "node/gateway/http_gateway.h"
#include "tests/node/gateway/http_client.h"
#include "tests/node/gateway/loop_thread.h"
#include "tests/node/gateway/scripted_generation.h"

namespace muselet {
namespace {

using testing::HttpClient;
using testing::HttpReply;
using testing::LoopThread;
using testing::SayHello;
using testing::ScriptedGeneration;

const char kChat[] = "/v1/chat/completions";
const char kBody[] =
    R"({"model":"smol","messages":[{"role":"user","content":"hi"}],"n":2,"stream":true})";

class QuotaGeneration final : public ScriptedGeneration {
 public:
  using ScriptedGeneration::ScriptedGeneration;
  QuotaState Quota(const std::string& surface) const override {
    return surface == "default" ? QuotaState{60, 59, 1'000'000, 0, 0, 0} : QuotaState();
  }
};

class HttpResumeTest : public ::testing::Test {
 protected:
  HttpResumeTest() : service_(thread_.loop()) {
    service_.script = [this](const RequestId& id, const GenerationRequest& request,
                             GenerationSink& sink) {
      asked_.push_back(request);
      SayHello(id, request, sink);
    };
    HttpGatewayOptions options;
    options.address = "127.0.0.1:0";
    options.origins = std::make_shared<RequestOrigins>(ClusterSecret::Random(), 10);
    auto gateway =
        HttpGateway::Start(std::move(options), service_, thread_.loop(), registry_, metrics_);
    CHECK(gateway.ok(), gateway.status().message());
    gateway_ = std::move(gateway).value();
    thread_.Start();
  }
  ~HttpResumeTest() override {
    thread_.Stop();
    gateway_.reset();
  }
  HttpReply Ask(const std::string& headers = "", const std::string& body = kBody) {
    HttpClient client(gateway_->address());
    return client.Post(kChat, body, headers);
  }
  // The request that the last Ask became.
  GenerationRequest Asked() {
    GenerationRequest last;
    thread_.Do([&] { last = asked_.back(); });
    return last;
  }
  static std::vector<std::string> EventIds(const std::string& body) {
    std::vector<std::string> ids;
    for (size_t at = body.find("id: "); at != std::string::npos; at = body.find("\nid: ", at)) {
      at = body.find(' ', at) + 1;
      ids.push_back(body.substr(at, body.find('\n', at) - at));
    }
    return ids;
  }
  static std::string CodeOf(const HttpReply& reply) {
    const Json json = Json::parse(reply.body, nullptr, false);
    return std::to_string(reply.status) + " " + json["error"]["code"].get<std::string>();
  }

  LoopThread thread_;
  MetricRegistry registry_;
  GatewayMetrics metrics_{registry_, "g0", {"smol"}};
  QuotaGeneration service_;
  std::unique_ptr<HttpGateway> gateway_;
  std::vector<GenerationRequest> asked_;
};

TEST_F(HttpResumeTest, EachEventSaysHowMuchOfEachChoiceWentBefore) {
  const std::vector<std::string> ids = EventIds(Ask().body);
  ASSERT_EQ(ids.size(), 8U);  // role, text, text and end of two choices
  const std::string token = ids[0].substr(0, 44);
  const char* positions[] = {".0-0", ".1-0", ".1-0", ".1-1", ".2t-1", ".2f-1", ".2f-2t", ".2f-2f"};
  std::vector<std::string> expected;
  for (const char* position : positions) expected.push_back(token + position);
  EXPECT_EQ(ids, expected);
}

TEST_F(HttpResumeTest, TheLastEventIdAsksForTheRest) {
  const std::vector<std::string> ids = EventIds(Ask().body);
  const GenerationRequest first = Asked();
  ASSERT_TRUE(first.fixed);
  EXPECT_FALSE(first.fixed->may_run);
  const HttpReply again = Ask("Last-Event-ID: " + ids.at(4) + "\r\n");
  EXPECT_EQ(again.status, 200);
  const GenerationRequest second = Asked();
  EXPECT_EQ(second.fixed->id, first.fixed->id);
  EXPECT_EQ(second.fixed->seed, first.fixed->seed);
  EXPECT_EQ(second.fixed->now_unix_us, first.fixed->now_unix_us);
  EXPECT_TRUE(second.fixed->may_run);
  EXPECT_EQ(second.resume, (std::vector<ResumePoint>{{2, ResumePoint::Stage::kText},
                                                     {1, ResumePoint::Stage::kTokens}}));
  std::string other = kBody;
  other.replace(other.find("hi"), 2, "ho");
  EXPECT_EQ(CodeOf(Ask("Last-Event-ID: " + ids.at(4) + "\r\n", other)), "422 event_id_mismatch");
  EXPECT_EQ(Ask("Last-Event-ID: nonsense\r\n").status, 400);
}

TEST_F(HttpResumeTest, AKeyFixesTheRequestAndItsBody) {
  const std::string key = "Idempotency-Key: order-1\r\n";
  EXPECT_EQ(Ask(key).status, 200);
  const GenerationRequest first = Asked();
  EXPECT_EQ(Ask(key).status, 200);
  EXPECT_EQ(Asked().fixed->seed, first.fixed->seed);
  EXPECT_EQ(Asked().fixed->id, first.fixed->id);
  EXPECT_EQ(Ask("Idempotency-Key: order-2\r\n").status, 200);
  EXPECT_NE(Asked().fixed->seed, first.fixed->seed);
  std::string other = kBody;
  other.replace(other.find("hi"), 2, "ho");
  EXPECT_EQ(CodeOf(Ask(key, other)), "422 idempotency_key_reused");
}

TEST_F(HttpResumeTest, EveryAnswerOfTheApiTellsTheQuotas) {
  const auto expect = [](const HttpReply& reply) {
    EXPECT_EQ(reply.Header("x-ratelimit-limit-requests"), "60");
    EXPECT_EQ(reply.Header("x-ratelimit-remaining-requests"), "59");
    EXPECT_EQ(reply.Header("x-ratelimit-reset-requests"), "1s");
    EXPECT_EQ(reply.Header("x-ratelimit-limit-tokens"), "9007199254740991");
    EXPECT_NE(reply.Header("x-ratelimit-remaining-tokens"), "");
    EXPECT_EQ(reply.Header("x-ratelimit-reset-tokens"), "0s");
  };
  expect(Ask());
  expect(Ask("", "not json"));
  expect(HttpClient(gateway_->address()).Get("/v1/models"));
  expect(HttpClient(gateway_->address()).Get("/v1/nothing"));
  EXPECT_EQ(HttpClient(gateway_->address()).Get("/version").Header("x-ratelimit-limit-requests"),
            "");
}

}  // namespace
}  // namespace muselet
