#include "node/rank/child_process.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

namespace muselet {
namespace {

constexpr int kFirstInherited = 3;
constexpr int kOutOfTheWay = 64;
constexpr int kExitNotExecuted = 127;
constexpr size_t kInheritedMax = 8;

Status SystemFault(const std::string& what) {
  return ResourceExhausted(what + ": " + std::strerror(errno));
}

// In the child of a process with threads: system calls alone, nothing that takes a lock.
[[noreturn]] void BecomeProgram(const char* program, char* const* arguments, const int* inherited,
                                int inherited_count, pid_t parent, const sigset_t* no_signals) {
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent) _exit(kExitNotExecuted);
  setpgid(0, 0);
  std::array<int, kInheritedMax> moved{};
  for (int i = 0; i < inherited_count; ++i) {
    moved[i] = fcntl(inherited[i], F_DUPFD, kOutOfTheWay);
    if (moved[i] < 0) _exit(kExitNotExecuted);
  }
  for (int i = 0; i < inherited_count; ++i) {
    if (dup2(moved[i], kFirstInherited + i) < 0) _exit(kExitNotExecuted);
  }
  syscall(SYS_close_range, kFirstInherited + inherited_count, ~0U, 0);
  sigprocmask(SIG_SETMASK, no_signals, nullptr);
  execv(program, arguments);
  _exit(kExitNotExecuted);
}

}  // namespace

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (this != &other) {
    const Descriptor old(std::exchange(number_, other.Release()));
  }
  return *this;
}

Descriptor::~Descriptor() {
  if (number_ >= 0) close(number_);
}

int Descriptor::Release() {
  return std::exchange(number_, -1);
}

Result<ChildProcess> SpawnChild(const std::string& program,
                                const std::vector<std::string>& arguments,
                                const std::vector<int>& inherited) {
  CHECK(inherited.size() <= kInheritedMax);
  std::vector<std::string> texts = arguments;
  std::vector<char*> pointers;
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  sigset_t no_signals;
  sigemptyset(&no_signals);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return SystemFault("no process can be started");
  if (pid == 0) {
    BecomeProgram(program.c_str(), pointers.data(), inherited.data(),
                  static_cast<int>(inherited.size()), parent, &no_signals);
  }
  ChildProcess child;
  child.pid = pid;
  child.process = Descriptor(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (child.process.number() < 0) {
    const Status fault = SystemFault("process " + std::to_string(pid) + " cannot be watched");
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    return fault;
  }
  return child;
}

Result<std::pair<Descriptor, Descriptor>> PacketSockets() {
  std::array<int, 2> ends{};
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    return SystemFault("no socket can be made");
  }
  return std::make_pair(Descriptor(ends[0]), Descriptor(ends[1]));
}

Result<Descriptor> MemoryFile(const std::string& name, const std::string& text) {
  Descriptor file(memfd_create(name.c_str(), MFD_CLOEXEC));
  if (file.number() < 0) return SystemFault("no file can be made in memory");
  size_t written = 0;
  while (written < text.size()) {
    const ssize_t count = write(file.number(), text.data() + written, text.size() - written);
    if (count < 0) return SystemFault("a file in memory cannot be written");
    written += static_cast<size_t>(count);
  }
  return file;
}

}  // namespace muselet
