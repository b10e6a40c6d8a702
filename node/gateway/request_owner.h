// The gateway's requests, from admission to the last token, without I/O: which scheduler was asked,
// which node computes, what was delivered, when to try again. One Step per message, tick or wish of
// a client; what it returns is to be sent and told in order.
//
//            Start                 Ticket                    last choice ends
//   (none) --------> kWaiting --Place--> kPlaced --Submit--> kRunning --Release--> (none)
//                       ^                  |                    |
//                       +--- next attempt: refused, lost, gap --+
//
// The record of a request is fixed at Start. An attempt that ends early is followed by another one
// that computes from prompt + tokens so far, so whoever listens sees indices 0..n-1 of each choice
// once and in order, and exactly one Ended. Messages may be dropped, doubled and reordered at will.
//
// Not thread-safe: owned by the gateway's loop. Times are microseconds of one monotonic clock.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/messages.h"
#include "base/status.h"
#include "node/gateway/gateway_options.h"
#include "node/gateway/retry_budget.h"

namespace muselet {

struct RequestOwnerOptions {
  RequestLimits limits;
  uint32_t schedulers = 1;
  int64_t place_repeat_us = 1'000'000;  // a Place without an answer is sent again
  int64_t quiet_us = 5'000'000;  // a running request without tokens for so long is asked for
  int64_t retry_backoff_us = 20'000;    // before the next attempt if the last one made no progress;
                                        // doubles with each attempt
  double audit_fraction = 0;            // of the requests that end well, told as AuditCase
};

// Everything that decides the tokens of a request, and where it may run.
struct RequestRecord {
  RequestId request;
  std::string model;
  std::string surface;
  RequestClass request_class = RequestClass::kInteractive;
  double share = 1.0;
  uint64_t cache_salt = 0;
  uint32_t choices = 1;    // >= 1
  int64_t timeout_us = 0;  // > 0, from when the client asked
  int64_t waited_us = 0;   // of it, before Start
  // Under this id the request may run already, left over by a gateway that was lost: the first
  // attempt asks for it by this name, numbered `join_attempt` or higher; any further one goes by
  // `request`. Zero: no such id.
  RequestId join;
  uint32_t join_attempt = 0;
  // An audit: not on this replica, only where numerics are these, and never tried again.
  std::string avoid;
  std::string numerics_id;
  bool is_audit() const { return !avoid.empty(); }
  std::vector<TokenId> prompt;
  SamplingParams sampling;
  StopRules stop;
};

// What the owner is told.
struct StartRequest {
  RequestRecord record;
};
struct CancelRequest {  // the client went away: no event follows
  RequestId request;
};
struct EndAll {  // the gateway stops: whatever is not complete ends with this status
  Status status;
};
struct StopChoice {  // the text of a choice is complete (a stop string): no more tokens of it
  SequenceId sequence;
};
struct SchedulerUp {  // answered our Hello, for the first time or again after a restart
  uint32_t scheduler = 0;
};
struct SchedulerDown {
  uint32_t scheduler = 0;
};
struct FromScheduler {
  uint32_t scheduler = 0;
  Message message;
};
struct FromNode {
  std::string endpoint;
  Message message;
};
struct NodeLost {  // unreachable, silent, or restarted
  std::string endpoint;
  std::string reason;
};
struct ReplicasReady {  // as the schedulers' tables say; told when it changes
  std::string model;
  uint32_t count = 0;
};
struct OwnerTick {};
using OwnerInput =
    std::variant<StartRequest, CancelRequest, EndAll, StopChoice, SchedulerUp, SchedulerDown,
                 FromScheduler, FromNode, NodeLost, ReplicasReady, OwnerTick>;

// What the owner tells about a request, in order.
struct Ticketed {  // a place was found for an attempt
  RequestId request;
  bool first = true;
  int64_t waited_us = 0;  // since the attempt began
};
struct Delivered {
  SequenceId sequence;
  std::vector<SampledToken> tokens;  // the next ones
  FinishReason finish = FinishReason::kNone;
  uint32_t cached_prompt_tokens = 0;
  std::vector<SampledToken> prompt_logprobs;  // with the first tokens of choice 0, if asked for
};
struct Reattempted {  // an attempt ended early; the next one begins
  RequestId request;
  uint32_t attempt = 0;  // of the one that ended
  Status cause;
  std::string endpoint;  // of the node that it ran on; empty = none yet
};
struct QuotaTold {  // a scheduler said what is left of a surface's quotas
  uint32_t scheduler = 0;
  std::string surface;
  QuotaState quota;
};
// A request that ended well and is to be computed again elsewhere; comes before its Ended.
struct AuditCase {
  RequestRecord record;
  std::vector<std::vector<TokenId>> generated;  // by choice
  std::string replica;                          // computed the last of it
};
struct Ended {  // the last event of a request
  RequestId request;
  Status status;  // OK: every choice has finished
  int64_t retry_after_us = 0;
  std::string_view code = {};  // as GenerationError's
};
using OwnerEvent = std::variant<Ticketed, Delivered, Reattempted, QuotaTold, AuditCase, Ended>;

struct ToScheduler {
  uint32_t scheduler = 0;
  Message message;
};
struct ToNode {
  std::string endpoint;
  Message message;
};
struct OwnerOutput {
  std::vector<ToScheduler> to_schedulers;
  std::vector<ToNode> to_nodes;
  std::vector<OwnerEvent> events;
};

struct OwnerCounters {
  uint64_t late_messages = 0;      // of ended requests and old attempts: dropped
  uint64_t duplicate_tokens = 0;   // seen before: dropped
  uint64_t mismatched_tokens = 0;  // seen before, but with another id: a replica is not pure
  uint64_t gaps = 0;               // an index was skipped: the attempt ended
  uint64_t retries = 0;            // attempts beyond the first
  uint64_t joins = 0;              // requests that asked for what might run already
  uint64_t poisoned = 0;           // given up because replicas failed by them
  uint64_t budget_refusals = 0;    // attempts that the retry budget did not allow
};

class RequestOwner {
 public:
  explicit RequestOwner(const RequestOwnerOptions& options);

  OwnerOutput Step(OwnerInput input, int64_t now_us);

  size_t requests() const { return requests_.size(); }
  // Requests whose attempt runs on the node at `endpoint`.
  size_t RunningOn(const std::string& endpoint) const;
  const OwnerCounters& counters() const { return counters_; }

 private:
  enum class Phase : uint8_t { kWaiting, kPlaced, kRunning };
  struct Choice {
    std::vector<TokenId> generated;
    bool finished = false;
    bool prompt_scored = false;  // prompt logprobs were delivered
  };
  struct Request {
    RequestRecord record;
    Phase phase = Phase::kWaiting;
    int64_t deadline_us = 0;
    RequestId wire;                  // its name on the wire
    uint32_t attempt = 0;            // its number on the wire
    uint32_t attempts = 1;           // so far, the running one included
    uint32_t failures = 0;           // attempts in a row that delivered nothing
    uint32_t faults = 0;             // attempts that ended by a fault of their replica
    std::vector<std::string> avoid;  // the replicas of these
    bool progressed = false;         // this attempt delivered something
    uint32_t scheduler = 0;          // asked, or the one that gave the ticket
    int64_t attempt_began_us = 0;    // waiting for a ticket since
    int64_t next_place_us = 0;       // kWaiting: not before; kPlaced: send again at
    uint32_t refusals = 0;           // of this attempt
    std::string endpoint;            // kRunning
    int64_t heard_us = 0;            // kRunning: of its tokens, or asked for
    std::string replica;             // kRunning
    std::string numerics_id;         // kRunning
    std::vector<Choice> choices;
    uint32_t unfinished = 0;
  };
  using Requests = std::unordered_map<RequestId, Request>;

  void Handle(StartRequest& input);
  void Handle(const CancelRequest& input);
  void Handle(const EndAll& input);
  void Handle(const StopChoice& input);
  void Handle(const SchedulerUp& input);
  void Handle(const SchedulerDown& input);
  void Handle(FromScheduler& input);
  void Handle(FromNode& input);
  void Handle(const NodeLost& input);
  void Handle(const ReplicasReady& input);
  void Handle(const OwnerTick&);

  void OnTicket(uint32_t scheduler, const Ticket& ticket);
  void OnRefused(uint32_t scheduler, const Refused& refused);
  void OnLost(uint32_t scheduler, const Lost& lost);
  void OnTokens(const std::string& endpoint, TokenUpdate& update);
  void EndEarly(Request& request, const TokenUpdate& update);
  bool AcceptTokens(Request& request, TokenUpdate& update);

  // By its name on the wire; null if there is none of this name now.
  Request* Find(const RequestId& wire);
  void TakeName(Request& request);
  void DropJoinName(Request& request);
  void Erase(const RequestId& id);
  void TellQuota(uint32_t scheduler, const Request& request, const QuotaState& quota);

  void TryPlace(Request& request);
  void SendPlace(const Request& request);
  void SubmitChoices(Request& request, const Ticket& ticket);
  void CancelChoices(const Request& request);
  void SendRelease(const Request& request);
  // Ends the attempt; the next one follows unless attempts or time are used up. `fault`: the
  // replica failed by its own fault, perhaps because of this request.
  void EndAttempt(Request& request, const Status& why, bool fault = false);
  // The end of a request that gets no further attempt.
  std::optional<Ended> LastAttempt(Request& request, const Status& why, bool fault);
  void BeginAttempt(Request& request);
  void FinishChoice(Request& request, uint32_t choice, FinishReason finish);
  void End(const RequestId& id, Status status, int64_t retry_after_us = 0,
           std::string_view code = {});
  void TellAudit(const Request& request);
  void TickRequest(Request& request);
  void AskIfQuiet(Request& request);
  std::string WhyNoPlace(const Request& request) const;
  std::optional<uint32_t> PickScheduler(const Request& request) const;

  RequestOwnerOptions options_;
  std::vector<bool> scheduler_up_;
  std::unordered_map<std::string, uint32_t> replicas_ready_;  // by model, as told
  RetryBudget budget_;
  Requests requests_;
  std::unordered_map<RequestId, RequestId> joining_;  // join id -> request that goes by it
  // The last attempts under join ids, so that a request that is asked again goes on from there.
  std::unordered_map<RequestId, uint32_t> join_attempts_;
  std::deque<RequestId> join_order_;  // oldest first
  OwnerCounters counters_;
  OwnerOutput out_;     // of the running Step
  int64_t now_us_ = 0;  // of the running Step
};

}  // namespace muselet
