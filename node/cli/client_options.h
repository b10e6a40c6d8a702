// What `muselet chat` and `muselet bench` were asked to do. Plain values, filled by command_line.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace muselet {

// Whom to believe over https.
struct TlsTrust {
  std::string ca_file;    // PEM; empty = the system's authorities
  bool insecure = false;  // believe everybody
};

struct ChatOptions {
  std::string url = "http://127.0.0.1:8000";
  std::string api_key;
  TlsTrust trust;
  std::string model;  // empty = the first that the server lists
  std::string system;
  uint32_t max_tokens = 0;  // 0 = the server's default
  std::optional<double> temperature;
  std::optional<uint64_t> seed;
  std::string once;  // one question, then the end; empty = a conversation
  bool has_once = false;
};

struct BenchOptions {
  std::string url = "http://127.0.0.1:8000";
  std::string api_key;
  TlsTrust trust;
  std::string model;         // empty = the first that the server lists
  uint32_t concurrency = 0;  // closed loop: requests kept in flight; open loop: cap, 0 = none
  double rate = 0;           // open loop: mean arrivals a second; 0 = closed loop
  uint32_t requests = 0;     // 0 = by duration, or 100
  double duration_s = 0;     // no request is started later; 0 = no limit
  uint64_t seed = 0;         // of the arrival times
  std::string prompts;       // file; empty = a few questions of our own
  uint32_t max_tokens = 128;
  double temperature = 0;
  bool ignore_eos = false;
  bool completions = false;  // /v1/completions instead of /v1/chat/completions
  double timeout_s = 600;    // of one request
  uint32_t warmup = 0;       // requests before the measurement, one after the other
  std::string json;          // file for the results; "-" is stdout
  bool quiet = false;        // no progress line
};

}  // namespace muselet
