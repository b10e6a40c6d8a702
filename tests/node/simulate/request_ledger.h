// What clients of a simulated cluster have asked for and seen, held against what they must see:
// every request ends exactly once, with the tokens of the pure function, each once and in order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "node/gateway/request_owner.h"
#include "scheduler/sim/chain_model.h"

namespace muselet::testing {

class RequestLedger {
 public:
  using Fail = std::function<void(const std::string& what)>;

  RequestLedger(uint32_t vocab, Fail fail) : vocab_(vocab), fail_(std::move(fail)) {}

  // `must_complete`: no fault that may happen excuses an error.
  void Begin(const RequestRecord& record, uint32_t gateway, int64_t now_us, bool must_complete);
  void OnEvent(uint32_t gateway, const OwnerEvent& event, int64_t now_us);
  // The client goes away, or ends a choice.
  void Cancelled(const RequestId& request);
  void Stopped(const SequenceId& sequence);
  // The gateway died: nothing more is told of its requests. Returns how many there were.
  size_t GatewayDied(uint32_t gateway);

  // The gateway stands still, and is late with everything.
  void Paused(uint32_t gateway, int64_t until_us) {
    paused_until_us_[gateway] = std::max(paused_until_us_[gateway], until_us);
  }

  size_t open_count() const { return open_.size(); }
  std::vector<RequestId> OpenOf(uint32_t gateway) const;
  // A choice of the request that has tokens and no end.
  std::optional<uint32_t> RunningChoice(const RequestId& request) const;
  uint64_t completed() const { return completed_; }
  uint64_t failed() const { return failed_; }
  uint64_t tokens() const { return tokens_; }
  uint64_t reattempts() const { return reattempts_; }
  // For the message of a run that does not come to rest.
  std::string DescribeOpen() const;

 private:
  struct Choice {
    ChainAnswer answer;
    uint32_t count = 0;
    TokenId last = -1;
    FinishReason finish = FinishReason::kNone;
    bool stopped = false;
  };
  struct Entry {
    RequestRecord record;
    uint32_t gateway = 0;
    int64_t deadline_us = 0;
    bool must_complete = true;
    std::vector<Choice> choices;
  };
  Entry* Find(uint32_t gateway, const RequestId& request, const char* what);
  void On(uint32_t gateway, const Delivered& event);
  void On(uint32_t gateway, const Ended& event, int64_t now_us);
  void CheckFinish(const Entry& entry, const Choice& choice);

  const uint32_t vocab_;
  const Fail fail_;
  std::map<RequestId, Entry> open_;
  std::map<uint32_t, int64_t> paused_until_us_;  // by gateway
  uint64_t completed_ = 0;
  uint64_t failed_ = 0;
  uint64_t tokens_ = 0;
  uint64_t reattempts_ = 0;
};

}  // namespace muselet::testing
