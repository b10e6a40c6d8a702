#include "node/model/file_fault.h"

#include <filesystem>
#include <system_error>

namespace muselet {
namespace {

constexpr size_t kPrintableMax = 80;

std::string Sentence(std::string_view path, std::string_view field, std::string_view problem) {
  return std::string(path) + ": " + Printable(field) + ": " + std::string(problem);
}

}  // namespace

std::string Printable(std::string_view name) {
  std::string text(name.substr(0, kPrintableMax));
  for (char& letter : text) {
    if (letter < ' ' || letter > '~') letter = '?';
  }
  if (name.size() > kPrintableMax) text += "...";
  return text;
}

bool IsPresent(const std::string& path) {
  std::error_code fault;
  return std::filesystem::symlink_status(path, fault).type() !=
         std::filesystem::file_type::not_found;
}

Status LyingFile(std::string_view path, std::string_view field, std::string_view problem) {
  return DataLoss(Sentence(path, field, problem));
}

Status BadField(std::string_view path, std::string_view field, std::string_view problem) {
  return InvalidArgument(Sentence(path, field, problem));
}

}  // namespace muselet
