#include "comms/shared_memory_region.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <utility>

namespace muselet {
namespace {

Result<std::string> RandomName() {
  uint64_t random = 0;
  if (getrandom(&random, sizeof(random), 0) != static_cast<ssize_t>(sizeof(random))) {
    return Unavailable(std::string("getrandom: ") + std::strerror(errno));
  }
  char name[40];
  std::snprintf(name, sizeof(name), "/muselet-%016llx", static_cast<unsigned long long>(random));
  return std::string(name);
}

Status SystemFault(const std::string& what, const std::string& name, size_t bytes, int error) {
  return ResourceExhausted(what + " shared memory " + name + " of " + std::to_string(bytes) +
                           " bytes: " + std::strerror(error) +
                           " (is /dev/shm large enough, and the same for all members?)");
}

// The name of a region goes away with this, whatever happened.
struct NameGuard {
  std::string name;
  ~NameGuard() {
    if (!name.empty()) shm_unlink(name.c_str());
  }
};

std::string JoinedKey(const RankGroupSpec& spec, uint32_t rank) {
  return spec.name + "/shm/joined/" + std::to_string(rank);
}

// Member 0: all others have mapped the region.
Status AwaitMembers(const RankGroupSpec& spec, RankRendezvous& rendezvous) {
  std::string missing;
  Status fault;
  for (uint32_t rank = 1; rank < spec.size; ++rank) {
    const auto joined = rendezvous.Get(JoinedKey(spec, rank), spec.deadline_us);
    if (joined.ok() && joined->empty()) continue;
    // A value that is not empty says why that member cannot join.
    if (joined.ok()) return Unavailable("member " + std::to_string(rank) + ": " + *joined);
    fault = joined.status();
    missing += (missing.empty() ? "" : ", ") + std::to_string(rank);
  }
  return fault.ok() ? fault
                    : Status(fault.code(), "missing members " + missing + ": " + fault.message());
}

}  // namespace

SharedMemoryRegion::SharedMemoryRegion(SharedMemoryRegion&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

SharedMemoryRegion& SharedMemoryRegion::operator=(SharedMemoryRegion&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

SharedMemoryRegion::~SharedMemoryRegion() {
  if (data_ != nullptr) munmap(data_, size_);
}

Result<SharedMemoryRegion> SharedMemoryRegion::Join(const RankGroupSpec& spec, size_t bytes,
                                                    RankRendezvous& rendezvous) {
  const std::string region_key = spec.name + "/shm/region";
  const std::string ready_key = spec.name + "/shm/ready";
  if (spec.rank == 0) {
    ASSIGN_OR_RETURN(const std::string name, RandomName());
    const NameGuard guard{name};
    auto region = Create(name, bytes);
    RETURN_IF_ERROR(rendezvous.Put(region_key, region.ok() ? name : ""));
    if (!region.ok()) return region.status();
    const Status joined = AwaitMembers(spec, rendezvous);
    // The others learn the outcome, so that all have the group or none.
    RETURN_IF_ERROR(rendezvous.Put(ready_key, joined.ok() ? "" : joined.message()));
    if (!joined.ok()) return joined;
    return region;
  }
  ASSIGN_OR_RETURN(const std::string name, rendezvous.Get(region_key, spec.deadline_us));
  if (name.empty()) return Unavailable("member 0 could not make the shared memory");
  auto region = Open(name, bytes);
  RETURN_IF_ERROR(
      rendezvous.Put(JoinedKey(spec, spec.rank), region.ok() ? "" : region.status().message()));
  if (!region.ok()) return region.status();
  ASSIGN_OR_RETURN(const std::string trouble, rendezvous.Get(ready_key, spec.deadline_us));
  if (!trouble.empty()) return Unavailable(trouble);
  return region;
}

Result<SharedMemoryRegion> SharedMemoryRegion::Create(const std::string& name, size_t bytes) {
  const int fd = shm_open(name.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
  if (fd < 0) return SystemFault("cannot make", name, bytes, errno);
  // Unlike ftruncate this takes the pages now.
  if (const int error = posix_fallocate(fd, 0, static_cast<off_t>(bytes)); error != 0) {
    close(fd);
    return SystemFault("cannot reserve", name, bytes, error);
  }
  return Map(fd, name, bytes);
}

Result<SharedMemoryRegion> SharedMemoryRegion::Open(const std::string& name, size_t bytes) {
  const int fd = shm_open(name.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC, 0);
  if (fd < 0) return SystemFault("cannot open", name, bytes, errno);
  struct stat info = {};
  if (fstat(fd, &info) != 0 || info.st_uid != geteuid() ||
      static_cast<size_t>(info.st_size) != bytes) {
    close(fd);
    return Unavailable("shared memory " + name + " is not the " + std::to_string(bytes) +
                       " bytes of this group: do all members have one size and configuration?");
  }
  return Map(fd, name, bytes);
}

Result<SharedMemoryRegion> SharedMemoryRegion::Map(int fd, const std::string& name, size_t bytes) {
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  const int error = errno;
  close(fd);
  if (data == MAP_FAILED) return SystemFault("cannot map", name, bytes, error);
  return SharedMemoryRegion(static_cast<std::byte*>(data), bytes);
}

}  // namespace muselet
