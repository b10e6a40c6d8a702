// Renders a conversation into the prompt text that a model was trained on, with the model's own
// Jinja template, as jinja2 with Hugging Face's settings does (trim_blocks, lstrip_blocks, loop
// controls, tojson, raise_exception, strftime_now). The engine is node/text/jinja: a lexer, a
// parser and an interpreter with step, depth and output limits; a template cannot reach anything
// but the values given here.
//
// Immutable after Parse; any thread may call Render.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "node/text/tokenizer.h"

namespace muselet {

struct ChatTemplateInput {
  Json messages = Json::array();  // as the client sent them: role, content, ...
  Json tools;                     // null = none
  Json documents;                 // null = none
  Json kwargs = Json::object();   // chat_template_kwargs: further variables
  bool add_generation_prompt = true;
  std::string bos_token;
  std::string eos_token;
  int64_t now_unix_us = 0;  // fixed at admission; what strftime_now sees (UTC)
};

// A stretch of the rendered prompt. Text that came from the client is never parsed for control
// tokens, text of the template is: encode piece by piece is not enough (merges cross borders), so
// the tokenizer is given the whole text with the untrusted ranges.
struct RenderedPrompt {
  std::string text;
  std::vector<TextRange> untrusted;  // ascending, not overlapping
};

class ChatTemplate {
 public:
  // kInvalidArgument "line N: problem" if the template is not of the supported language.
  static Result<std::unique_ptr<ChatTemplate>> Parse(std::string_view source);
  virtual ~ChatTemplate() = default;
  // kInvalidArgument with the template's own message for raise_exception, with "line N: problem"
  // for faults.
  virtual Result<RenderedPrompt> Render(const ChatTemplateInput& input) const = 0;
};

}  // namespace muselet
