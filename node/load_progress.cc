#include "node/load_progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <utility>

#include "base/log.h"

namespace muselet {
namespace {

constexpr int64_t kBarIntervalUs = 100'000;
constexpr int64_t kLogIntervalUs = 5'000'000;
constexpr int kBarColumns = 30;

}  // namespace

std::string FormatBytes(uint64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (bytes < 1'000'000) return fmt::format("{:.3g} kB", value / 1e3);
  if (bytes < 1'000'000'000) return fmt::format("{:.1f} MB", value / 1e6);
  return fmt::format("{:.2f} GB", value / 1e9);
}

LoadProgressDisplay::LoadProgressDisplay(std::string model, Style style, const Clock& clock)
    : model_(std::move(model)),
      clock_(clock),
      begin_us_(clock.NowUs()),
      shown_us_(begin_us_),
      terminal_(style == Style::kAuto && isatty(STDERR_FILENO) != 0) {}

LoadProgressDisplay::~LoadProgressDisplay() {
  if (bar_shown_) std::fputs("\n", stderr);
}

void LoadProgressDisplay::Update(uint64_t bytes_done, uint64_t bytes_total) {
  const int64_t now_us = clock_.NowUs();
  const bool complete = bytes_done >= bytes_total;
  if (now_us - shown_us_ < (terminal_ ? kBarIntervalUs : kLogIntervalUs) &&
      !(complete && bar_shown_)) {
    return;
  }
  shown_us_ = now_us;
  const double seconds = static_cast<double>(now_us - begin_us_) * 1e-6 + 1e-9;
  const double rate = static_cast<double>(bytes_done) / seconds;
  const double left_s = static_cast<double>(bytes_total - bytes_done) / (rate + 1e-9);
  if (!terminal_) {
    LogInfo("loading", {{"model", model_},
                        {"bytes", bytes_done},
                        {"bytes_total", bytes_total},
                        {"bytes_per_second", static_cast<uint64_t>(rate)},
                        {"seconds_left", left_s}});
    return;
  }
  const int filled = static_cast<int>(bytes_done * kBarColumns / (bytes_total + 1));
  const std::string line =
      fmt::format("\r\033[Kloading {} [{:=<{}}{: <{}}] {} of {}, {}/s, {:.0f} s left", model_, "",
                  filled, "", kBarColumns - filled, FormatBytes(bytes_done),
                  FormatBytes(bytes_total), FormatBytes(static_cast<uint64_t>(rate)), left_s);
  std::fputs(line.c_str(), stderr);
  std::fflush(stderr);
  bar_shown_ = true;
}

}  // namespace muselet
