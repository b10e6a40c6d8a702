// What this machine can do at most, measured: the figures that every benchmark prints beside its
// own, so that "fast" means a share of something.
//
// Each is the best of several short runs of all threads at once, in registers (arithmetic) or over
// a buffer far larger than the caches (reading). Call them before timing anything else; each takes
// about a tenth of a second a run.
#pragma once

#include <cstdint>

namespace muselet::bench {

struct MachineLimits {
  uint32_t threads = 0;
  double read_bytes_per_s = 0.0;  // main memory, every byte once
  double f32_flops = 0.0;         // a fused multiply-add of 8 lanes counts 16
  double int8_ops = 0.0;          // vpmaddubsw + vpmaddwd + vpaddd of 32 products counts 64
};

double MeasureReadBandwidth(uint32_t threads);
// Without AVX2 the arithmetic rates are those of the scalar unit.
MachineLimits MeasureMachine(uint32_t threads);

}  // namespace muselet::bench
