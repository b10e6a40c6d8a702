// Requests as they came to a real service, to be played again: when, how long the prompt, how long
// the answer, and where known what their prompts have in common. Two formats, told apart by their
// first line: the CSV of Azure's LLM inference traces (TIMESTAMP,ContextTokens,GeneratedTokens) and
// the JSON lines of Mooncake's (timestamp in ms, input_length, output_length, hash_ids).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/types.h"

namespace muselet {

// Tokens that one entry of TraceRequest::prefix stands for.
inline constexpr uint32_t kTraceBlockTokens = 512;

struct TraceRequest {
  int64_t arrival_us = 0;  // since the first one
  uint32_t prompt_tokens = 1;
  uint32_t output_tokens = 1;
  std::vector<uint64_t> prefix;  // equal beginnings of two lists are equal beginnings of prompts
};

struct TraceOptions {
  size_t requests_max = 1'000'000;
  double length_scale = 1;  // of prompts and answers
};

// In the order of arrival. kNotFound or kInvalidArgument naming the file, and the line at fault.
Result<std::vector<TraceRequest>> ReadTrace(const std::string& path, const TraceOptions& options);

// The prompt of request number `index`: tokens below `vocab`, the same for the same prefix, and
// otherwise unlike those of any other request.
std::vector<TokenId> TracePrompt(const TraceRequest& request, uint64_t index, uint32_t vocab);

}  // namespace muselet
