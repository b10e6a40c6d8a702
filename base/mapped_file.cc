#include "base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace muselet {
namespace {

// Closes the descriptor when it leaves the scope.
class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&&) = delete;
  ~FileDescriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

Status ErrnoStatus(const std::string& path, int error) {
  const std::string message = path + ": " + std::strerror(error);
  if (error == ENOENT || error == ENOTDIR) return NotFound(message);
  if (error == EACCES || error == EPERM) {
    return PermissionDenied(path + ": permission denied; let this user read the file");
  }
  return Unavailable(message);
}

struct OpenedFile {
  FileDescriptor fd;
  size_t size_bytes;
};

Result<OpenedFile> OpenRegular(const std::string& path) {
  FileDescriptor fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) return ErrnoStatus(path, errno);
  struct stat info {};
  if (fstat(fd.get(), &info) != 0) return ErrnoStatus(path, errno);
  if (!S_ISREG(info.st_mode)) return InvalidArgument(path + ": not a regular file");
  return OpenedFile{std::move(fd), static_cast<size_t>(info.st_size)};
}

}  // namespace

Result<MappedFile> MappedFile::Open(const std::string& path) {
  ASSIGN_OR_RETURN(const OpenedFile file, OpenRegular(path));
  if (file.size_bytes == 0) return InvalidArgument(path + ": the file is empty");
  void* data = mmap(nullptr, file.size_bytes, PROT_READ, MAP_PRIVATE, file.fd.get(), 0);
  if (data == MAP_FAILED) return ErrnoStatus(path, errno);
  return MappedFile(path, static_cast<const std::byte*>(data), file.size_bytes);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::Release(std::span<const std::byte> part) const {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<uintptr_t>(part.data()) + page - 1) / page * page;
  const auto end = reinterpret_cast<uintptr_t>(part.data() + part.size()) / page * page;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

Result<std::string> ReadFile(const std::string& path, size_t size_max_bytes) {
  ASSIGN_OR_RETURN(const OpenedFile file, OpenRegular(path));
  if (file.size_bytes > size_max_bytes) {
    return InvalidArgument(path + ": " + std::to_string(file.size_bytes) + " bytes, the limit is " +
                           std::to_string(size_max_bytes));
  }
  std::string text(file.size_bytes, '\0');
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t count = read(file.fd.get(), text.data() + done, text.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoStatus(path, errno);
    if (count == 0) return DataLoss(path + ": shrank while it was read");
    done += static_cast<size_t>(count);
  }
  return text;
}

}  // namespace muselet
