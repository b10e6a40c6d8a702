// A string that remembers which of its bytes came from outside (a client's message), through
// concatenation, slicing and filters. What is tainted is never read as a control token.
//
// A plain value; valid UTF-8.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "node/text/tokenizer.h"

namespace muselet::jinja {

class Text {
 public:
  Text() = default;
  explicit Text(std::string bytes, bool tainted = false) : bytes_(std::move(bytes)) {
    if (tainted && !bytes_.empty()) tainted_.push_back({0, bytes_.size()});
  }

  const std::string& bytes() const { return bytes_; }
  const std::vector<TextRange>& tainted() const { return tainted_; }  // ascending, apart
  bool any_tainted() const { return !tainted_.empty(); }
  size_t size() const { return bytes_.size(); }

  void Append(std::string_view bytes, bool tainted);
  void Append(const Text& other);
  // Bytes [begin, end). REQUIRES: begin <= end <= size(), character borders.
  Text Slice(size_t begin, size_t end) const;
  // Other bytes with the taint of this text as a whole: for changes that do not keep positions.
  Text Derived(std::string bytes) const { return Text(std::move(bytes), any_tainted()); }

 private:
  void Mark(size_t begin, size_t end);

  std::string bytes_;
  std::vector<TextRange> tainted_;
};

}  // namespace muselet::jinja
