#include "node/config/machine.h"

#include <charconv>
#include <fstream>
#include <optional>
#include <sstream>
#include <string_view>

#include "node/cpu/isa.h"

namespace muselet {
namespace {

std::optional<uint64_t> ParseCount(std::string_view text) {
  uint64_t count = 0;
  const char* last = text.data() + text.size();
  const auto [end, fault] = std::from_chars(text.data(), last, count);
  if (fault != std::errc() || end == text.data()) return std::nullopt;
  return count;
}

uint64_t PhysicalBytes(const std::string& root) {
  std::ifstream file(root + "/proc/meminfo");
  std::string word;
  uint64_t kilobytes = 0;
  while (file >> word) {
    if (word == "MemTotal:" && file >> kilobytes) return kilobytes * 1024;
  }
  return 0;
}

// The limits of the group at `path` and of all groups around it, as far as they can be seen. In a
// container the path may be the host's; then only the outermost directory is there.
void ApplyGroups(const std::string& mount, std::string path, const std::string& name,
                 MemoryLimit& limit) {
  for (;;) {
    const std::string file = mount + path + "/" + name;
    std::ifstream stream(file);
    std::string text;
    if (stream >> text) {
      const std::optional<uint64_t> bytes = ParseCount(text);  // "max" is no number
      if (bytes && *bytes > 0 && (limit.bytes == 0 || *bytes < limit.bytes)) {
        limit = {*bytes, "the limit of this process's cgroup, " + file};
      }
    }
    if (path.empty()) return;
    path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
  }
}

bool ListsMemory(const std::string& controllers) {
  std::istringstream words(controllers);
  for (std::string word; std::getline(words, word, ',');) {
    if (word == "memory") return true;
  }
  return false;
}

}  // namespace

MemoryLimit ReadMemoryLimit(const std::string& root) {
  MemoryLimit limit{PhysicalBytes(root), "the memory of this machine"};
  // Lines of "id:controllers:path"; id 0 without controllers is cgroup v2.
  std::ifstream groups(root + "/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    std::string path = line.substr(second + 1);
    if (path == "/") path.clear();
    if (controllers.empty()) {
      ApplyGroups(root + "/sys/fs/cgroup", path, "memory.max", limit);
    } else if (ListsMemory(controllers)) {
      ApplyGroups(root + "/sys/fs/cgroup/memory", path, "memory.limit_in_bytes", limit);
    }
  }
  return limit;
}

Machine ThisMachine() {
  return {ReadMemoryLimit(), [](IsaLevel level) { return cpu::SelectKernels(level).status(); }};
}

}  // namespace muselet
