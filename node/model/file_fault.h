// How the readers of model files word their faults: "path: field: problem", with names from the
// file made fit to print.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace muselet {

// A name that came from a file, for a message: at most 80 bytes, control and non-ASCII bytes as
// '?'.
std::string Printable(std::string_view name);

// Whether a directory has the entry. A link that leads nowhere and a file that may not be looked at
// are there: reading them gives the fault.
bool IsPresent(const std::string& path);

// kDataLoss: the bytes are truncated or contradict themselves.
Status LyingFile(std::string_view path, std::string_view field, std::string_view problem);
// kInvalidArgument: the file is whole, but its value cannot be used.
Status BadField(std::string_view path, std::string_view field, std::string_view problem);

}  // namespace muselet
