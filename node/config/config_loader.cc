#include "node/config/config_loader.h"

#include <algorithm>
#include <filesystem>

#include "base/mapped_file.h"
#include "node/config/cluster_checks.h"
#include "node/config/cluster_sections.h"
#include "node/config/environment.h"
#include "node/config/machine_checks.h"
#include "node/config/option_table.h"
#include "node/config/suggestion.h"
#include "node/config/value_ledger.h"
#include "node/config/yaml_tree.h"

namespace muselet {
namespace {

constexpr const char* kModelShortcut = "model";

// `path` as seen from the directory of the file that names it.
std::string ResolvePath(const std::string& path, const std::string& file) {
  const std::filesystem::path target(path);
  if (target.is_absolute() || path.empty()) return path;
  const std::filesystem::path directory = std::filesystem::path(file).parent_path();
  return (directory / target).lexically_normal().string();
}

std::string ModelIdOf(const std::string& path) {
  std::filesystem::path target(path);
  if (!target.has_filename()) target = target.parent_path();
  const std::string id =
      target.extension() == ".gguf" ? target.stem().string() : target.filename().string();
  return id.empty() || id == "." || id == ".." ? "default" : id;
}

class Loader {
 public:
  explicit Loader(const ConfigRequest& request) : request_(request), ledger_(request.file) {}

  ConfigOutcome Run() {
    if (!request_.file.empty()) ReadConfigFile();
    ReadVariables();
    ReadFlags();
    ApplyShortcuts();
    FillIn();
    CheckCluster(config_, request_, ledger_);
    CheckMachine(config_, request_, ledger_);
    ConfigOutcome outcome;
    outcome.warnings = std::move(warnings_);
    outcome.faults = ledger_.TakeFaults();
    if (outcome.faults.empty()) outcome.loaded = LoadedConfig{config_, EffectiveValues()};
    return outcome;
  }

 private:
  ValueSource At(int line, int column) const {
    return {ValueSource::Kind::kFile, request_.file, line, column};
  }
  ValueSource At(const YamlNode& node) const { return At(node.line, node.column); }
  void Refuse(ValueSource source, const std::string& path, std::string problem, std::string hint) {
    ledger_.Refuse(std::move(source), path, std::move(problem), std::move(hint));
  }

  void ReadConfigFile() {
    constexpr YamlLimits kLimits;
    const Result<std::string> text = ReadFile(request_.file, kLimits.bytes_max);
    if (!text.ok()) {
      // The Status names the path already.
      Refuse({ValueSource::Kind::kFile, "", 0, 0}, "", text.status().message(),
             "--config takes the path of a YAML file");
      return;
    }
    ConfigFaults faults;
    const std::optional<YamlNode> root = ParseYaml(*text, request_.file, kLimits, faults);
    for (const ConfigFault& fault : faults) {
      Refuse(fault.source, fault.key, fault.problem, fault.hint);
    }
    if (!root) return ledger_.Doubt("");
    if (root->kind != YamlNode::Kind::kMap) {
      Refuse(At(*root), "", "expected keys and values, found " + DescribeNode(*root), "");
      return;
    }
    VisitSections([&](const auto& section) { sections_.push_back(section.name); });
    for (const YamlEntry& entry : root->entries) {
      bool taken = false;
      VisitSections([&](const auto& section) {
        if (section.name != entry.key) return;
        taken = true;
        ReadSection(section, entry.value);
      });
      if (!taken) ReadOption(entry, "");
    }
  }

  template <typename Entry>
  void ReadSection(const Section<Entry>& section, const YamlNode& node) {
    if (node.kind == YamlNode::Kind::kFaulty) return;
    if (node.kind != YamlNode::Kind::kSequence) {
      Refuse(At(node), section.name, "expected a list, found " + DescribeNode(node),
             "write each entry as - {key: value, ...}");
      return;
    }
    ledger_.Give(section.name, At(node));
    if (node.items.empty())
      Refuse(At(node), section.name, "the list is empty", "leave the key out");
    std::vector<Entry>& entries = config_.*section.entries;
    for (const YamlNode& item : node.items) {
      const std::string path = section.name + "[" + std::to_string(entries.size()) + "]";
      ledger_.Give(path, At(item));
      entries.emplace_back();
      if (item.kind == YamlNode::Kind::kMap) {
        ReadEntry(section, item, path, entries.back());
      } else if (item.kind != YamlNode::Kind::kFaulty) {
        Refuse(At(item), path, "expected keys and values, found " + DescribeNode(item),
               "write - {" + section.fields.front().spec.key + ": ...}");
      }
    }
  }

  template <typename Entry>
  void ReadEntry(const Section<Entry>& section, const YamlNode& item, const std::string& path,
                 Entry& target) {
    std::vector<std::string> known;
    for (const Field<Entry>& field : section.fields) known.push_back(field.spec.key);
    for (const YamlEntry& entry : item.entries) {
      const auto field =
          std::find_if(section.fields.begin(), section.fields.end(),
                       [&](const Field<Entry>& f) { return f.spec.key == entry.key; });
      if (field == section.fields.end()) {
        UnknownKey(entry, path + ".", known);
      } else {
        SetFromFile(*field, entry, path + "." + entry.key, target);
      }
    }
    for (const Field<Entry>& field : section.fields) {
      const auto given = std::any_of(item.entries.begin(), item.entries.end(),
                                     [&](const YamlEntry& e) { return e.key == field.spec.key; });
      if (!field.spec.required || given) continue;
      Refuse(At(item), path + "." + field.spec.key, "missing", field.spec.meaning);
    }
  }

  template <typename Target>
  void SetFromFile(const Field<Target>& field, const YamlEntry& entry, const std::string& path,
                   Target& target) {
    if (entry.value.kind == YamlNode::Kind::kFaulty) return;
    auto parsed = ParseValue(field.spec, entry.value);
    if (const auto* fault = std::get_if<ValueFault>(&parsed)) {
      Refuse(At(entry.value), path, fault->problem, fault->hint);
      return;
    }
    FieldValue& value = std::get<FieldValue>(parsed);
    if (field.spec.kind == ValueKind::kPath) {
      value = ResolvePath(std::get<std::string>(value), request_.file);
    }
    field.set(target, value);
    ledger_.Give(path, At(entry.value));
  }

  // `prefix` with its dot, or "" at the top.
  void UnknownKey(const YamlEntry& entry, const std::string& prefix,
                  const std::vector<std::string>& known) {
    const std::string nearest = NearestWord(entry.key, known);
    if (!nearest.empty()) ledger_.Doubt(prefix + nearest);
    std::string listed;
    for (const std::string& key : known) listed += (listed.empty() ? "" : ", ") + key;
    constexpr size_t kListedMax = 10;
    Refuse(At(entry.line, entry.column), prefix + entry.key, "unknown key",
           DidYouMean(entry.key, known, known.size() > kListedMax ? "" : "known here: " + listed));
  }

  // An option, or a group of options, below `prefix` ("" or "gateway.http.").
  void ReadOption(const YamlEntry& entry, const std::string& prefix) {
    const std::string path = prefix + entry.key;
    std::vector<std::string> siblings;
    if (prefix.empty()) siblings = sections_;
    bool is_group = false;
    for (const Option& option : OptionTable()) {
      if (option.key() == path) {
        SetFromFile(option.field, entry, path, config_);
        return;
      }
      is_group = is_group || option.key().rfind(path + ".", 0) == 0;
      if (option.key().rfind(prefix, 0) == 0) AddSibling(option.key(), prefix, siblings);
    }
    if (!is_group) {
      UnknownOption(entry, prefix, siblings);
    } else if (entry.value.kind == YamlNode::Kind::kMap) {
      for (const YamlEntry& inner : entry.value.entries) ReadOption(inner, path + ".");
    } else if (entry.value.kind != YamlNode::Kind::kFaulty) {
      Refuse(At(entry.value), path, "expected keys and values, found " + DescribeNode(entry.value),
             "");
    }
  }

  static void AddSibling(const std::string& key, const std::string& prefix,
                         std::vector<std::string>& siblings) {
    const std::string part =
        key.substr(prefix.size(), key.find('.', prefix.size()) - prefix.size());
    if (std::find(siblings.begin(), siblings.end(), part) == siblings.end()) {
      siblings.push_back(part);
    }
  }

  // The key may be right but stand in the wrong place.
  void UnknownOption(const YamlEntry& entry, const std::string& prefix,
                     const std::vector<std::string>& siblings) {
    if (NearestWord(entry.key, siblings).empty()) {
      for (const Option& option : OptionTable()) {
        const std::string& key = option.key();
        const bool same_end =
            key == entry.key || (key.size() > entry.key.size() && key.ends_with("." + entry.key));
        if (!same_end) continue;
        ledger_.Doubt(key);
        Refuse(At(entry.line, entry.column), prefix + entry.key, "unknown key",
               "did you mean " + key + "?");
        return;
      }
    }
    UnknownKey(entry, prefix, siblings);
  }

  void ReadVariables() {
    std::vector<std::string> known = {kConfigVariable, kApiKeyVariable};
    for (const Option& option : OptionTable()) {
      known.push_back(option.variable());
      const auto found = request_.environment.find(option.variable());
      if (found == request_.environment.end()) continue;
      SetFromText(option, found->second,
                  {ValueSource::Kind::kEnvironment, option.variable(), 0, 0});
    }
    for (const FieldSpec& spec : ShortcutTable()) {
      const std::string variable = VariableOf(spec.key);
      known.push_back(variable);
      const auto found = request_.environment.find(variable);
      if (found == request_.environment.end()) continue;
      SetShortcut(spec, found->second, {ValueSource::Kind::kEnvironment, variable, 0, 0});
    }
    for (const auto& [variable, text] : request_.environment) {
      if (std::find(known.begin(), known.end(), variable) != known.end()) continue;
      const std::string nearest = NearestWord(variable, known);
      // Kubernetes sets MUSELET_SERVICE_HOST and the like for a service called muselet.
      if (nearest.empty()) continue;
      warnings_.push_back(variable + " is not used: did you mean " + nearest + "?");
    }
  }

  void ReadFlags() {
    for (const auto& [key, text] : request_.flags) {
      // The model is not a flag: it stands by itself on the command line.
      const std::string name = key == kModelShortcut ? "PATH" : FlagOf(key);
      const ValueSource source{ValueSource::Kind::kFlag, name, 0, 0};
      for (const Option& option : OptionTable()) {
        if (option.key() == key) SetFromText(option, text, source);
      }
      for (const FieldSpec& spec : ShortcutTable()) {
        if (spec.key == key) SetShortcut(spec, text, source);
      }
    }
  }

  static YamlNode TextNode(const std::string& text) {
    YamlNode node;
    node.kind = YamlNode::Kind::kScalar;
    node.text = text;
    return node;
  }

  void SetFromText(const Option& option, const std::string& text, const ValueSource& source) {
    const auto parsed = ParseValue(option.field.spec, TextNode(text));
    if (const auto* fault = std::get_if<ValueFault>(&parsed)) {
      Refuse(source, option.key(), fault->problem, fault->hint);
      return;
    }
    option.field.set(config_, std::get<FieldValue>(parsed));
    ledger_.Give(option.key(), source);
  }

  void SetShortcut(const FieldSpec& spec, const std::string& text, const ValueSource& source) {
    const auto parsed = ParseValue(spec, TextNode(text));
    if (const auto* fault = std::get_if<ValueFault>(&parsed)) {
      const std::string path = spec.key == "http"           ? "gateways[0].http"
                               : spec.key == kModelShortcut ? "models"
                                                            : "surfaces";
      Refuse(source, path, fault->problem, fault->hint);
      return;
    }
    shortcuts_[spec.key] = {text, source};
  }

  void ApplyShortcuts() {
    if (const auto model = shortcuts_.find(kModelShortcut); model != shortcuts_.end()) {
      const auto& [path, source] = model->second;
      if (!config_.models.empty()) {
        Refuse(source, "models", "the file " + request_.file + " names models already",
               "give either a config file or a model");
      } else {
        config_.models.push_back({ModelIdOf(path), path});
        ledger_.Give("models[0]", source);
        ledger_.Give("models[0].path", source);
      }
    }
    if (const auto http = shortcuts_.find("http"); http != shortcuts_.end()) {
      const auto& [address, source] = http->second;
      if (config_.gateways.empty()) config_.gateways.emplace_back();
      config_.gateways.front().http = address;
      ledger_.Give("gateways[0].http", source);
    }
    if (const auto keys = shortcuts_.find("key_file"); keys != shortcuts_.end()) {
      const auto& [path, source] = keys->second;
      if (config_.surfaces.empty()) config_.surfaces.emplace_back().name = SurfaceOptions().name;
      if (config_.surfaces.size() > 1) {
        Refuse(source, "surfaces", "the file " + request_.file + " names several surfaces",
               "give each of them its key_file there");
      }
      config_.surfaces.front().key_file = path;
      ledger_.Give("surfaces[0].key_file", source);
    }
  }

  void FillIn() {
    for (ModelEntry& model : config_.models) {
      if (model.id.empty()) model.id = ModelIdOf(model.path);
    }
    FillInCluster(config_);
  }

  std::vector<EffectiveValue> EffectiveValues() const {
    std::vector<EffectiveValue> values;
    VisitSections([&](const auto& section) {
      size_t index = 0;
      for (const auto& entry : config_.*section.entries) {
        const std::string path = section.name + "[" + std::to_string(index++) + "].";
        for (const auto& field : section.fields) {
          const std::string key = path + field.spec.key;
          values.push_back({key, FormatValue(field.spec, field.get(entry)), ledger_.SourceOf(key)});
        }
      }
    });
    for (const Option& option : OptionTable()) {
      const FieldSpec& spec = option.field.spec;
      values.push_back(
          {spec.key, FormatValue(spec, option.field.get(config_)), ledger_.SourceOf(spec.key)});
    }
    return values;
  }

  const ConfigRequest& request_;
  ClusterConfig config_;
  ValueLedger ledger_;
  std::vector<std::string> warnings_;
  std::vector<std::string> sections_;
  std::map<std::string, std::pair<std::string, ValueSource>> shortcuts_;
};

}  // namespace

const std::vector<FieldSpec>& ShortcutTable() {
  static const std::vector<FieldSpec> table = {
      {"http", ValueKind::kListen, "Address of the HTTP API, that of the first gateway"},
      {kModelShortcut, ValueKind::kPath,
       "GGUF file or Hugging Face directory to serve without a file"},
      {"key_file", ValueKind::kPath, "File with the API keys of the only surface, one a line"},
  };
  return table;
}

ConfigOutcome LoadConfig(const ConfigRequest& request) {
  return Loader(request).Run();
}

}  // namespace muselet
