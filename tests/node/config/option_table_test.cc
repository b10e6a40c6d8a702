#include "node/config/option_table.h"

#include <gtest/gtest.h>

#include "node/cpu/isa.h"

namespace muselet {
namespace {

bool IsNumeric(const FieldSpec& spec) {
  return spec.kind == ValueKind::kInteger || spec.kind == ValueKind::kNumber ||
         spec.kind == ValueKind::kBytes || spec.kind == ValueKind::kDuration;
}

// The unit of plain numbers in `spec` is that of its bounds, milliseconds excepted.
std::string Text(const FieldSpec& spec, double bound) {
  return std::to_string(static_cast<int64_t>(bound)) +
         (spec.kind == ValueKind::kDuration ? "us" : "");
}

std::variant<FieldValue, ValueFault> Parse(const FieldSpec& spec, const std::string& text) {
  YamlNode node;
  node.kind = YamlNode::Kind::kScalar;
  node.text = text;
  return ParseValue(spec, node);
}

TEST(OptionTable, EveryNumberHasARangeThatItsPlaceCanHold) {
  for (const Option& option : OptionTable()) {
    const FieldSpec& spec = option.field.spec;
    if (!IsNumeric(spec)) continue;
    ASSERT_LT(spec.min, spec.max) << spec.key;
    EXPECT_GE(spec.min, 0) << spec.key;
    ClusterConfig config;
    for (const double bound : {spec.min, spec.max}) {
      const auto parsed = Parse(spec, Text(spec, bound));
      ASSERT_TRUE(std::holds_alternative<FieldValue>(parsed)) << spec.key << " " << bound;
      option.field.set(config, std::get<FieldValue>(parsed));
      EXPECT_EQ(option.field.get(config), std::get<FieldValue>(parsed)) << spec.key;
    }
    const ClusterConfig defaults;
    const FieldValue value = option.field.get(defaults);
    const double number = spec.kind == ValueKind::kNumber
                              ? std::get<double>(value)
                              : static_cast<double>(std::get<int64_t>(value));
    EXPECT_GE(number, spec.min) << spec.key;
    EXPECT_LE(number, spec.max) << spec.key;
  }
}

TEST(OptionTable, EveryNumberRefusesWhatIsOutsideItsRange) {
  for (const Option& option : OptionTable()) {
    const FieldSpec& spec = option.field.spec;
    if (!IsNumeric(spec)) continue;
    std::vector<std::string> outside = {"-1",
                                        "-9223372036854775808",
                                        Text(spec, spec.max + 1),
                                        "9223372036854775808",
                                        "18446744073709551616",
                                        "1e300",
                                        "1e400",
                                        "nan",
                                        ""};
    if (spec.min > 0) outside.push_back("0");
    for (const std::string& text : outside) {
      EXPECT_TRUE(std::holds_alternative<ValueFault>(Parse(spec, text))) << spec.key << " " << text;
    }
  }
}

TEST(OptionTable, OffersTheSameInstructionSetsInEveryBuildInTheOrderOfTheirLevels) {
  for (const Option& option : OptionTable()) {
    if (option.key() != "cpu.isa") continue;
    ASSERT_EQ(option.field.spec.choices,
              (std::vector<std::string>{"auto", "scalar", "avx2", "avx512"}));
    for (size_t i = 1; i < option.field.spec.choices.size(); ++i) {
      EXPECT_EQ(cpu::IsaName(static_cast<IsaLevel>(i)), option.field.spec.choices[i]);
    }
    return;
  }
  FAIL() << "no cpu.isa";
}

}  // namespace
}  // namespace muselet
