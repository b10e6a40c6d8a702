// What a cluster of this config would do under a trace: its real gateways', schedulers' and
// batchers' code on virtual time, with steps that take as long as a calibration says. Deterministic
// for a seed.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "node/simulate/sim_cluster.h"
#include "node/simulate/trace.h"

namespace muselet {

struct CapacityOptions {
  SimClusterOptions cluster;
  // Requests are dealt to these by their shares; not empty.
  std::vector<SurfaceOptions> surfaces;
  double speed = 1;  // the trace is played so many times as fast
  int64_t timeout_us = 600'000'000;
};

struct Distribution {
  uint64_t samples = 0;
  double mean_ms = 0;
  double p50_ms = 0;
  double p90_ms = 0;
  double p99_ms = 0;
};

struct SurfaceCapacity {
  uint64_t requests = 0;
  uint64_t completed = 0;
  uint64_t good = 0;  // completed within the surface's objectives
  uint64_t prompt_tokens = 0;
  uint64_t cached_tokens = 0;  // of the prompts, found in prefix caches
  uint64_t output_tokens = 0;
  std::map<std::string, uint64_t> errors;  // by code
  Distribution ttft;
  Distribution itl;
};

struct CapacityReport {
  uint32_t replicas = 0;
  double virtual_s = 0;   // from the first request to the last answer
  double arrivals_s = 0;  // from the first request to the last one
  double wall_s = 0;
  double busy = 0;  // of the replicas' time, on average
  uint64_t reattempts = 0;
  SurfaceCapacity all;
  std::map<std::string, SurfaceCapacity> surfaces;
};

CapacityReport RunCapacity(const CapacityOptions& options, const std::vector<TraceRequest>& trace);

std::string CapacityText(const CapacityReport& report);
std::string CapacityJson(const CapacityReport& report);

}  // namespace muselet
