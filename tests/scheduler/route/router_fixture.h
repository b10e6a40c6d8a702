// Transcripts for the router: what is said to it, and what it says then, as text.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "scheduler/route/router.h"

namespace muselet {

inline constexpr int64_t kMs = 1000;
inline constexpr int64_t kSecond = 1'000'000;

inline std::string Describe(const Outgoing& outgoing) {
  std::ostringstream text;
  text << outgoing.peer << " <- " << MessageName(outgoing.message);
  const auto id = [](const RequestId& request, uint32_t attempt) {
    return " " + std::to_string(request.low) + "." + std::to_string(attempt);
  };
  if (const auto* ticket = std::get_if<Ticket>(&outgoing.message)) {
    text << id(ticket->request, ticket->attempt) << " " << ticket->replica << "@" << ticket->epoch;
  } else if (const auto* refused = std::get_if<Refused>(&outgoing.message)) {
    text << id(refused->request, refused->attempt) << " " << StatusCodeName(refused->code);
  } else if (const auto* lost = std::get_if<Lost>(&outgoing.message)) {
    text << id(lost->request, lost->attempt);
  } else if (const auto* table = std::get_if<ModelTable>(&outgoing.message)) {
    for (const ModelState& model : table->models)
      text << " " << model.model << "=" << model.replicas_ready;
  }
  return text.str();
}

// A transcript: what is said to the router, and what it says then, as text.
class RouterTest : public ::testing::Test {
 protected:
  std::vector<std::string> Say(const std::string& peer, Message message, uint64_t instance = 1) {
    return Texts(router_->OnMessage(peer, {peer, instance, 0, std::move(message)}, now_us_));
  }

  // Time passes in steps while everybody who lives gives signs of life.
  std::vector<std::string> Pass(int64_t time_us, const std::vector<std::string>& nodes = {"n0"},
                                const std::vector<std::string>& gateways = {"g"}) {
    std::vector<std::string> said;
    for (const int64_t end = now_us_ + time_us; now_us_ < end;) {
      now_us_ = std::min(end, now_us_ + 50 * kMs);
      for (const std::string& gateway : gateways) Append(said, Say(gateway, Heartbeat{}));
      for (const std::string& node : nodes) Append(said, Say(node, ReportOf(node)));
      Append(said, Texts(router_->OnTick(now_us_)));
    }
    return said;
  }

  static void Append(std::vector<std::string>& to, const std::vector<std::string>& from) {
    to.insert(to.end(), from.begin(), from.end());
  }

  // Heartbeats and tables are another test's affair.
  std::vector<std::string> Texts(const std::vector<Outgoing>& messages) {
    std::vector<std::string> texts;
    for (const Outgoing& outgoing : messages) {
      last_.push_back(outgoing);
      const bool noise = std::holds_alternative<Heartbeat>(outgoing.message) ||
                         std::holds_alternative<ModelTable>(outgoing.message);
      if (!noise || show_noise_) texts.push_back(Describe(outgoing));
    }
    return texts;
  }

  static Hello GatewayHello(const std::string& name) {
    Hello hello;
    hello.name = name;
    return hello;
  }
  // Node n0 leads replica n0-r of model m, with 4 sequences at once: 5 tickets.
  static Hello NodeHello(const std::string& name, uint64_t epoch = 1,
                         const std::string& model = "m") {
    ReplicaInfo replica;
    replica.replica = name + "-r";
    replica.model = model;
    replica.endpoint = "tcp://" + name;
    replica.epoch = epoch;
    replica.context_tokens = 1000;
    replica.sequences_max = 4;
    Hello hello;
    hello.role = Role::kNode;
    hello.name = name;
    hello.replicas = {replica};
    return hello;
  }
  Report ReportOf(const std::string& node, uint64_t epoch = 1) {
    Report report;
    report.replica = node + "-r";
    report.epoch = epoch;
    report.sequence = ++report_sequence_;
    report.active = active_[node];
    return report;
  }
  static Place PlaceOf(uint64_t id, uint32_t attempt = 0) {
    Place place;
    place.request = {0, id};
    place.attempt = attempt;
    place.model = "m";
    place.prompt_tokens = 10;
    place.max_tokens = 10;
    return place;
  }
  static Release ReleaseOf(uint64_t id, uint32_t attempt = 0) {
    return {.request = {0, id}, .attempt = attempt};
  }

  // A new router, of these options.
  void Make(const RouteOptions& options, const std::vector<SurfaceOptions>& surfaces = {}) {
    options_ = options;
    router_.emplace("s0", std::vector<std::string>{"m", "other"}, options, surfaces);
  }
  const Refused& LastRefused() const { return std::get<Refused>(last_.back().message); }

  void Join(const std::string& node = "n0") {
    Say("g", GatewayHello("g"));
    Say(node, NodeHello(node));
    Say(node, ReportOf(node));
  }

  RouteOptions options_{.waiting_max = 10};
  std::optional<Router> router_{std::in_place, "s0", std::vector<std::string>{"m", "other"},
                                options_};
  int64_t now_us_ = 1000 * kSecond;
  uint64_t report_sequence_ = 0;
  bool show_noise_ = false;
  std::map<std::string, std::vector<SequenceId>> active_;
  std::vector<Outgoing> last_;
};

}  // namespace muselet
