// The reference page of the configuration, made from the option table and the sections.
// deploy/config/README.md is a copy; a test compares the two.
#pragma once

#include <string>

namespace muselet {

// Markdown.
std::string ConfigReference();

}  // namespace muselet
