#include "node/config/yaml_tree.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <sstream>
#include <utility>

namespace muselet {
namespace {

// Ends the walk through a document after its fault was recorded.
struct StopReading {};

class TreeBuilder final : public YAML::EventHandler {
 public:
  TreeBuilder(const std::string& file, const YamlLimits& limits, ConfigFaults& faults)
      : file_(file), limits_(limits), faults_(faults) {}

  bool has_root() const { return has_root_; }
  YamlNode& root() { return root_; }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (has_root_) Stop(mark, "a second document", "one file holds one cluster; remove the ---");
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    Attach(Make(YamlNode::Kind::kNull, mark, "", anchor));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    Add(mark, "aliases are not supported", "write the value out");
    Attach(Make(YamlNode::Kind::kFaulty, mark, "", 0));
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    YamlNode node = Make(YamlNode::Kind::kScalar, mark, tag, anchor);
    node.quoted = tag == "!";
    if (!node.quoted && (value == "~" || value == "null")) node.kind = YamlNode::Kind::kNull;
    node.text = value;
    Attach(std::move(node));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    Open(Make(YamlNode::Kind::kSequence, mark, tag, anchor), mark);
  }
  void OnSequenceEnd() override { Close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    Open(Make(YamlNode::Kind::kMap, mark, tag, anchor), mark);
  }
  void OnMapEnd() override { Close(); }

 private:
  struct Frame {
    YamlNode node;
    bool key_read = false;  // a map's key waits for its value
    bool key_refused = false;
    YamlEntry entry;
  };

  void Add(const YAML::Mark& mark, std::string problem, std::string hint) {
    faults_.push_back({{ValueSource::Kind::kFile, file_, mark.line + 1, mark.column + 1},
                       Path(),
                       std::move(problem),
                       std::move(hint)});
  }
  [[noreturn]] void Stop(const YAML::Mark& mark, std::string problem, std::string hint) {
    Add(mark, std::move(problem), std::move(hint));
    throw StopReading();
  }

  std::string Path() const {
    std::string path;
    for (const Frame& frame : stack_) {
      if (frame.node.kind == YamlNode::Kind::kSequence) {
        path += "[" + std::to_string(frame.node.items.size()) + "]";
      } else if (frame.key_read) {
        path += (path.empty() ? "" : ".") + frame.entry.key;
      }
    }
    return path;
  }

  YamlNode Make(YamlNode::Kind kind, const YAML::Mark& mark, const std::string& tag,
                YAML::anchor_t anchor) {
    if (++nodes_ > limits_.nodes_max) {
      Stop(mark, "more than " + std::to_string(limits_.nodes_max) + " values", "");
    }
    YamlNode node;
    node.kind = kind;
    node.line = mark.line + 1;
    node.column = mark.column + 1;
    if (anchor != 0) Add(mark, "anchors are not supported", "write the value where it is used");
    if (!tag.empty() && tag != "?" && tag != "!") {
      Add(mark, "tags are not supported: " + tag, "remove the tag");
    }
    return node;
  }

  void Open(YamlNode node, const YAML::Mark& mark) {
    if (stack_.size() >= limits_.depth_max) {
      Stop(mark, "nested more than " + std::to_string(limits_.depth_max) + " deep", "");
    }
    stack_.push_back({});
    stack_.back().node = std::move(node);
  }

  void Close() {
    YamlNode node = std::move(stack_.back().node);
    stack_.pop_back();
    Attach(std::move(node));
  }

  void Attach(YamlNode node) {
    if (stack_.empty()) {
      root_ = std::move(node);
      has_root_ = true;
      return;
    }
    Frame& top = stack_.back();
    if (top.node.kind == YamlNode::Kind::kSequence) {
      top.node.items.push_back(std::move(node));
    } else if (!top.key_read) {
      ReadKey(top, node);
    } else {
      top.entry.value = std::move(node);
      if (top.entry.value.kind == YamlNode::Kind::kNull && top.entry.value.text.empty()) {
        // yaml-cpp finds an absent value where the next line begins.
        top.entry.value.line = top.entry.line;
        top.entry.value.column = top.entry.column;
      }
      if (!top.key_refused) top.node.entries.push_back(std::move(top.entry));
      top.entry = {};
      top.key_read = false;
    }
  }

  void ReadKey(Frame& frame, const YamlNode& node) {
    const YAML::Mark mark = MarkOf(node);
    frame.key_refused = true;
    if (node.kind == YamlNode::Kind::kNull || node.kind == YamlNode::Kind::kScalar) {
      const auto& entries = frame.node.entries;
      const auto first = std::find_if(entries.begin(), entries.end(), [&](const YamlEntry& entry) {
        return entry.key == node.text;
      });
      frame.entry.key = node.text;
      frame.entry.line = node.line;
      frame.entry.column = node.column;
      frame.key_read = true;
      frame.key_refused = first != entries.end();
      if (frame.key_refused) {
        Add(mark, "duplicate key",
            "first given at " + std::to_string(first->line) + ":" + std::to_string(first->column));
      }
      return;
    }
    Add(mark, "a key must be a word", "");
    frame.key_read = true;
  }

  static YAML::Mark MarkOf(const YamlNode& node) {
    YAML::Mark mark;
    mark.line = node.line - 1;
    mark.column = node.column - 1;
    return mark;
  }

  const std::string& file_;
  const YamlLimits& limits_;
  ConfigFaults& faults_;
  std::vector<Frame> stack_;
  YamlNode root_;
  bool has_root_ = false;
  size_t nodes_ = 0;
};

// yaml-cpp takes the byte 0x04 for the end of the text and does not mind other control characters.
bool RefuseControlCharacters(std::string_view text, const std::string& file, ConfigFaults& faults) {
  int line = 1;
  int column = 1;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte == 0x7F || (byte < 0x20 && c != '\t' && c != '\n' && c != '\r')) {
      faults.push_back({{ValueSource::Kind::kFile, file, line, column},
                        "",
                        "control character " + std::to_string(byte),
                        "is this a text file?"});
      return true;
    }
    column = c == '\n' ? 1 : column + 1;
    line += c == '\n' ? 1 : 0;
  }
  return false;
}

}  // namespace

std::string DescribeNode(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return "nothing";
    case YamlNode::Kind::kSequence:
      return "a list";
    case YamlNode::Kind::kMap:
      return "a map";
    case YamlNode::Kind::kScalar:
    case YamlNode::Kind::kFaulty:
      break;
  }
  constexpr size_t kShown = 60;
  if (node.text.size() <= kShown) return "\"" + node.text + "\"";
  return "\"" + node.text.substr(0, kShown) + "...\"";
}

std::optional<YamlNode> ParseYaml(std::string_view text, const std::string& file,
                                  const YamlLimits& limits, ConfigFaults& faults) {
  if (text.size() > limits.bytes_max) {
    faults.push_back({{ValueSource::Kind::kFile, file, 0, 0},
                      "",
                      "larger than " + std::to_string(limits.bytes_max) + " bytes",
                      "is this the right file?"});
    return std::nullopt;
  }
  if (RefuseControlCharacters(text, file, faults)) return std::nullopt;
  TreeBuilder builder(file, limits, faults);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const StopReading&) {
    return std::nullopt;
  } catch (const YAML::Exception& fault) {
    faults.push_back({{ValueSource::Kind::kFile, file, fault.mark.line + 1, fault.mark.column + 1},
                      "",
                      "not YAML: " + fault.msg,
                      ""});
    return std::nullopt;
  }
  if (!builder.has_root() || builder.root().kind == YamlNode::Kind::kNull) {
    YamlNode empty;
    empty.kind = YamlNode::Kind::kMap;
    empty.line = empty.column = 1;
    return empty;
  }
  return std::move(builder.root());
}

}  // namespace muselet
