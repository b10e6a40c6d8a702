#include "monitoring/process_collector.h"

#include <prometheus/metric_family.h>
#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <sstream>
#include <string>

namespace muselet {
namespace {

using prometheus::MetricFamily;
using prometheus::MetricType;

MetricFamily Single(const char* name, const char* help, MetricType type, double value) {
  prometheus::ClientMetric metric;
  if (type == MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
  MetricFamily family;
  family.name = name;
  family.help = help;
  family.type = type;
  family.metric.push_back(metric);
  return family;
}

// The fields of /proc/self/stat after the command name; index 0 is field 3 ("state") of proc(5).
std::vector<std::string> StatFields() {
  std::ifstream file("/proc/self/stat");
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return {};
  std::istringstream rest(text.substr(name_end + 1));
  return {std::istream_iterator<std::string>(rest), std::istream_iterator<std::string>()};
}

std::optional<double> BootUnixSeconds() {
  std::ifstream file("/proc/stat");
  std::string word;
  while (file >> word) {
    if (word == "btime") {
      double seconds = 0;
      if (file >> seconds) return seconds;
    }
  }
  return std::nullopt;
}

double OpenFileCount() {
  std::error_code error;
  const std::filesystem::directory_iterator files("/proc/self/fd", error);
  return error ? 0.0 : static_cast<double>(std::distance(begin(files), end(files)));
}

void AddStat(std::vector<MetricFamily>& families) {
  const std::vector<std::string> fields = StatFields();
  if (fields.size() < 22) return;
  const auto number = [&](size_t proc_field) { return std::stod(fields[proc_field - 3]); };
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  const auto page_bytes = static_cast<double>(sysconf(_SC_PAGESIZE));
  families.push_back(Single("process_cpu_seconds_total", "User and system CPU time spent, seconds.",
                            MetricType::Counter, (number(14) + number(15)) / ticks));
  families.push_back(
      Single("process_threads", "Threads of the process.", MetricType::Gauge, number(20)));
  families.push_back(Single("process_virtual_memory_bytes", "Virtual memory size, bytes.",
                            MetricType::Gauge, number(23)));
  families.push_back(Single("process_resident_memory_bytes", "Resident memory size, bytes.",
                            MetricType::Gauge, number(24) * page_bytes));
  if (const auto boot = BootUnixSeconds()) {
    families.push_back(Single("process_start_time_seconds",
                              "Start of the process since the Unix epoch, seconds.",
                              MetricType::Gauge, *boot + number(22) / ticks));
  }
}

}  // namespace

std::vector<MetricFamily> ProcessCollector::Collect() const {
  std::vector<MetricFamily> families;
  AddStat(families);
  families.push_back(
      Single("process_open_fds", "Open file descriptors.", MetricType::Gauge, OpenFileCount()));
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    families.push_back(Single("process_max_fds", "Limit of open file descriptors.",
                              MetricType::Gauge, static_cast<double>(limit.rlim_cur)));
  }
  return families;
}

}  // namespace muselet
