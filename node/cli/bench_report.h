// From the records of single requests to the table and the JSON that people compare.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "node/cli/client_options.h"

namespace muselet {

// Times are microseconds on one monotonic scale.
struct RequestRecord {
  int64_t start_us = 0;
  int64_t first_us = 0;  // first text; 0 = none came
  int64_t last_us = 0;   // last text
  int64_t end_us = 0;
  uint32_t prompt_tokens = 0;
  uint32_t output_tokens = 0;
  bool has_usage = false;
  std::vector<int64_t> gaps_us;  // between pieces of text
  std::string error;             // kind, e.g. "http 429"; empty = success
  std::string error_message;     // of the first of its kind shown to the user
};

// Of one measure, in milliseconds; linear interpolation between the two nearest samples.
struct Percentiles {
  size_t samples = 0;
  double mean = 0;
  double p50 = 0;
  double p90 = 0;
  double p99 = 0;
  double max = 0;
};
Percentiles PercentilesOf(std::vector<double> samples_ms);

struct BenchSummary {
  double elapsed_s = 0;  // from the first start to the last end
  uint32_t succeeded = 0;
  uint32_t failed = 0;
  uint64_t prompt_tokens = 0;  // of successes
  uint64_t output_tokens = 0;
  bool counted_by_chunks = false;  // some answer had no usage
  double output_tokens_per_s = 0;
  double total_tokens_per_s = 0;
  double requests_per_s = 0;
  double mean_in_flight = 0;
  Percentiles ttft;                        // time to the first text
  Percentiles itl;                         // time between two pieces of text
  Percentiles tpot;                        // time per token after the first, one sample a request
  Percentiles end_to_end;                  // whole request
  std::map<std::string, uint32_t> errors;  // by kind
  std::map<std::string, std::string> error_notes;  // a message of each kind
};

BenchSummary Summarise(const std::vector<RequestRecord>& records);

std::string BenchTable(const BenchSummary& summary, const BenchOptions& options,
                       const std::string& model);
// Adds the options and the software version, so that a result explains itself.
std::string BenchJson(const BenchSummary& summary, const BenchOptions& options,
                      const std::string& model);

}  // namespace muselet
