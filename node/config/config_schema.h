// The JSON Schema (draft 2020-12) of the cluster file, made from the option table and the sections.
// deploy/config/schema.json is a copy that editors read; a test compares the two.
#pragma once

#include <string>

namespace muselet {

// Indented JSON with a newline at its end.
std::string ConfigSchema();

}  // namespace muselet
