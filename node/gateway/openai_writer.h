// Pieces of answers in OpenAI's and vLLM's JSON, appended to a string: the per-token path builds no
// JSON tree. Numbers are the shortest decimals that read back as the same float.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"
#include "node/gateway/generation.h"

namespace muselet {

// NaN and infinities, which JSON lacks, become -9999, as vLLM writes them.
void AppendLogprob(float logprob, std::string& out);
void AppendInteger(uint64_t value, std::string& out);
// [1,2,3]
void AppendTokenIds(std::span<const TokenId> ids, std::string& out);
void AppendTokenIds(std::span<const GeneratedToken> tokens, std::string& out);
// "stop", "length", ...; null while running.
void AppendFinishReason(FinishReason finish, std::string& out);

struct LogprobsStyle {
  uint32_t top = 0;            // alternatives a token
  bool tokens_as_ids = false;  // "token_id:N" instead of text
};

// {"content":[{"token","logprob","bytes","top_logprobs"}, ...]}
void AppendChatLogprobs(std::span<const GeneratedToken> tokens, const LogprobsStyle& style,
                        std::string& out);

// The four parallel lists of /v1/completions. `text_offset` is where the first token's text begins
// in the choice's text, in characters, and is moved past the last one's. The first token of a
// prompt has no logprob: `first_has_none`.
void AppendCompletionLogprobs(std::span<const GeneratedToken> tokens, const LogprobsStyle& style,
                              bool first_has_none, size_t& text_offset, std::string& out);

// vLLM's prompt_logprobs: [null,{"id":{"logprob","rank","decoded_token"},...},...]; a rank that is
// beyond the alternatives asked for is null.
void AppendPromptLogprobs(std::span<const GeneratedToken> tokens, std::string& out);

// {"prompt_tokens":...,"total_tokens":...,"completion_tokens":...,"prompt_tokens_details":...}
void AppendUsage(const GenerationUsage& usage, std::string& out);

}  // namespace muselet
