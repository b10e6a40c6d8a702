// The parser's view of the tokens: look, take, expect; the template's table of names; nesting.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "node/text/jinja/ast.h"
#include "node/text/jinja/token.h"

namespace muselet::jinja {

class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  // Past the end there is always the end token.
  const Token& Peek(size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  Token Take() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  int line() const { return Peek().line; }
  bool AtKind(TokenKind kind) const { return Peek().kind == kind; }
  bool AtOperator(std::string_view text, size_t ahead = 0) const {
    return Peek(ahead).kind == TokenKind::kOperator && Peek(ahead).text == text;
  }
  bool AtName(std::string_view text, size_t ahead = 0) const {
    return Peek(ahead).kind == TokenKind::kName && Peek(ahead).text == text;
  }
  bool SkipOperator(std::string_view text) {
    if (!AtOperator(text)) return false;
    Take();
    return true;
  }
  bool SkipName(std::string_view text) {
    if (!AtName(text)) return false;
    Take();
    return true;
  }
  Status ExpectOperator(std::string_view text) {
    return SkipOperator(text) ? OkStatus() : Unexpected("\"" + std::string(text) + "\"");
  }
  Status ExpectKind(TokenKind kind, std::string_view what) {
    if (!AtKind(kind)) return Unexpected(what);
    Take();
    return OkStatus();
  }
  Result<std::string> ExpectName() {
    if (!AtKind(TokenKind::kName)) return Unexpected("a name");
    return Take().text;
  }

  Status Fault(int line, const std::string& problem) const {
    return InvalidArgument("line " + std::to_string(line) + ": " + problem);
  }
  // "expected what, got ...".
  Status Unexpected(std::string_view what) const;

  // The number of a name in the template's table.
  int Symbol(const std::string& name) {
    const auto [entry, fresh] =
        symbol_numbers_.try_emplace(name, static_cast<int>(symbols_.size()));
    if (fresh) symbols_.push_back(name);
    return entry->second;
  }
  std::vector<std::string> TakeSymbols() { return std::move(symbols_); }

  // Counts nesting while it lives; not ok() beyond the limit.
  class Nesting {
   public:
    explicit Nesting(TokenStream& stream) : stream_(stream) { ++stream_.depth_; }
    ~Nesting() { --stream_.depth_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;
    Status Check() const;

   private:
    TokenStream& stream_;
  };

 private:
  std::vector<Token> tokens_;
  size_t at_ = 0;
  size_t depth_ = 0;
  std::vector<std::string> symbols_;
  std::unordered_map<std::string, int> symbol_numbers_;
};

// Expressions, from the loosest binding down. `with_conditional` allows "a if b else c".
Result<ExprPtr> ParseExpression(TokenStream& stream, bool with_conditional = true);
// An expression, or several with commas between: then a tuple. Stops before `end_name`.
Result<ExprPtr> ParseTuple(TokenStream& stream, bool with_conditional = true);
// What stands before "|" or "(" and behind.
Result<ExprPtr> ParsePostfix(TokenStream& stream, ExprPtr expr);
Result<ExprPtr> ParsePrimary(TokenStream& stream);
// Filters applied to `expr`; null for filter blocks, where the first filter has no "|" before it.
Result<ExprPtr> ParseFilters(TokenStream& stream, ExprPtr expr, bool begin_inline);

}  // namespace muselet::jinja
