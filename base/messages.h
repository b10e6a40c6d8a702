// What the roles say to each other, as plain values. Protocol cores (scheduler/, the gateway's
// request owner, the node's admission) take and give these and do no I/O; comms/codec turns them
// into protobuf envelopes (comms/proto/wire.proto) and back.
//
//   gateway -> scheduler  Hello, Place, Release, Heartbeat, Goodbye
//   scheduler -> gateway  Welcome, ModelTable, Ticket, Refused, Lost, Unknown, Heartbeat, Goodbye,
//                         Drain
//   node -> scheduler     Hello, Report, CacheEvents, Goodbye
//   scheduler -> node     Welcome, Unknown, Heartbeat, Goodbye, Drain
//   operator -> scheduler Hello, Drain, Goodbye
//   scheduler -> operator Welcome, Unknown, Heartbeat, DrainAnswer, Goodbye
//   gateway -> node       Hello, Submit, Cancel, Heartbeat, Goodbye
//   node -> gateway       Welcome, Tokens, Unknown, Goodbye
//
// Rules: schedulers and nodes bind, the others connect. Every message may arrive twice, late or
// never; (request, choice, attempt, index) makes duplicates harmless. Times on the wire are
// durations, never instants: hosts do not share a clock. `instance` is drawn at process start: a
// peer with a new instance is a new peer.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "base/block_hash.h"
#include "base/types.h"

namespace muselet {

inline constexpr uint32_t kProtocolVersion = 2;

// An operator is a command of a person, such as `muselet drain`.
enum class Role : uint8_t { kGateway = 0, kScheduler = 1, kNode = 2, kOperator = 3 };
std::string_view RoleName(Role role);

// One replica of a model, as its node announces it.
struct ReplicaInfo {
  std::string replica;          // name from the config, unique in the cluster
  std::string model;            // model id that requests name
  std::string model_digest;     // what the weights and tokenizer are, hex
  std::string numerics_id;      // backend, reduction layout, formats, strict or fast
  std::string endpoint;         // where gateways connect to submit, e.g. tcp://10.0.0.2:40001
  uint64_t epoch = 0;           // grows with each forming of the replica
  uint32_t context_tokens = 0;  // prompt + answer of one sequence
  uint64_t kv_tokens = 0;       // capacity of the KV cache
  uint32_t sequences_max = 0;   // running at once
  uint32_t block_tokens = kHashBlockTokens;
  friend bool operator==(const ReplicaInfo&, const ReplicaInfo&) = default;
};

// First message on a connection, repeated until answered by Welcome and again after Unknown.
struct Hello {
  Role role = Role::kGateway;
  std::string name;
  std::string software_version;
  uint32_t protocol_version = kProtocolVersion;
  std::vector<ReplicaInfo> replicas;  // nodes only
};
struct Welcome {
  std::string name;  // of the one who answers
};
// "I do not know you" (it restarted): say Hello again, then a full snapshot.
struct Unknown {};
// Leaves on purpose: nothing that this peer held counts as a fault.
struct Goodbye {
  std::string reason;
};
// Sent from the loop that does the work, so that it stops when the work stops.
struct Heartbeat {};

// A model as the scheduler sees it; sent to gateways when it changes.
struct ModelState {
  std::string model;
  std::string numerics_id;
  uint32_t replicas_ready = 0;
  uint32_t context_tokens = 0;  // the smallest of its replicas
  friend bool operator==(const ModelState&, const ModelState&) = default;
};
struct ModelTable {
  std::vector<ModelState> models;
};

// Asks for a place for one attempt of a request. Hashes and lengths only: a scheduler never sees a
// prompt.
struct Place {
  RequestId request;
  uint32_t attempt = 0;
  std::string model;
  std::string surface;
  RequestClass request_class = RequestClass::kInteractive;
  uint32_t choices = 1;
  uint32_t prompt_tokens = 0;  // generated tokens of earlier attempts included
  uint32_t max_tokens = 0;     // still to generate, per choice
  int64_t timeout_us = 0;      // time left for the request; 0 = no limit
  std::vector<BlockHash> block_hashes;
  std::vector<std::string> avoid;  // replicas that must not take it
  bool alone = false;              // suspect: on a replica that holds nothing else meanwhile
};
// What is left of a surface's quotas when an answer is given; a limit of 0 means none.
struct QuotaState {
  uint64_t requests_limit = 0;  // a minute
  uint64_t requests_remaining = 0;
  int64_t requests_reset_us = 0;  // until all of it is there again
  uint64_t tokens_limit = 0;      // a minute
  uint64_t tokens_remaining = 0;
  int64_t tokens_reset_us = 0;
  friend bool operator==(const QuotaState&, const QuotaState&) = default;
};
struct Ticket {
  RequestId request;
  uint32_t attempt = 0;
  std::string replica;
  std::string endpoint;
  uint64_t epoch = 0;
  QuotaState quota;
  std::string numerics_id = {};  // the replica's
};
struct Refused {
  RequestId request;
  uint32_t attempt = 0;
  StatusCode code = StatusCode::kUnavailable;
  std::string message;
  int64_t retry_after_us = 0;
  QuotaState quota;
};
// The replica that held this attempt is gone: open the next attempt. `suspect` = its process died
// by its own fault with this request in the plan it died in.
struct Lost {
  RequestId request;
  uint32_t attempt = 0;
  std::string reason;
  bool suspect = false;
};
// The request ended, or its client went away while it was still waiting for a ticket.
struct Release {
  RequestId request;
  uint32_t attempt = 0;
  uint64_t generated_tokens = 0;  // of all choices, in all attempts; settles the quota
};

// The whole record of one sequence, fixed at admission: enough to compute its tokens on any
// replica.
struct Submit {
  SequenceId sequence;
  uint32_t attempt = 0;
  uint64_t epoch = 0;  // the replica's, from the ticket; another epoch is refused
  std::string replica;
  std::string surface;
  RequestClass request_class = RequestClass::kInteractive;
  double share = 1.0;  // the surface's weight among those of its class, > 0
  uint64_t cache_salt = 0;
  int64_t timeout_us = 0;  // 0 = no limit
  std::vector<TokenId> prompt;
  std::vector<TokenId>
      generated;  // by earlier attempts; generation goes on at index generated.size()
  SamplingParams sampling;
  StopRules stop;
};
// Stops a sequence and frees what it holds. Unknown sequences are ignored.
struct Cancel {
  SequenceId sequence;
  uint32_t attempt = 0;
};

// New tokens of one sequence. The receiver takes index = count so far, ignores smaller, and asks
// for nothing: a gap cannot occur on one connection and ends the attempt.
struct TokenUpdate {
  SequenceId sequence;
  uint32_t attempt = 0;
  uint32_t first_index = 0;  // of tokens[0] among the generated tokens
  std::vector<SampledToken> tokens;
  FinishReason finish = FinishReason::kNone;
  StatusCode error_code = StatusCode::kOk;  // with FinishReason::kError
  std::string error;
  uint32_t cached_prompt_tokens = 0;  // with the first token: found in the prefix cache
  std::vector<SampledToken>
      prompt_logprobs;  // with the first token, if asked for: prompt tokens 1..n-1
};
// One message a step a gateway.
struct Tokens {
  std::vector<TokenUpdate> updates;
};

// Prompt and generated tokens computed for a surface since the node's process began.
struct SurfaceTokens {
  std::string surface;
  uint64_t tokens = 0;
  friend bool operator==(const SurfaceTokens&, const SurfaceTokens&) = default;
};

// The state of one replica, from its step loop, at least every report interval while it lives.
struct Report {
  std::string replica;
  uint64_t epoch = 0;
  uint64_t sequence = 0;  // of this report within the epoch
  uint64_t steps = 0;     // since the epoch began
  int64_t step_us = 0;    // moving average
  uint32_t running = 0;   // sequences
  uint32_t waiting = 0;
  uint64_t kv_blocks_used = 0;
  uint64_t kv_blocks_total = 0;
  bool draining = false;           // takes nothing new, for good or for now
  std::vector<SequenceId> active;  // all sequences the replica holds
  uint64_t prefill_tokens = 0;     // still to be computed before what it holds can all decode
  double prefill_token_us = 0;     // predicted cost of one of them, in a step of many; 0 = unknown
  uint32_t schedulers = 0;         // that the node is joined with: quotas are split among them
  std::vector<SurfaceTokens> served;  // cumulative
};

// What changed in a replica's prefix cache, for prefix-aware placement. A scheduler that joins gets
// the whole content first: messages from `snapshot` on, numbered without a gap. After a gap it says
// Unknown, and is given a snapshot again. A hash names a prefix (base/block_hash.h).
struct CacheEvents {
  std::string replica;
  uint64_t epoch = 0;
  uint64_t sequence = 0;  // of this message on its connection, within the epoch
  bool snapshot = false;  // forget what was known before
  std::vector<BlockHash> added;
  std::vector<BlockHash> removed;
};

// Asks the process of this name to drain: it is not ready, takes nothing new, lets what runs end or
// move elsewhere within its drain time, and exits with 0. A scheduler hands it on to the one that
// is called so.
struct Drain {
  std::string name;
};
struct DrainAnswer {
  std::string name;
  bool known = false;  // it was told
  std::string detail;  // otherwise: who is known
};

using Message =
    std::variant<Hello, Welcome, Unknown, Goodbye, Heartbeat, ModelTable, Place, Ticket, Refused,
                 Lost, Release, Submit, Cancel, Tokens, Report, CacheEvents, Drain, DrainAnswer>;
// For logs and metrics: "place", "tokens", ...
std::string_view MessageName(const Message& message);

struct Envelope {
  std::string sender;     // name of the sending role, from the config
  uint64_t instance = 0;  // of the sending process
  uint64_t sequence = 0;  // of this message on its connection
  Message body;
};

}  // namespace muselet
