// A language model of one hash: what a position holds depends on the position before and on its own
// token, as attention over a KV cache does, and the next token on what the last position holds, the
// seed and the choice. So every token depends on the whole prefix, and a batcher that reads a block
// that is not yet computed, or another one's, or hands out a block twice, gives other tokens than
// the same function without a cache. Single-threaded.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/messages.h"
#include "scheduler/batch/step_plan.h"
#include "scheduler/sim/sim_random.h"

namespace muselet {

struct ChainModel {
  static constexpr uint64_t kBegin = 0x6D7573656C657421ULL;
  static constexpr uint64_t Extend(uint64_t state, TokenId token) {
    return MixBits(state ^ (static_cast<uint64_t>(token) + 0x9E3779B97F4A7C15ULL));
  }
  static constexpr TokenId Draw(uint64_t state, uint64_t seed, uint32_t choice, uint32_t vocab) {
    return static_cast<TokenId>(MixBits(state ^ MixBits(seed + choice)) % vocab);
  }
};

// What each choice of a request must give, one token after the other.
class ChainAnswer {
 public:
  ChainAnswer(std::span<const TokenId> prompt, uint64_t seed, uint32_t choice, uint32_t vocab);
  TokenId Next();

 private:
  uint64_t state_ = ChainModel::kBegin;
  uint64_t seed_;
  uint32_t choice_;
  uint32_t vocab_;
};

// Computes plans over a paged cache of states. What the batcher says of a slot comes through
// `Begin`, as a StepExecutor gets it.
class ChainEngine {
 public:
  ChainEngine(uint32_t vocab, uint32_t slots, uint32_t block_count, uint32_t block_tokens);

  void Begin(SequenceSlot slot, uint64_t seed, uint32_t choice);
  StepResult Compute(const StepPlan& plan);
  // Nothing of what was computed is left.
  void Forget();

 private:
  struct Slot {
    uint64_t seed = 0;
    uint32_t choice = 0;
    TokenId last = 0;
  };
  uint32_t vocab_;
  uint32_t block_tokens_;
  std::vector<Slot> slots_;
  std::vector<uint64_t> states_;  // by block and position in it
};

}  // namespace muselet
