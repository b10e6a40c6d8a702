// The questions that bench asks.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"

namespace muselet {

// One prompt a line. A file whose first line is a JSON object is JSON lines: each line's first of
// `turns` (as MT-bench has it), or its `prompt`. kInvalidArgument names file and line. An empty
// path gives a few questions of our own.
Result<std::vector<std::string>> LoadPrompts(const std::string& path);

}  // namespace muselet
