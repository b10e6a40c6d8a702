// What `muselet simulate` is asked, as plain values.
#pragma once

#include <cstdint>
#include <string>

namespace muselet {

struct SimulateArguments {
  std::string trace;          // file; may be empty with `measure_to`
  std::string calibration;    // file; empty = as in Calibration
  std::string measure_to;     // measure the first model's steps, write them there, and end
  uint32_t replicas = 0;      // 0 = as many as the config has
  double speed = 1;           // the trace is played so many times as fast
  double length_scale = 1;    // of prompts and answers
  uint64_t requests_max = 0;  // of the trace; 0 = all
  uint64_t kv_tokens = 0;     // of each replica; 0 = the calibration's
  uint64_t seed = 1;
  bool json = false;
};

}  // namespace muselet
