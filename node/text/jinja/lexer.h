// Cuts a template into tokens, as jinja2's lexer does with trim_blocks and lstrip_blocks: comments
// are gone, white space that tags take away is gone, raw blocks are data.
#pragma once

#include <string_view>
#include <vector>

#include "base/status.h"
#include "node/text/jinja/token.h"

namespace muselet::jinja {

// The last token is kEnd. kInvalidArgument "line N: problem". REQUIRES: valid UTF-8.
Result<std::vector<Token>> Tokenize(std::string_view source);

}  // namespace muselet::jinja
