// The two tables that make up the filters; only node/text/jinja/filters.cc looks them up.
#pragma once

#include <span>
#include <string_view>

#include "node/text/jinja/runtime.h"

namespace muselet::jinja {

using FilterFunction = Result<Value> (*)(Runtime& runtime, const Value& input,
                                         const Arguments& arguments);
struct FilterEntry {
  std::string_view name;
  FilterFunction function;
};

std::span<const FilterEntry> TextFilters();
std::span<const FilterEntry> SequenceFilters();

}  // namespace muselet::jinja
