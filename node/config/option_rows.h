// How the tables of options are written: one call a row.
#pragma once

#include <utility>
#include <vector>

#include "node/config/option_table.h"

namespace muselet {

// Appends the option that `spec` describes; `access` is a lambda as MakeField takes it.
template <typename Access>
void AddOption(std::vector<Option>& rows, const char* group, FieldSpec spec, Access access) {
  rows.push_back({MakeField<ClusterConfig>(std::move(spec), access), group});
}

}  // namespace muselet
