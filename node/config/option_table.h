// The one table of options. From each row come a YAML key, a flag, a MUSELET_* variable, a line of
// --help, an entry of the JSON Schema and of the reference page, and the way into ClusterConfig.
// What can stand several times (models, gateways, ...) is in cluster_sections.h.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "node/config/config.h"
#include "node/config/field.h"

namespace muselet {

struct Option {
  Field<ClusterConfig> field;  // spec.key is the path: "gateway.http.body_bytes_max"
  std::string group;           // heading in --help and on the reference page

  const std::string& key() const { return field.spec.key; }
  std::string flag() const;      // "--gateway-http-body-bytes-max"
  std::string variable() const;  // "MUSELET_GATEWAY_HTTP_BODY_BYTES_MAX"
};

// Every option, in the order of the reference page; options of a group stand together.
const std::vector<Option>& OptionTable();

// "a.b_c" -> "--a-b-c" and "MUSELET_A_B_C".
std::string FlagOf(std::string_view key);
std::string VariableOf(std::string_view key);

// What --help and the pages say about a unit: "HOST:PORT", "BYTES", "TIME", "N", "a|b".
std::string Placeholder(const FieldSpec& spec);

// Rows of the table, by component.
std::vector<Option> ProcessOptions();
std::vector<Option> GatewayOptionRows();
std::vector<Option> SchedulerOptionRows();
std::vector<Option> EngineOptionRows();

}  // namespace muselet
