// The batcher's record of one sequence.
//
//              Admit                Plan: slot and blocks free
//   (refused) <----- kWaiting ----------------------------------> kRunning ---> ended
//                       ^   |                                      |    ^         ^
//                       |   | deadline, Cancel, Fail               |    |         |
//                       |   +--------------------------------------|----|---------+
//                       |                                          v    | last plan commits
//                       +---- blocks run out: paused ------------ kLeaving
//
// When all KV is lost, everything that runs or leaves goes back to kWaiting, or ends, at once.
//
// kLeaving: paused, ended or cancelled while plans that name it are outstanding; it keeps slot and
// blocks until the last of them commits, and takes no more rows. A paused sequence waits again with
// its tokens; its KV is recomputed (or found in the prefix cache).
#pragma once

#include <cstdint>
#include <vector>

#include "base/block_hash.h"
#include "base/messages.h"
#include "scheduler/batch/fair_share.h"
#include "scheduler/batch/step_plan.h"

namespace muselet {

enum class SequenceState : uint8_t { kWaiting, kRunning, kLeaving };

struct Sequence {
  uint64_t serial = 0;  // order of admission: smaller = older
  SequenceState state = SequenceState::kWaiting;
  Submit record;                // prompt and generated are moved into `tokens`
  std::vector<TokenId> tokens;  // prompt, then answer; grows at Commit
  uint32_t prompt_count = 0;
  uint32_t token_limit = 0;  // tokens.size() at which it ends with kLength
  int64_t arrived_us = 0;
  int64_t deadline_us = 0;  // 0 = none

  // While running.
  SequenceSlot slot = 0;
  uint64_t run = 0;  // drawn when the slot was taken; tells one user of a slot from the next
  uint32_t prefill_end = 0;     // tokens known when the run began: rows below are prefill
  uint32_t planned = 0;         // positions in plans, committed or not
  uint32_t computed = 0;        // positions whose KV is there: committed
  uint32_t plans_out = 0;       // outstanding plans that name it
  uint32_t tokens_pending = 0;  // that outstanding plans will sample
  uint64_t last_plan = 0;
  std::vector<std::vector<BlockId>> tables;  // [group][block]; kNoBlock where a window has passed
  std::vector<uint32_t> passed;              // [group] leading entries that a window has passed

  // The prefix cache's view: chained hashes of kHashBlockTokens tokens each; blocks indexed so far.
  std::vector<BlockHash> hashes;
  uint32_t blocks_registered = 0;

  FairShare::Account* share = nullptr;  // its surface's, among those of its class
  // Tokens computed for its surface (Batcher::served), and up to where they were counted.
  uint64_t* served = nullptr;
  uint32_t served_until = 0;

  bool suspect = false;        // Batcher::Blame
  uint32_t suspect_until = 0;  // positions computed when it has shown that it is harmless
  bool starts_again = false;   // it ran before a loss of all KV
  uint32_t pauses = 0;
  uint64_t paused_in_draft = 0;  // the last time
  uint32_t protected_until = 0;  // tokens.size() below which it may not be paused again
  bool ended = false;            // nothing more is said about it (kLeaving only)

  // What was sampled, if logprobs were asked for, from index record.generated.size() at admission
  // on: for who takes the sequence over (Batcher::Admit).
  std::vector<SampledToken> sampled;
  uint32_t sampled_from = 0;

  // Said with the first tokens.
  uint32_t cached_prompt_tokens = 0;
  bool first_update_sent = false;
  std::vector<SampledToken> prompt_logprobs;

  uint32_t token_count() const { return static_cast<uint32_t>(tokens.size()); }
  uint32_t generated_count() const { return token_count() - prompt_count; }
  uint32_t known_count() const { return token_count() + tokens_pending; }
  bool prefilling() const { return planned < prefill_end; }
  bool wants_prompt_logprobs() const {
    return record.sampling.prompt_logprobs >= 0 && record.generated.empty() && !first_update_sent &&
           prompt_logprobs.size() + 1 < prompt_count;
  }
};

}  // namespace muselet
