// What the op benchmarks share: the device under test, rows of random numbers in its memory, and
// the figures printed for each op.
//
// Every benchmark reports GB/s (bytes that the op must read and write) and GFLOP/s (GOP/s where the
// products are of int8; a multiply and an add count two), and what percentage of this machine's
// measured limit each is (machine_limits.h), at the same number of threads.
#pragma once

#include <benchmark/benchmark.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "base/device/ops.h"
#include "node/engine/engine_options.h"
#include "tests/bench/machine_limits.h"

namespace muselet::bench {

// Measured once a number of threads, at the first call.
const MachineLimits& Limits(uint32_t threads);

// A CPU device with `threads` compute threads; kept for the life of the program.
Ops& Device(uint32_t threads, ActivationFormat activations);

// Rows with values of about 1 in ordinary memory.
struct RandomRows {
  RandomRows(uint32_t count, uint32_t width, uint32_t seed);
  Rows rows() { return {values.data(), count, width}; }

  std::vector<float> values;
  uint32_t count;
  uint32_t width;
};

enum class Arithmetic { kFloat, kInt8, kOther };

// Seconds on a monotonic clock.
double Now();

// The counters of one benchmark, whose loop took `elapsed_s`: bytes and operations are those of one
// iteration.
void Report(::benchmark::State& state, double elapsed_s, uint32_t threads, double bytes,
            double operations, Arithmetic arithmetic);

void RegisterMatMul(uint32_t threads);
void RegisterAttention(uint32_t threads);
void RegisterRows(uint32_t threads);
void RegisterSampling();

}  // namespace muselet::bench
