#include "node/config/config_schema.h"

#include "base/json.h"
#include "node/config/cluster_sections.h"
#include "node/config/option_table.h"

namespace muselet {
namespace {

Json Text(const char* pattern) {
  Json schema = {{"type", "string"}, {"minLength", 1}};
  if (*pattern != '\0') schema["pattern"] = pattern;
  return schema;
}

Json Bound(double value) {
  const auto whole = static_cast<int64_t>(value);
  return static_cast<double>(whole) == value ? Json(whole) : Json(value);
}

// A plain number in `scale` of the kept unit, or text with a unit.
Json Quantity(const FieldSpec& spec, const char* type, double scale, const char* pattern) {
  Json plain = {
      {"type", type}, {"minimum", Bound(spec.min / scale)}, {"maximum", Bound(spec.max / scale)}};
  return {{"anyOf", Json::array({std::move(plain), Text(pattern)})}};
}

Json List(const char* item_pattern) {
  return {{"type", "array"}, {"minItems", 1}, {"uniqueItems", true}, {"items", Text(item_pattern)}};
}

Json KindSchema(const FieldSpec& spec) {
  constexpr const char* kName = "^[A-Za-z0-9._-]{1,63}$";
  switch (spec.kind) {
    case ValueKind::kBool:
      return {{"type", "boolean"}};
    case ValueKind::kInteger:
    case ValueKind::kNumber:
      return {{"type", spec.kind == ValueKind::kInteger ? "integer" : "number"},
              {"minimum", Bound(spec.min)},
              {"maximum", Bound(spec.max)}};
    case ValueKind::kBytes:
      return Quantity(spec, "integer", 1, "^[0-9]+(\\.[0-9]+)? ?(B|[kMGT]B|[KMGT]iB)?$");
    case ValueKind::kDuration:
      return Quantity(spec, "number", 1000, "^[0-9]+(\\.[0-9]+)? ?(us|ms|s|m|h)?$");
    case ValueKind::kChoice:
      return {{"enum", spec.choices}};
    case ValueKind::kName:
      return Text(kName);
    case ValueKind::kModelId:
      return Text("^[A-Za-z0-9._/:-]{1,200}$");
    case ValueKind::kListen:
      return Text("^(\\[[0-9A-Fa-f:.]+\\]|[A-Za-z0-9._-]+):[0-9]{1,5}$");
    case ValueKind::kEndpoint:
      return Text("^(inproc://.+|tcp://(\\[[0-9A-Fa-f:.]+\\]|[A-Za-z0-9._-]+):[0-9]{1,5})$");
    case ValueKind::kNames:
      return List(kName);
    case ValueKind::kDevices:
      return List("^cpu(:[0-9]{1,4})?$");
    case ValueKind::kCounts:
      return {{"type", "array"},
              {"minItems", 1},
              {"items",
               {{"type", "integer"}, {"minimum", Bound(spec.min)}, {"maximum", Bound(spec.max)}}}};
    case ValueKind::kKey:
      return Text("^[0-9a-zA-Z.:+=^!/*?&<>()\\[\\]{}@%$#-]{40}$");
    case ValueKind::kText:
    case ValueKind::kPath:
    case ValueKind::kHost:
      return spec.may_be_empty ? Json{{"type", "string"}} : Text("");
  }
  return Json::object();
}

Json FieldSchema(const FieldSpec& spec, const std::string& default_text) {
  Json schema = KindSchema(spec);
  std::string description = spec.meaning;
  if (!default_text.empty()) description += " (default " + default_text + ")";
  schema["description"] = description;
  return schema;
}

Json Object() {
  return {{"type", "object"}, {"additionalProperties", false}, {"properties", Json::object()}};
}

template <typename Entry>
Json SectionSchema(const Section<Entry>& section) {
  Json entry = Object();
  Json required = Json::array();
  for (const Field<Entry>& field : section.fields) {
    const FieldSpec& spec = field.spec;
    std::string fallback = spec.default_text;
    if (fallback.empty() && !spec.required) fallback = FormatValue(spec, field.get(Entry()));
    entry["properties"][spec.key] = FieldSchema(spec, fallback);
    if (spec.required) required.push_back(spec.key);
  }
  if (!required.empty()) entry["required"] = required;
  std::string description = section.meaning;
  if (!section.when_missing.empty()) description += " (default: " + section.when_missing + ")";
  return {{"type", "array"}, {"minItems", 1}, {"description", description}, {"items", entry}};
}

// The object that holds the last part of `key`, made where it is missing.
Json& ObjectFor(Json& root, const std::string& key, std::string& last) {
  Json* object = &root;
  size_t begin = 0;
  for (size_t dot = key.find('.'); dot != std::string::npos; dot = key.find('.', begin)) {
    Json& next = (*object)["properties"][key.substr(begin, dot - begin)];
    if (next.is_null()) next = Object();
    object = &next;
    begin = dot + 1;
  }
  last = key.substr(begin);
  return *object;
}

}  // namespace

std::string ConfigSchema() {
  Json root = {{"$schema", "https://json-schema.org/draft/2020-12/schema"},
               {"title", "muselet cluster"},
               {"description", "One file describes the whole cluster."}};
  root.update(Object());
  root["required"] = {"models"};
  VisitSections(
      [&](const auto& section) { root["properties"][section.name] = SectionSchema(section); });
  const ClusterConfig defaults;
  for (const Option& option : OptionTable()) {
    const FieldSpec& spec = option.field.spec;
    std::string last;
    Json& object = ObjectFor(root, spec.key, last);
    object["properties"][last] = FieldSchema(spec, FormatValue(spec, option.field.get(defaults)));
  }
  return root.dump(2) + "\n";
}

}  // namespace muselet
