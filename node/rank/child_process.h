// Starts a program as a child that dies with the thread that started it.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/status.h"

namespace muselet {

// An open file descriptor with one owner.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(other.Release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept;
  ~Descriptor();

  int number() const { return number_; }  // -1 = none
  int Release();

 private:
  int number_ = -1;
};

struct ChildProcess {
  pid_t pid = 0;
  Descriptor process;  // a pidfd: readable when the process has ended
};

// Runs `program` with `arguments` (the first is its name). It gets the standard streams, and
// `inherited` as descriptors 3, 4, ...; a process group of its own; no blocked signals; SIGKILL
// when the calling thread ends. kResourceExhausted if there can be no other process. A program that
// cannot be executed ends with 127.
Result<ChildProcess> SpawnChild(const std::string& program,
                                const std::vector<std::string>& arguments,
                                const std::vector<int>& inherited);

// Two connected sockets that keep packets apart, closed on exec.
Result<std::pair<Descriptor, Descriptor>> PacketSockets();

// A file in memory that holds `text`, closed on exec.
Result<Descriptor> MemoryFile(const std::string& name, const std::string& text);

}  // namespace muselet
