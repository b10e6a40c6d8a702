// Puts load on a server and records what each request saw.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "node/cli/bench_report.h"
#include "node/cli/client_options.h"
#include "node/cli/http_client.h"

namespace muselet {

struct BenchProgress {
  double elapsed_s = 0;
  uint32_t done = 0;
  uint32_t in_flight = 0;
  uint32_t failed = 0;
  uint32_t requests = 0;    // to be sent in all; 0 = not known
  double pieces_per_s = 0;  // of text, over the last interval
};

struct BenchTarget {
  std::string api_base;
  std::string model;
  std::vector<std::string> prompts;  // not empty; taken in turn
};

// Runs `client` until the load is over, or SIGINT; then requests in flight are dropped and not
// recorded. `on_progress`, which may be empty, is called four times a second.
std::vector<RequestRecord> RunLoad(HttpClient& client, const BenchOptions& options,
                                   const BenchTarget& target,
                                   const std::function<void(const BenchProgress&)>& on_progress);

// The gaps of a Poisson process with `rate` arrivals a second, in microseconds; the same seed gives
// the same gaps everywhere.
class PoissonArrivals {
 public:
  PoissonArrivals(double rate, uint64_t seed) : rate_(rate), state_(seed) {}
  int64_t NextGapUs();

 private:
  double rate_;
  uint64_t state_;
};

}  // namespace muselet
