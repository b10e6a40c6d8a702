#include "node/gateway/openai_writer.h"

#include <array>
#include <charconv>
#include <cmath>
#include <unordered_set>

#include "base/json.h"

namespace muselet {
namespace {

constexpr std::string_view kNoLogprob = "-9999.0";

bool IsUtf8(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    const auto lead = static_cast<unsigned char>(text[i]);
    size_t length = 1;
    if (lead >= 0xF0 && lead <= 0xF4) {
      length = 4;
    } else if (lead >= 0xE0 && lead < 0xF0) {
      length = 3;
    } else if (lead >= 0xC2 && lead < 0xE0) {
      length = 2;
    } else if (lead >= 0x80) {
      return false;
    }
    if (i + length > text.size()) return false;
    for (size_t k = 1; k < length; ++k) {
      if ((static_cast<unsigned char>(text[i + k]) & 0xC0) != 0x80) return false;
    }
    i += length;
  }
  return true;
}

// Characters that begin in these bytes.
size_t Characters(std::string_view text) {
  size_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80 ? 1 : 0;
  return count;
}

std::string TokenIdLabel(TokenId id) {
  return "token_id:" + std::to_string(id);
}

// A token as a key: bytes that are no text of their own keep apart as "bytes:\xe2\x80", as OpenAI
// writes them.
std::string CompletionLabel(TokenId id, std::string_view text, const LogprobsStyle& style) {
  if (style.tokens_as_ids) return TokenIdLabel(id);
  if (IsUtf8(text)) return std::string(text);
  static constexpr char kHex[] = "0123456789abcdef";
  std::string label = "bytes:";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    label += "\\x";
    label += kHex[byte >> 4];
    label += kHex[byte & 15];
  }
  return label;
}

std::string_view TopText(const GeneratedToken& token, size_t i) {
  if (i < token.top_texts.size()) return token.top_texts[i];
  return {};
}

void AppendChatToken(TokenId id, std::string_view text, float logprob, const LogprobsStyle& style,
                     std::string& out) {
  out += R"({"token":)";
  AppendJsonString(style.tokens_as_ids ? TokenIdLabel(id) : std::string(text), out);
  out += R"(,"logprob":)";
  AppendLogprob(logprob, out);
  out += R"(,"bytes":[)";
  for (size_t i = 0; i < text.size(); ++i) {
    if (i > 0) out += ',';
    AppendInteger(static_cast<unsigned char>(text[i]), out);
  }
  out += ']';
}

size_t TopCount(const GeneratedToken& token, uint32_t limit) {
  return std::min<size_t>(token.sampled.top.size(), limit);
}

// The chosen token leads, the alternatives follow, each label once.
void AppendTopMap(const GeneratedToken& token, const LogprobsStyle& style, std::string& out) {
  std::unordered_set<std::string> seen;
  out += '{';
  const auto append = [&](TokenId id, std::string_view text, float logprob) {
    const std::string label = CompletionLabel(id, text, style);
    if (!seen.insert(label).second) return;
    if (seen.size() > 1) out += ',';
    AppendJsonString(label, out);
    out += ':';
    AppendLogprob(logprob, out);
  };
  append(token.sampled.id, token.text, token.sampled.logprob);
  for (size_t i = 0; i < TopCount(token, style.top); ++i) {
    const TokenLogprob& other = token.sampled.top[i];
    if (other.id != token.sampled.id) append(other.id, TopText(token, i), other.logprob);
  }
  out += '}';
}

void AppendPromptEntry(const TokenLogprob& entry, std::string_view text, size_t rank, bool& first,
                       std::string& out) {
  if (!first) out += ',';
  first = false;
  out += '"';
  out += std::to_string(entry.id);
  out += R"(":{"logprob":)";
  AppendLogprob(entry.logprob, out);
  out += R"(,"rank":)";
  out += rank > 0 ? std::to_string(rank) : "null";
  out += R"(,"decoded_token":)";
  AppendJsonString(text, out);
  out += '}';
}

}  // namespace

void AppendLogprob(float logprob, std::string& out) {
  if (!std::isfinite(logprob)) {
    out += kNoLogprob;
    return;
  }
  std::array<char, 32> text;
  const auto end = std::to_chars(text.data(), text.data() + text.size(), logprob);
  const std::string_view shortest(text.data(), end.ptr - text.data());
  out += shortest;
  // Clients with types take a number without these for an integer.
  if (shortest.find_first_of(".e") == std::string_view::npos) out += ".0";
}

void AppendInteger(uint64_t value, std::string& out) {
  std::array<char, 24> text;
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value);
  out.append(text.data(), end.ptr);
}

void AppendTokenIds(std::span<const TokenId> ids, std::string& out) {
  out += '[';
  for (size_t i = 0; i < ids.size(); ++i) {
    if (i > 0) out += ',';
    AppendInteger(static_cast<uint64_t>(ids[i]), out);
  }
  out += ']';
}

void AppendTokenIds(std::span<const GeneratedToken> tokens, std::string& out) {
  out += '[';
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i > 0) out += ',';
    AppendInteger(static_cast<uint64_t>(tokens[i].sampled.id), out);
  }
  out += ']';
}

void AppendFinishReason(FinishReason finish, std::string& out) {
  if (finish == FinishReason::kNone) {
    out += "null";
    return;
  }
  out += '"';
  out += FinishReasonName(finish);
  out += '"';
}

void AppendChatLogprobs(std::span<const GeneratedToken> tokens, const LogprobsStyle& style,
                        std::string& out) {
  out += R"({"content":[)";
  for (size_t i = 0; i < tokens.size(); ++i) {
    const GeneratedToken& token = tokens[i];
    if (i > 0) out += ',';
    AppendChatToken(token.sampled.id, token.text, token.sampled.logprob, style, out);
    out += R"(,"top_logprobs":[)";
    for (size_t k = 0; k < TopCount(token, style.top); ++k) {
      if (k > 0) out += ',';
      const TokenLogprob& other = token.sampled.top[k];
      AppendChatToken(other.id, TopText(token, k), other.logprob, style, out);
      out += '}';
    }
    out += "]}";
  }
  out += "]}";
}

void AppendCompletionLogprobs(std::span<const GeneratedToken> tokens, const LogprobsStyle& style,
                              bool first_has_none, size_t& text_offset, std::string& out) {
  std::string logprobs;
  std::string labels;
  std::string tops;
  out += R"({"text_offset":[)";
  for (size_t i = 0; i < tokens.size(); ++i) {
    const GeneratedToken& token = tokens[i];
    const std::string_view comma = i > 0 ? "," : "";
    out += comma;
    AppendInteger(text_offset, out);
    text_offset += Characters(token.text);
    labels += comma;
    AppendJsonString(CompletionLabel(token.sampled.id, token.text, style), labels);
    logprobs += comma;
    tops += comma;
    if (i == 0 && first_has_none) {
      logprobs += "null";
      tops += "null";
    } else {
      AppendLogprob(token.sampled.logprob, logprobs);
      AppendTopMap(token, style, tops);
    }
  }
  out += R"(],"token_logprobs":[)" + logprobs + R"(],"tokens":[)" + labels +
         R"(],"top_logprobs":[)" + tops + "]}";
}

void AppendPromptLogprobs(std::span<const GeneratedToken> tokens, std::string& out) {
  out += '[';
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i == 0) {
      out += "null";
      continue;
    }
    const GeneratedToken& token = tokens[i];
    out += ",{";
    size_t rank = 0;
    for (size_t k = 0; k < token.sampled.top.size(); ++k) {
      if (token.sampled.top[k].id == token.sampled.id) rank = k + 1;
    }
    bool first = true;
    AppendPromptEntry({token.sampled.id, token.sampled.logprob}, token.text, rank, first, out);
    for (size_t k = 0; k < token.sampled.top.size(); ++k) {
      if (token.sampled.top[k].id == token.sampled.id) continue;
      AppendPromptEntry(token.sampled.top[k], TopText(token, k), k + 1, first, out);
    }
    out += '}';
  }
  out += ']';
}

void AppendUsage(const GenerationUsage& usage, std::string& out) {
  out += R"({"prompt_tokens":)";
  AppendInteger(usage.prompt_tokens, out);
  out += R"(,"total_tokens":)";
  AppendInteger(uint64_t{usage.prompt_tokens} + usage.generation_tokens, out);
  out += R"(,"completion_tokens":)";
  AppendInteger(usage.generation_tokens, out);
  out += R"(,"prompt_tokens_details":{"cached_tokens":)";
  AppendInteger(usage.cached_prompt_tokens, out);
  out += "}}";
}

}  // namespace muselet
