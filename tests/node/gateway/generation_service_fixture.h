// A GatewayService between a scripted scheduler and a node that computes a pure function.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

#include "node/gateway/generation_service.h"
#include "tests/node/gateway/gateway_fakes.h"

namespace muselet::testing {

class GenerationServiceTest : public ::testing::Test {
 protected:
  GenerationServiceTest()
      : metrics_(registry_, "g0", {"bytes", "raw"}),
        scheduler_(loop_, context_, "tcp://127.0.0.1:0"),
        node_(loop_, context_, "n0", "tcp://127.0.0.1:0") {
    scheduler_.node = node_.endpoint();
    options_.name = "g0";
    options_.cluster = "test";
    options_.schedulers = {scheduler_.endpoint()};
    options_.gateway.heartbeat_interval_us = 20'000;
    options_.gateway.peer_timeout_us = 400'000;
    options_.models = {{"bytes", ByteTextModel(), 64, kByteVocab, {kEndToken}},
                       {"raw", nullptr, 64, kByteVocab, {kEndToken}}};
  }

  void Begin() {
    auto service = GatewayService::Start(options_, {"g0", 7}, loop_, context_, metrics_);
    ASSERT_TRUE(service.ok()) << service.status().message();
    service_ = std::move(*service);
    ASSERT_TRUE(TurnUntil(loop_, [&] { return service_->Models()[0].replicas_ready == 1; }));
  }

  static GenerationRequest TextRequest(const std::string& text, uint32_t max_tokens) {
    GenerationRequest request;
    request.model = "bytes";
    request.prompt = TextPrompt{text};
    request.max_tokens = max_tokens;
    request.has_seed = true;
    request.sampling.seed = 5;
    return request;
  }

  std::shared_ptr<Seen> Ask(GenerationRequest request) {
    auto seen = std::make_shared<Seen>();
    last_id_ = service_->Start(std::move(request), std::make_unique<SeeingSink>(seen));
    EXPECT_FALSE(seen->over());
    return seen;
  }

  // Steps `node` until the request ends or `limit` steps have been made.
  bool StepUntilOver(FakeNode& node, const Seen& seen, int limit = 200) {
    for (int i = 0; i < limit && !seen.over(); ++i) {
      node.Step();
      const size_t before = seen.updates.size();
      TurnUntil(loop_, [&] {
        return seen.over() || seen.updates.size() > before || node.running.empty();
      });
    }
    return TurnUntil(loop_, [&] { return seen.over(); });
  }

  bool AwaitSubmit(FakeNode& node, size_t count = 1) {
    return TurnUntil(loop_, [&] { return node.submits.size() >= count; });
  }

  // A node that says `text` byte by byte, then the end token.
  static std::function<TokenId(const Submit&, size_t)> Say(const std::string& text) {
    return [text](const Submit&, size_t index) {
      return index < text.size() ? static_cast<unsigned char>(text[index]) : kEndToken;
    };
  }

  EventLoop loop_{"test"};
  WireContext context_;
  MetricRegistry registry_;
  GatewayMetrics metrics_;
  FakeScheduler scheduler_;
  FakeNode node_;
  GatewayServiceOptions options_;
  std::unique_ptr<GatewayService> service_;
  RequestId last_id_;
};

}  // namespace muselet::testing
