// The knobs of a replica's step loop and its device; keys, flags and documentation are in
// node/config/option_table.
#pragma once

#include <cstdint>
#include <string>

#include "scheduler/batch/batch_options.h"

namespace muselet {

enum class ActivationFormat { kInt8, kFloat32 };  // of the inputs of quantised matrix products
enum class KvFormat {
  kAuto,
  kFloat16,
  kFloat32
};  // kAuto: float32 with float32 activations, else float16
enum class IsaLevel { kAuto, kScalar, kAvx2, kAvx512 };

struct CpuOptions {
  ActivationFormat activations = ActivationFormat::kInt8;
  uint32_t threads =
      0;  // compute threads, the step thread included; 0 = one a core that we may use
  IsaLevel isa = IsaLevel::kAuto;
};

struct KvOptions {
  uint64_t bytes = 256ULL << 20;  // of the KV cache of each rank, on the CPU
  KvFormat format = KvFormat::kAuto;
};

// Of the ranks of a sharded replica.
struct RankOptions {
  int64_t join_timeout_us = 60'000'000;    // for all ranks to join an epoch, loading included
  int64_t silence_timeout_us = 3'000'000;  // without a word or progress a rank counts as lost
  // Nobody else can reach the network between the hosts: tensors may cross it in plain TCP.
  bool private_network = false;
};

struct EngineOptions {
  CpuOptions cpu;
  KvOptions kv;
  BatchOptions batch;
  RankOptions ranks;
  uint32_t context_tokens = 0;  // 0 = what the checkpoint says
  int64_t report_interval_us = 100'000;
  // A gateway or scheduler this silent is lost.
  int64_t peer_timeout_us = 3'000'000;
  // What a lost gateway leaves behind goes on for so long, for another one to take it over; 0 = it
  // is cancelled at once.
  int64_t orphan_timeout_us = 10'000'000;
};

}  // namespace muselet
