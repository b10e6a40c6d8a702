// A RequestOwner that is told things and says what it does in one line.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "node/gateway/request_owner.h"

namespace muselet::testing {

inline constexpr int64_t kMs = 1000;

inline RequestRecord Record(uint64_t id, uint32_t choices = 1, uint32_t max_tokens = 4) {
  RequestRecord record;
  record.request = {id, id};
  record.model = "m";
  record.surface = "default";
  record.choices = choices;
  record.timeout_us = 60'000 * kMs;
  record.prompt = {1, 2, 3};
  record.sampling.seed = id;
  record.stop.max_tokens = max_tokens;
  return record;
}

// One line a message or event, e.g. "s0<place 1", "n0<submit 0@0+2", "tokens 0:7,8 length",
// "ended".
inline std::string Line(const OwnerOutput& out) {
  std::string text;
  const auto add = [&](const std::string& word) { text += (text.empty() ? "" : "; ") + word; };
  for (const ToScheduler& to : out.to_schedulers) {
    std::string word = "s" + std::to_string(to.scheduler) + "<";
    if (const auto* place = std::get_if<Place>(&to.message)) {
      word += "place " + std::to_string(place->attempt);
    } else {
      word += "release " + std::to_string(std::get<Release>(to.message).attempt);
    }
    add(word);
  }
  for (const ToNode& to : out.to_nodes) {
    if (const auto* submit = std::get_if<Submit>(&to.message)) {
      add(to.endpoint + "<submit " + std::to_string(submit->sequence.choice) + "@" +
          std::to_string(submit->attempt) + "+" + std::to_string(submit->generated.size()));
    } else {
      const auto& cancel = std::get<Cancel>(to.message);
      add(to.endpoint + "<cancel " + std::to_string(cancel.sequence.choice) + "@" +
          std::to_string(cancel.attempt));
    }
  }
  for (const OwnerEvent& event : out.events) {
    if (const auto* delivered = std::get_if<Delivered>(&event)) {
      std::string word = "tokens " + std::to_string(delivered->sequence.choice) + ":";
      for (const SampledToken& token : delivered->tokens) word += std::to_string(token.id) + ",";
      if (delivered->finish != FinishReason::kNone)
        word += std::string(FinishReasonName(delivered->finish));
      add(word);
    } else if (const auto* ended = std::get_if<Ended>(&event)) {
      add("ended " +
          (ended->status.ok() ? "ok" : std::string(StatusCodeName(ended->status.code()))));
    }
  }
  return text;
}

class RequestOwnerTest : public ::testing::Test {
 protected:
  RequestOwnerTest() { Make(1); }
  void Make(uint32_t schedulers) {
    options_.schedulers = schedulers;
    owner_ = std::make_unique<RequestOwner>(options_);
    for (uint32_t i = 0; i < schedulers; ++i) Do(SchedulerUp{i});
  }
  std::string Do(OwnerInput input) { return Line(owner_->Step(std::move(input), now_us_)); }
  std::string Start(const RequestRecord& record) { return Do(StartRequest{record}); }
  std::string Give(uint64_t id, uint32_t attempt, const std::string& node, uint32_t scheduler = 0) {
    return Do(FromScheduler{scheduler, Ticket{{id, id}, attempt, "r", node, 1, {}}});
  }
  std::string Say(const std::string& node, uint64_t id, uint32_t attempt, uint32_t first,
                  std::vector<TokenId> ids, FinishReason finish = FinishReason::kNone,
                  uint32_t choice = 0) {
    return Do(FromNode{node, Update(id, attempt, first, std::move(ids), finish, choice)});
  }
  static Tokens Update(uint64_t id, uint32_t attempt, uint32_t first, std::vector<TokenId> ids,
                       FinishReason finish, uint32_t choice) {
    TokenUpdate update;
    update.sequence = {{id, id}, choice};
    update.attempt = attempt;
    update.first_index = first;
    for (const TokenId token : ids) update.tokens.push_back({token, 0.0F, {}});
    update.finish = finish;
    return Tokens{{update}};
  }
  static Tokens Fault(uint64_t id, uint32_t attempt, StatusCode code) {
    Tokens tokens = Update(id, attempt, 0, {}, FinishReason::kError, 0);
    tokens.updates[0].error_code = code;
    tokens.updates[0].error = "no";
    return tokens;
  }

  RequestOwnerOptions options_;
  std::unique_ptr<RequestOwner> owner_;
  int64_t now_us_ = 1'000'000;
};

}  // namespace muselet::testing
