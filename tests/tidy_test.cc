// The style of CONTRIBUTING.md as an ordinary test: what can be checked by reading the sources is
// checked here.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace muselet {
namespace {

namespace fs = std::filesystem;

constexpr size_t kColumnsMax = 100;
constexpr size_t kFileLinesMax = 500;
constexpr size_t kFunctionLinesMax = 70;
constexpr double kHeaderCommentShareMin = 0.12;

// Functions that may be longer, each with its reason.
const std::map<std::string, std::string> kLongFunctions = {
    {"tests/node/gateway/openai_request_test.cc:TEST(OpenAiRequestTest, NamesTheFieldAtFault) {",
     "a table of cases"},
};

struct SourceFile {
  std::string path;  // from the repository root
  std::vector<std::string> lines;
};

bool HasSuffix(const std::string& text, const std::string& suffix) {
  return text.size() >= suffix.size() &&
         text.compare(text.size() - suffix.size(), suffix.size(), suffix) == 0;
}

bool IsHeader(const std::string& path) {
  return HasSuffix(path, ".h") || HasSuffix(path, ".cuh");
}

bool IsCpp(const std::string& path) {
  return IsHeader(path) || HasSuffix(path, ".cc") || HasSuffix(path, ".cu");
}

std::vector<SourceFile> Sources() {
  std::vector<SourceFile> files;
  for (const char* folder :
       {"base", "monitoring", "comms", "cuda", "scheduler", "node", "deploy", "tests"}) {
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
      const std::string path = entry.path().generic_string();
      const bool source = IsCpp(path) || HasSuffix(path, ".py") || HasSuffix(path, ".sh") ||
                          HasSuffix(path, ".proto") || entry.path().filename() == "CMakeLists.txt";
      if (!entry.is_regular_file() || !source) continue;
      SourceFile file{path, {}};
      std::ifstream in(entry.path());
      for (std::string line; std::getline(in, line);) file.lines.push_back(line);
      files.push_back(std::move(file));
    }
  }
  return files;
}

const std::vector<SourceFile>& AllSources() {
  static const std::vector<SourceFile> files = Sources();
  return files;
}

std::string Place(const SourceFile& file, size_t index) {
  return file.path + ":" + std::to_string(index + 1);
}

// `#include "a/b.h"` gives a/b.h, any other line gives "".
std::string IncludedPath(const std::string& line) {
  const std::string prefix = "#include \"";
  if (line.rfind(prefix, 0) != 0) return "";
  const size_t end = line.find('"', prefix.size());
  return line.substr(prefix.size(), end - prefix.size());
}

bool IsComment(const std::string& line) {
  const size_t start = line.find_first_not_of(' ');
  return start != std::string::npos && line.compare(start, 2, "//") == 0;
}

TEST(Style, LinesFitIntoTheColumns) {
  for (const SourceFile& file : AllSources()) {
    for (size_t i = 0; i < file.lines.size(); ++i) {
      // A long string (a URL, a message of generated text) cannot always be cut.
      if (file.lines[i].find("://") != std::string::npos) continue;
      size_t columns = 0;
      for (const char c : file.lines[i]) columns += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
      const size_t limit = IsCpp(file.path) ? kColumnsMax : kColumnsMax + 20;
      EXPECT_LE(columns, limit) << Place(file, i);
    }
  }
}

TEST(Style, FilesAreShort) {
  for (const SourceFile& file : AllSources()) {
    EXPECT_LE(file.lines.size(), kFileLinesMax) << file.path;
  }
}

// Counts lines from an opening brace at the end of a line to the closing brace at the same
// indentation, which is exact for sources that clang-format laid out.
TEST(Style, FunctionsAreShort) {
  for (const SourceFile& file : AllSources()) {
    if (!IsCpp(file.path)) continue;
    for (size_t i = 0; i < file.lines.size(); ++i) {
      const std::string& line = file.lines[i];
      const size_t indent = line.find_first_not_of(' ');
      const bool opens = !line.empty() && line.back() == '{' && indent <= 2 && !IsComment(line);
      const bool function = line.find(") {") != std::string::npos ||
                            line.find(") const {") != std::string::npos ||
                            line.find("override {") != std::string::npos;
      if (!opens || !function) continue;
      const std::string close = std::string(indent, ' ') + "}";
      size_t end = i + 1;
      while (end < file.lines.size() && file.lines[end].rfind(close, 0) != 0) ++end;
      if (kLongFunctions.count(file.path + ":" + line) > 0) continue;
      EXPECT_LE(end - i, kFunctionLinesMax) << Place(file, i) << ": " << line;
    }
  }
}

const std::map<std::string, std::set<std::string>>& AllowedIncludes() {
  static const std::map<std::string, std::set<std::string>> allowed = {
      {"base", {"base"}},
      {"monitoring", {"base", "monitoring"}},
      {"comms", {"base", "monitoring", "comms"}},
      {"cuda", {"base", "comms", "cuda"}},
      {"scheduler/batch", {"base", "scheduler"}},
      {"scheduler/route", {"base", "scheduler"}},
      {"scheduler/sim", {"base", "scheduler"}},
      {"scheduler", {"base", "monitoring", "comms", "scheduler"}},
      {"node", {"base", "monitoring", "comms", "scheduler", "node"}},
  };
  return allowed;
}

std::string FolderOf(const std::string& path) {
  const size_t first = path.find('/');
  const std::string top = path.substr(0, first);
  const std::string two = path.substr(0, path.find('/', first + 1));
  return AllowedIncludes().count(two) > 0 ? two : top;
}

TEST(Style, FoldersIncludeInOneDirection) {
  for (const SourceFile& file : AllSources()) {
    const auto allowed = AllowedIncludes().find(FolderOf(file.path));
    if (allowed == AllowedIncludes().end()) continue;
    for (size_t i = 0; i < file.lines.size(); ++i) {
      const std::string included = IncludedPath(file.lines[i]);
      if (included.find('/') == std::string::npos) continue;
      const std::string top = included.substr(0, included.find('/'));
      EXPECT_TRUE(allowed->second.count(top) > 0) << Place(file, i) << ": " << included;
      const bool core = allowed->first.rfind("scheduler/", 0) == 0;
      const bool service = included.rfind("scheduler/", 0) == 0 &&
                           std::count(included.begin(), included.end(), '/') == 1;
      EXPECT_FALSE(core && service) << Place(file, i) << ": a core includes the service";
    }
  }
}

TEST(Style, HeadersOpenWithTheirContract) {
  for (const SourceFile& file : AllSources()) {
    if (!IsHeader(file.path)) continue;
    ASSERT_FALSE(file.lines.empty()) << file.path;
    EXPECT_TRUE(IsComment(file.lines[0])) << file.path << " says nothing about what it is for";
    EXPECT_NE(std::find(file.lines.begin(), file.lines.end(), "#pragma once"), file.lines.end())
        << file.path;
    if (file.path.rfind("tests/", 0) == 0) continue;
    double comment = 0;
    double code = 0;
    for (const std::string& line : file.lines) {
      if (line.find("//") != std::string::npos) {
        ++comment;
      } else if (!line.empty() && line[0] != '#') {
        ++code;
      }
    }
    EXPECT_GE(comment / (comment + code), kHeaderCommentShareMin) << file.path;
  }
}

TEST(Style, EveryHeaderIsIncludedSomewhere) {
  std::set<std::string> included;
  for (const SourceFile& file : AllSources()) {
    for (const std::string& line : file.lines) included.insert(IncludedPath(line));
  }
  for (const SourceFile& file : AllSources()) {
    // What stands in for a library's header is included by the library's.
    if (!IsHeader(file.path) || file.path.find("/gloo_headers/") != std::string::npos) continue;
    EXPECT_TRUE(included.count(file.path) > 0) << file.path;
  }
}

struct Banned {
  std::string text;
  std::string allowed_in;  // a path prefix
  std::string instead;
};

// Built from pieces, so that this file does not match itself.
const std::vector<Banned>& BannedTexts() {
  static const std::vector<Banned> banned = {
      {std::string("get") + "env(", "node/config/", "options come from the option table"},
      {std::string("TO") + "DO", "", "finish it, or say it in ROADMAP.md"},
      {std::string("FIX") + "ME", "", "mend it, or say it in ROADMAP.md"},
      {std::string("XX") + "X:", "", "mend it, or say it in ROADMAP.md"},
      {std::string("std::re") + "gex", "", "it recurses for each character"},
      {std::string("#include <cass") + "ert>", "", "CHECK is always on"},
      {std::string("sleep_") + "for", "", "wait for the event, or drive a ManualClock"},
      {std::string("using namesp") + "ace std", "", "name what you use"},
  };
  return banned;
}

// Named exceptions to the list above.
bool MayUse(const std::string& path, const Banned& banned) {
  if (!banned.allowed_in.empty() && path.rfind(banned.allowed_in, 0) == 0) return true;
  return path == "tests/support/fixtures.cc" &&
         banned.instead.find("option table") != std::string::npos;
}

TEST(Style, NothingIsUsedThatTheHouseDoesWithout) {
  for (const SourceFile& file : AllSources()) {
    for (size_t i = 0; i < file.lines.size(); ++i) {
      for (const Banned& banned : BannedTexts()) {
        if (MayUse(file.path, banned)) continue;
        EXPECT_EQ(file.lines[i].find(banned.text), std::string::npos)
            << Place(file, i) << ": " << banned.text << ": " << banned.instead;
      }
    }
  }
}

TEST(Style, FileNamesSayWhatIsInThem) {
  constexpr std::array<const char*, 6> kEmptyWords = {"util",   "helper", "manager",
                                                      "common", "misc",   "stuff"};
  for (const SourceFile& file : AllSources()) {
    const std::string name = fs::path(file.path).filename().string();
    for (const char* word : kEmptyWords) {
      EXPECT_EQ(name.find(word), std::string::npos) << file.path;
    }
  }
}

}  // namespace
}  // namespace muselet
