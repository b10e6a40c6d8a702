#include "node/model/checkpoint.h"

#include <filesystem>
#include <system_error>

#include "node/model/gguf_checkpoint.h"
#include "node/model/hf_checkpoint.h"

namespace muselet {

Result<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found) {
    return NotFound(path +
                    ": no such file or directory; give a .gguf file or a Hugging Face model "
                    "directory");
  }
  if (error == std::errc::permission_denied) {
    return PermissionDenied(path + ": permission denied; let this user read the folders above it");
  }
  if (error) return InvalidArgument(path + ": " + error.message());
  if (status.type() == fs::file_type::directory) {
    const size_t end = path.find_last_not_of('/');
    return OpenHuggingFaceCheckpoint(end == std::string::npos ? path : path.substr(0, end + 1));
  }
  if (path.ends_with(".safetensors")) {
    return InvalidArgument(path + ": weights alone; give the directory that holds config.json too");
  }
  return OpenGgufCheckpoint(path);
}

}  // namespace muselet
