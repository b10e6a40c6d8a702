// A file that exists in memory only, with a path that any code can open: tens of thousands of
// hostile files are read in these tests.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <string>
#include <string_view>

#include "base/check.h"

namespace muselet::testing {

// Owns the descriptor; the path is valid while the object lives, in this process only.
class MemoryFile {
 public:
  MemoryFile() : fd_(memfd_create("muselet-test", MFD_CLOEXEC)) {
    CHECK(fd_ >= 0, "no memory file");
  }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  ~MemoryFile() { close(fd_); }

  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }
  // The file holds these bytes and no more.
  void Write(std::string_view bytes) const {
    CHECK(ftruncate(fd_, static_cast<off_t>(bytes.size())) == 0, "no room for a memory file");
    const auto size = static_cast<ssize_t>(bytes.size());
    CHECK(pwrite(fd_, bytes.data(), bytes.size(), 0) == size, "a memory file is cut short");
  }

 private:
  int fd_;
};

}  // namespace muselet::testing
