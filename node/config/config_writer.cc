#include "node/config/config_writer.h"

#include <filesystem>
#include <map>
#include <string_view>
#include <utility>

#include "base/json.h"
#include "node/config/cluster_sections.h"
#include "node/config/field.h"
#include "node/config/option_table.h"

namespace muselet {
namespace {

// A value as YAML: lists as they are, numbers and words bare, free text as a JSON string.
std::string YamlText(const FieldSpec& spec, const FieldValue& value) {
  const std::string text = FormatValue(spec, value);
  switch (spec.kind) {
    case ValueKind::kBool:
    case ValueKind::kInteger:
    case ValueKind::kNumber:
    case ValueKind::kBytes:
    case ValueKind::kDuration:
    case ValueKind::kChoice:
      return text;
    case ValueKind::kPath:
      return WriteJson(Json(std::filesystem::absolute(text).string()));
    default:
      // A list formats itself.
      return std::holds_alternative<std::string>(value) ? WriteJson(Json(text)) : text;
  }
}

template <typename Entry>
void WriteSection(const Section<Entry>& section, const ClusterConfig& config, std::string& yaml) {
  const std::vector<Entry>& entries = config.*section.entries;
  if (entries.empty()) return;
  const Entry defaults;
  yaml += section.name + ":\n";
  for (const Entry& entry : entries) {
    std::string fields;
    for (const Field<Entry>& field : section.fields) {
      const FieldValue value = field.get(entry);
      if (value == field.get(defaults)) continue;
      fields += (fields.empty() ? "  - " : "    ") + field.spec.key + ": " +
                YamlText(field.spec, value) + "\n";
    }
    yaml += fields.empty() ? "  - {}\n" : fields;
  }
}

// Options by the parts of their keys, so that each group stands once.
struct OptionGroup {
  std::map<std::string, std::string> values;
  std::map<std::string, OptionGroup> groups;

  void Set(std::string_view key, std::string text) {
    const size_t dot = key.find('.');
    if (dot == std::string_view::npos) {
      values[std::string(key)] = std::move(text);
    } else {
      groups[std::string(key.substr(0, dot))].Set(key.substr(dot + 1), std::move(text));
    }
  }
  void Write(const std::string& indent, std::string& yaml) const {
    for (const auto& [key, text] : values) yaml += indent + key + ": " + text + "\n";
    for (const auto& [key, group] : groups) {
      yaml += indent + key + ":\n";
      group.Write(indent + "  ", yaml);
    }
  }
};

}  // namespace

std::string WriteConfig(const ClusterConfig& config) {
  std::string yaml;
  VisitSections([&](const auto& section) { WriteSection(section, config, yaml); });
  const ClusterConfig defaults;
  OptionGroup options;
  for (const Option& option : OptionTable()) {
    const FieldValue value = option.field.get(config);
    if (value == option.field.get(defaults)) continue;
    options.Set(option.key(), YamlText(option.field.spec, value));
  }
  options.Write("", yaml);
  return yaml;
}

}  // namespace muselet
