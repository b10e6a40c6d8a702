// YAML text as a plain tree with the place of every node. A deliberately small YAML: one document,
// no anchors, aliases, tags or merge keys, string keys only, each once. Bounded in size and depth.
// yaml-cpp and its exceptions stay behind this file.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "node/config/config_fault.h"

namespace muselet {

struct YamlEntry;

struct YamlNode {
  enum class Kind {
    kNull,      // nothing, or ~ or null
    kScalar,    // `text`
    kSequence,  // `items`
    kMap,       // `entries`, in the order of the file
    kFaulty,    // was refused and reported; readers pass over it
  };
  Kind kind = Kind::kNull;
  std::string text;
  bool quoted = false;  // "8" in quotes is text, not a number
  int line = 0;         // from 1
  int column = 0;
  std::vector<YamlNode> items;
  std::vector<YamlEntry> entries;
};

struct YamlEntry {
  std::string key;
  int line = 0;  // of the key
  int column = 0;
  YamlNode value;
};

struct YamlLimits {
  size_t bytes_max = 1 << 20;
  size_t depth_max = 16;
  size_t nodes_max = 100'000;
};

// What a node is, in words: "a list", "nothing", "\"8k\"".
std::string DescribeNode(const YamlNode& node);

// The document in `text`; an empty one is an empty map. Faults are appended to `faults`, with
// `file` as the name. Nothing if the text cannot be read to its end.
std::optional<YamlNode> ParseYaml(std::string_view text, const std::string& file,
                                  const YamlLimits& limits, ConfigFaults& faults);

}  // namespace muselet
