#include "comms/client/muselet_client.h"

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <future>
#include <thread>

#include "node/gateway/rpc_server.h"
#include "tests/node/gateway/echo_service.h"

namespace muselet {
namespace {

class MuseletClientTest : public ::testing::Test {
 protected:
  MuseletClientTest() : service_(loop_) {
    RpcServerOptions options;
    options.endpoint = "tcp://127.0.0.1:0";
    options.authorize = [](std::string_view key) -> Result<RpcCaller> {
      if (key == "secret") return RpcCaller{"glasses", RequestClass::kRealtime};
      return PermissionDenied("the API key is wrong or missing");
    };
    options.client_timeout_us = 300'000;
    options.calls_max = 4;
    auto server = RpcServer::Start(options, service_, loop_, context_);
    CHECK(server.ok(), server.status().message());
    server_ = std::move(*server);
    endpoint_ = server_->endpoint();
    thread_ = std::thread([this] { loop_.Run(); });
  }
  ~MuseletClientTest() override {
    loop_.Stop();
    thread_.join();
  }

  client::Client Connect(const std::string& key = "secret") {
    client::Options options;
    options.api_key = key;
    options.ping_interval_ms = 50;
    return client::Client(endpoint_, options);
  }
  // Waits for `done`, which is asked on the loop thread.
  bool Await(std::function<bool()> done) {
    std::promise<void> reached;
    std::unique_ptr<PeriodicTimer> timer;
    loop_.Post([&] {
      timer = std::make_unique<PeriodicTimer>(loop_, 1000, [&] {
        if (!done()) return;
        timer.reset();
        reached.set_value();
      });
    });
    const auto future = reached.get_future();
    return future.wait_for(std::chrono::seconds(10)) == std::future_status::ready;
  }

  EventLoop loop_{"rpc"};
  WireContext context_;
  testing::EchoService service_;
  std::unique_ptr<RpcServer> server_;
  std::string endpoint_;
  std::thread thread_;
};

TEST_F(MuseletClientTest, StreamsAChatAsItComes) {
  client::Client client = Connect();
  client::Request request;
  request.messages = {{"system", "be brief"}, {"user", "hello"}};
  request.model = "echo";
  std::string streamed;
  int chunks = 0;
  const client::Answer answer = client.Generate(request, [&](const client::Chunk& chunk) {
    streamed += chunk.text;
    ++chunks;
    return true;
  });
  ASSERT_TRUE(answer.error.ok()) << answer.error.message;
  EXPECT_GT(chunks, 10);
  ASSERT_EQ(answer.choices.size(), 1U);
  EXPECT_EQ(answer.choices[0].text, streamed);
  EXPECT_EQ(answer.choices[0].finish_reason, "length");
  EXPECT_EQ(answer.request_id.size(), 32U);
  EXPECT_EQ(answer.usage.generation_tokens, static_cast<uint32_t>(chunks));
  EXPECT_EQ(service_.last_request().surface, "glasses");
  EXPECT_EQ(service_.last_request().request_class, RequestClass::kRealtime);
}

TEST_F(MuseletClientTest, CarriesEveryParameter) {
  client::Client client = Connect();
  client::Request request;
  request.tokens = {'a', 'b'};
  request.max_tokens = 7;
  request.min_tokens = 2;
  request.temperature = 0.5F;
  request.top_k = 3;
  request.top_p = 0.25F;
  request.min_p = 0.125F;
  request.repetition_penalty = 1.5F;
  request.presence_penalty = 0.75F;
  request.frequency_penalty = -0.5F;
  request.seed = 99;
  request.n = 2;
  request.ignore_eos = true;
  request.logprobs = 1;
  request.stop = {"x", "y"};
  request.stop_token_ids = {4, 5};
  request.logit_bias = {{6, 1.0F}};
  request.timeout_ms = 1234;
  const client::Answer answer = client.Generate(request);
  ASSERT_TRUE(answer.error.ok()) << answer.error.message;
  ASSERT_EQ(answer.choices.size(), 2U);
  EXPECT_EQ(answer.choices[1].text, "ab");
  ASSERT_EQ(answer.choices[0].tokens.size(), 2U);
  EXPECT_FLOAT_EQ(answer.choices[0].tokens[0].logprob, -0.25F);
  EXPECT_EQ(answer.choices[0].tokens[0].top[0].first, 65);
  const GenerationRequest got = service_.last_request();
  EXPECT_EQ(got.model, "echo");  // the only one
  EXPECT_EQ(std::get<TokenPrompt>(got.prompt).ids, (std::vector<TokenId>{'a', 'b'}));
  EXPECT_EQ(got.max_tokens, 7U);
  EXPECT_EQ(got.min_tokens, 2U);
  SamplingParams sampling;
  sampling.temperature = 0.5F;
  sampling.top_k = 3;
  sampling.top_p = 0.25F;
  sampling.min_p = 0.125F;
  sampling.repetition_penalty = 1.5F;
  sampling.presence_penalty = 0.75F;
  sampling.frequency_penalty = -0.5F;
  sampling.seed = 99;
  sampling.logprobs = 1;
  sampling.logit_bias = {{6, 1.0F}};
  EXPECT_EQ(got.sampling, sampling);
  EXPECT_TRUE(got.has_seed);
  EXPECT_TRUE(got.ignore_eos);
  EXPECT_EQ(got.stop_strings, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(got.stop_token_ids, (std::vector<TokenId>{4, 5}));
  EXPECT_EQ(got.timeout_us, 1'234'000);
}

TEST_F(MuseletClientTest, TellsFaultsWithTheFieldThatCausedThem) {
  client::Client client = Connect();
  client::Request request;
  EXPECT_EQ(client.Generate(request).error.code, "invalid_argument");
  request.text = "x";
  request.model = "nope";
  const client::Answer answer = client.Generate(request);
  EXPECT_EQ(answer.error.code, "not_found");
  EXPECT_EQ(answer.error.param, "model");
  request.timeout_ms = 0;
  EXPECT_EQ(client.Generate(request).error.param, "timeout_ms");
}

TEST_F(MuseletClientTest, NeedsAKeyForAllButHealth) {
  client::Client client = Connect("wrong");
  client::Request request;
  request.text = "x";
  EXPECT_EQ(client.Generate(request).error.code, "permission_denied");
  EXPECT_EQ(client.ListModels().error.code, "permission_denied");
  const client::Health health = client.CheckHealth();
  EXPECT_TRUE(health.error.ok());
  EXPECT_TRUE(health.ready);
  EXPECT_EQ(service_.started.load(), 0);
  const client::Models models = Connect().ListModels();
  ASSERT_EQ(models.models.size(), 1U);
  EXPECT_EQ(models.models[0].id, "echo");
  EXPECT_EQ(models.models[0].context_tokens, 64U);
}

TEST_F(MuseletClientTest, ACallbackCanCancelAndTheClientStaysUsable) {
  service_.endless = true;
  client::Client client = Connect();
  client::Request request;
  request.text = "abc";
  int chunks = 0;
  const client::Answer answer =
      client.Generate(request, [&](const client::Chunk&) { return ++chunks < 5; });
  EXPECT_EQ(answer.error.code, "cancelled");
  EXPECT_EQ(chunks, 5);
  EXPECT_TRUE(Await([&] { return service_.cancelled == 1 && server_->open_calls() == 0; }));
  EXPECT_TRUE(client.CheckHealth().error.ok());
}

TEST_F(MuseletClientTest, PingsKeepALongStreamAndSilenceEndsIt) {
  service_.endless = true;
  auto client = std::make_unique<client::Client>(Connect());
  client::Request request;
  request.text = "abc";
  const auto begin = std::chrono::steady_clock::now();
  const client::Answer answer = client->Generate(request, [&](const client::Chunk&) {
    // More than twice the gateway's patience.
    return std::chrono::steady_clock::now() - begin < std::chrono::milliseconds(700);
  });
  EXPECT_EQ(answer.error.message, "cancelled by the caller");
  ASSERT_TRUE(Await([&] { return service_.cancelled == 1; }));
  // Now one that goes away in the middle, without a word.
  std::thread([&] {
    client::Client other = Connect();
    struct Gone {};
    try {
      other.Generate(request, [](const client::Chunk&) -> bool { throw Gone(); });
    } catch (const Gone&) {
    }
  }).join();
  EXPECT_TRUE(Await([&] { return service_.cancelled == 2 && server_->open_calls() == 0; }));
}

TEST_F(MuseletClientTest, AGatewayThatIsAwayIsUnavailable) {
  client::Options options;
  options.silence_max_ms = 100;
  options.ping_interval_ms = 20;
  client::Client nobody("ipc:///tmp/muselet-no-such-gateway", options);
  EXPECT_EQ(nobody.CheckHealth().error.code, "unavailable");
  client::Client nonsense("no endpoint", options);
  EXPECT_EQ(nonsense.CheckHealth().error.code, "invalid_argument");
}

}  // namespace
}  // namespace muselet
