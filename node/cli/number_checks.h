// Checks of numbers on the command line, with sentences of our own; they leave the help text alone.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>

namespace muselet {

CLI::Validator Whole(uint64_t min, uint64_t max);
CLI::Validator Number(double min, double max);

}  // namespace muselet
