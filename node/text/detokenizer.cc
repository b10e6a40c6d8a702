#include "node/text/detokenizer.h"

#include "node/text/utf8.h"

namespace muselet {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

}  // namespace

Detokenizer::Detokenizer(const Tokenizer& tokenizer, bool show_control_tokens)
    : tokenizer_(tokenizer), show_control_tokens_(show_control_tokens) {}

std::string Detokenizer::Push(TokenId id) {
  const std::string_view bytes =
      show_control_tokens_ ? tokenizer_.TokenText(id) : tokenizer_.TokenBytes(id);
  pending_ += bytes;
  std::string text;
  size_t done = 0;
  while (done < pending_.size()) {
    const std::string_view rest = std::string_view(pending_).substr(done);
    const Utf8Step step = NextUtf8(rest);
    if (step.kind == Utf8Kind::kIncomplete) break;
    text += step.kind == Utf8Kind::kInvalid ? kReplacement : rest.substr(0, step.bytes);
    done += step.bytes;
  }
  pending_.erase(0, done);
  return text;
}

std::string Detokenizer::Finish() {
  const bool open = !pending_.empty();
  pending_.clear();
  return open ? std::string(kReplacement) : std::string();
}

}  // namespace muselet
