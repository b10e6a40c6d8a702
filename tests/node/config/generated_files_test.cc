#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "base/json.h"
#include "base/mapped_file.h"
#include "node/config/config_loader.h"
#include "node/config/config_reference.h"
#include "node/config/config_schema.h"
#include "node/config/option_table.h"

namespace muselet {
namespace {

std::string Committed(const std::string& path) {
  const Result<std::string> text = ReadFile(path, 1 << 20);
  return text.ok() ? *text : text.status().message();
}

TEST(GeneratedFiles, SchemaIsWhatTheTableSays) {
  EXPECT_EQ(Committed("deploy/config/schema.json"), ConfigSchema())
      << "run: muselet config schema > deploy/config/schema.json";
}

TEST(GeneratedFiles, ReferencePageIsWhatTheTableSays) {
  EXPECT_EQ(Committed("deploy/config/README.md"), ConfigReference())
      << "run: muselet config reference > deploy/config/README.md";
}

TEST(GeneratedFiles, SamplesLoadAndNameTheSchema) {
  size_t samples = 0;
  for (const auto& file : std::filesystem::directory_iterator("deploy/config")) {
    if (file.path().extension() != ".yaml") continue;
    const std::string path = file.path().string();
    ++samples;
    EXPECT_EQ(Committed(path).rfind("# yaml-language-server: $schema=schema.json\n", 0), 0U);
    ConfigRequest request;
    request.file = path;
    request.file_check = ConfigRequest::FileCheck::kNone;
    EXPECT_EQ(FormatFaults(LoadConfig(request).faults), "") << path;
  }
  EXPECT_GE(samples, 6U);
}

TEST(OptionTable, NamesAreUniqueAndDefaultsAreLegal) {
  std::set<std::string> flags;
  std::set<std::string> variables;
  const ClusterConfig defaults;
  for (const Option& option : OptionTable()) {
    const FieldSpec& spec = option.field.spec;
    EXPECT_TRUE(flags.insert(option.flag()).second) << option.key();
    EXPECT_TRUE(variables.insert(option.variable()).second) << option.key();
    EXPECT_FALSE(spec.meaning.empty() || spec.meaning.ends_with('.')) << option.key();
    YamlNode node;
    node.kind = YamlNode::Kind::kScalar;
    node.text = FormatValue(spec, option.field.get(defaults));
    const auto parsed = ParseValue(spec, node);
    ASSERT_TRUE(std::holds_alternative<FieldValue>(parsed)) << option.key() << ": " << node.text;
    EXPECT_EQ(std::get<FieldValue>(parsed), option.field.get(defaults)) << option.key();
  }
}

// A row whose accessor was copied from its neighbour would set the neighbour's field.
TEST(OptionTable, EachRowSetsItsOwnFieldAndNoOther) {
  for (const Option& option : OptionTable()) {
    const FieldSpec& spec = option.field.spec;
    ClusterConfig config;
    const FieldValue before = option.field.get(config);
    FieldValue other = before;
    if (auto* flag = std::get_if<bool>(&other)) {
      *flag = !*flag;
    } else if (auto* number = std::get_if<int64_t>(&other)) {
      *number = spec.kind == ValueKind::kChoice ? (*number + 1) % 2 : *number + 1000;
    } else if (auto* real = std::get_if<double>(&other)) {
      *real += 1.5;
    } else {
      other = std::string("other");
    }
    option.field.set(config, other);
    const ClusterConfig defaults;
    for (const Option& each : OptionTable()) {
      const bool same = each.field.get(config) == each.field.get(defaults);
      EXPECT_EQ(same, each.key() != option.key()) << option.key() << " and " << each.key();
    }
  }
}

TEST(OptionTable, FlagsAndVariablesFollowFromTheKey) {
  EXPECT_EQ(FlagOf("gateway.http.body_bytes_max"), "--gateway-http-body-bytes-max");
  EXPECT_EQ(VariableOf("gateway.http.body_bytes_max"), "MUSELET_GATEWAY_HTTP_BODY_BYTES_MAX");
}

}  // namespace
}  // namespace muselet
