#include "comms/shared_memory_region.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

namespace muselet {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW;

Status SystemFault(const std::string& what, size_t bytes, int error) {
  return ResourceExhausted("cannot " + what + " shared memory of " + std::to_string(bytes) +
                           " bytes: " + std::strerror(error) +
                           " (is there memory for it, and do all members run as one user in one "
                           "container?)");
}

struct Descriptor {
  explicit Descriptor(int value) : fd(value) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd >= 0) close(fd);
  }
  const int fd;
};

// Memory whose pages are taken, and whose size can no longer change.
Status Reserve(int fd, size_t bytes) {
  if (fd < 0) return SystemFault("make", bytes, errno);
  // Unlike ftruncate this takes the pages now.
  if (const int error = posix_fallocate(fd, 0, static_cast<off_t>(bytes)); error != 0) {
    return SystemFault("reserve", bytes, error);
  }
  if (fcntl(fd, F_ADD_SEALS, kSeals) != 0) return SystemFault("seal", bytes, errno);
  return OkStatus();
}

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
    // Open until all have joined: they find it as a file of this process.
    const Descriptor memory(memfd_create("muselet", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    Status made = Reserve(memory.fd, bytes);
    SharedMemoryRegion region;
    if (made.ok()) made = Map(memory.fd, bytes, region);
    const std::string path =
        "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(memory.fd);
    RETURN_IF_ERROR(rendezvous.Put(region_key, made.ok() ? path : ""));
    if (!made.ok()) return made;
    const Status joined = AwaitMembers(spec, rendezvous);
    // The others learn the outcome, so that all have the group or none.
    RETURN_IF_ERROR(rendezvous.Put(ready_key, joined.ok() ? "" : joined.message()));
    if (!joined.ok()) return joined;
    return region;
  }
  ASSIGN_OR_RETURN(const std::string path, rendezvous.Get(region_key, spec.deadline_us));
  if (path.empty()) return Unavailable("member 0 could not make the shared memory");
  SharedMemoryRegion region;
  const Status opened = Open(path, bytes, region);
  RETURN_IF_ERROR(rendezvous.Put(JoinedKey(spec, spec.rank), opened.ok() ? "" : opened.message()));
  if (!opened.ok()) return opened;
  ASSIGN_OR_RETURN(const std::string trouble, rendezvous.Get(ready_key, spec.deadline_us));
  if (!trouble.empty()) return Unavailable(trouble);
  return region;
}

Status SharedMemoryRegion::Open(const std::string& path, size_t bytes, SharedMemoryRegion& region) {
  const Descriptor memory(open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (memory.fd < 0) return SystemFault("open " + path + " as", bytes, errno);
  struct stat info = {};
  // Seals are what only such memory has.
  if (fstat(memory.fd, &info) != 0 || info.st_uid != geteuid() ||
      (fcntl(memory.fd, F_GET_SEALS) & kSeals) != kSeals ||
      static_cast<size_t>(info.st_size) != bytes) {
    return Unavailable(path + " is not the " + std::to_string(bytes) +
                       " bytes of this group: do all members have one size and configuration?");
  }
  return Map(memory.fd, bytes, region);
}

Status SharedMemoryRegion::Map(int fd, size_t bytes, SharedMemoryRegion& region) {
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED) return SystemFault("map", bytes, errno);
  region = SharedMemoryRegion(static_cast<std::byte*>(data), bytes);
  return OkStatus();
}

}  // namespace muselet
