// The words of a template, as the lexer cuts them.
#pragma once

#include <cstdint>
#include <string>

namespace muselet::jinja {

enum class TokenKind : uint8_t {
  kData,           // text outside of tags
  kVariableBegin,  // {{
  kVariableEnd,    // }}
  kBlockBegin,     // {%
  kBlockEnd,       // %}
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,  // text is one of + - / // * % ** ~ [ ] ( ) { } == != > >= < <= = . : | , ;
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string text;  // strings: unescaped
  int64_t integer = 0;
  double number = 0.0;
  int line = 0;  // from 1
};

}  // namespace muselet::jinja
