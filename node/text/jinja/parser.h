// Tokens to a syntax tree: jinja2's grammar without template inheritance and includes.
#pragma once

#include <memory>
#include <string_view>

#include "base/status.h"
#include "node/text/jinja/ast.h"

namespace muselet::jinja {

// kInvalidArgument "line N: problem", also for nesting beyond what the interpreter would follow.
// REQUIRES: valid UTF-8.
Result<std::unique_ptr<Template>> ParseTemplate(std::string_view source);

}  // namespace muselet::jinja
