#include "node/text/added_tokens.h"

#include <algorithm>

#include "node/text/utf8.h"

namespace muselet {
namespace {

// The character that ends before `end`; REQUIRES: end > 0.
DecodedChar CharBefore(std::string_view text, size_t end) {
  size_t begin = end - 1;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
  return DecodeUtf8(text, begin);
}

bool IsSpace(char32_t code) {
  return ClassOf(code) == CharClass::kSpace;
}

bool IsWholeWord(std::string_view text, size_t begin, size_t end) {
  const bool joined_before = begin > 0 && IsWordChar(CharBefore(text, begin).code);
  const bool joined_after = end < text.size() && IsWordChar(DecodeUtf8(text, end).code);
  return !joined_before && !joined_after;
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens)
    : tokens_(std::move(tokens)), nodes_(1) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    if (tokens_[i].content.empty()) continue;
    first_bytes_.set(static_cast<unsigned char>(tokens_[i].content[0]));
    uint32_t at = 0;
    for (const char c : tokens_[i].content) {
      const auto byte = static_cast<unsigned char>(c);
      auto& children = nodes_[at].children;
      const auto child = std::find_if(children.begin(), children.end(),
                                      [&](const auto& entry) { return entry.first == byte; });
      if (child != children.end()) {
        at = child->second;
      } else {
        const auto next = static_cast<uint32_t>(nodes_.size());
        children.emplace_back(byte, next);
        nodes_.emplace_back();
        at = next;
      }
    }
    nodes_[at].token = static_cast<int32_t>(i);
  }
}

int32_t AddedTokenMatcher::LongestAt(std::string_view text, size_t begin,
                                     size_t trusted_end) const {
  int32_t longest = -1;
  uint32_t at = 0;
  for (size_t i = begin; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto& children = nodes_[at].children;
    const auto child = std::find_if(children.begin(), children.end(),
                                    [&](const auto& entry) { return entry.first == byte; });
    if (child == children.end()) break;
    at = child->second;
    const int32_t token = nodes_[at].token;
    if (token < 0) continue;
    if (tokens_[static_cast<size_t>(token)].special && i + 1 > trusted_end) continue;
    longest = token;
  }
  return longest;
}

TextSection AddedTokenMatcher::Widen(std::string_view text, const AddedToken& token, size_t begin,
                                     size_t not_before) const {
  size_t end = begin + token.content.size();
  if (token.lstrip) {
    while (begin > not_before) {
      const DecodedChar c = CharBefore(text, begin);
      if (!IsSpace(c.code)) break;
      begin -= c.bytes;
    }
  }
  if (token.rstrip) {
    while (end < text.size()) {
      const DecodedChar c = DecodeUtf8(text, end);
      if (!IsSpace(c.code)) break;
      end += c.bytes;
    }
  }
  return {begin, end, token.id};
}

std::vector<TextSection> AddedTokenMatcher::Find(std::string_view text, SpecialTokens special,
                                                 std::span<const TextRange> untrusted) const {
  std::vector<TextSection> sections;
  size_t done = 0;        // everything before is in a section
  size_t next_range = 0;  // the first untrusted range that does not end before i
  for (size_t i = 0; i < text.size();) {
    if (!first_bytes_.test(static_cast<unsigned char>(text[i]))) {
      ++i;
      continue;
    }
    while (next_range < untrusted.size() && untrusted[next_range].end <= i) ++next_range;
    // A special token may reach from i up to the next untrusted byte.
    size_t trusted_end = text.size();
    if (next_range < untrusted.size()) trusted_end = std::max(untrusted[next_range].begin, i);
    const int32_t match = LongestAt(text, i, trusted_end);
    if (match < 0) {
      ++i;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<size_t>(match)];
    const size_t end = i + token.content.size();
    const bool refused = (token.special && special == SpecialTokens::kAsText) ||
                         (token.single_word && !IsWholeWord(text, i, end));
    if (!refused && i >= done) {
      const TextSection section = Widen(text, token, i, done);
      if (section.begin > done) sections.push_back({done, section.begin, -1});
      sections.push_back(section);
      done = section.end;
    }
    i = end;
  }
  if (done < text.size()) sections.push_back({done, text.size(), -1});
  return sections;
}

}  // namespace muselet
