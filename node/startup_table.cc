#include "node/startup_table.h"

#include <fmt/format.h>

#include <algorithm>

#include "node/load_progress.h"

namespace muselet {
namespace {

uint64_t KvTokens(const ModelInfo& info) {
  uint64_t blocks = 0;
  for (const KvGroupInfo& group : info.kv_groups) {
    blocks = blocks == 0 ? group.block_count : std::min<uint64_t>(blocks, group.block_count);
  }
  return blocks * info.block_tokens;
}

}  // namespace

std::string FormatStartupTable(const StartupRows& rows) {
  size_t width = 0;
  for (const auto& [name, value] : rows) width = std::max(width, name.size());
  std::string table;
  for (const auto& [name, value] : rows) table += fmt::format("  {:<{}}  {}\n", name, width, value);
  return table;
}

void AddReplicaRows(const NodeRole& node, const EngineOptions& options, StartupRows& rows) {
  for (const NodeRole::ReplicaSummary& replica : node.replicas()) {
    const ModelInfo& info = replica.info;
    rows.emplace_back(
        "model", fmt::format("{}: {}, {:.1f} M parameters, {} of weights", replica.model,
                             info.architecture, static_cast<double>(info.parameter_count) * 1e-6,
                             FormatBytes(info.weight_bytes)));
    rows.emplace_back("numerics", info.numerics_id);
    rows.emplace_back("replica",
                      fmt::format("{}: 1 rank (tensor 1 x pipeline 1)", replica.replica));
    rows.emplace_back("context", fmt::format("{} tokens a sequence", info.context_tokens));
    rows.emplace_back(
        "KV cache", fmt::format("{} tokens, at most {}; up to {} sequences at once", KvTokens(info),
                                FormatBytes(info.kv_bytes), options.batch.sequences_max));
  }
}

void AddGatewayRows(const GatewayRole& gateway, StartupRows& rows) {
  const std::string url = "http://" + gateway.http_address();
  rows.emplace_back("API", url + "/v1");
  rows.emplace_back("metrics", url + "/metrics");
  if (!gateway.rpc_endpoint().empty()) rows.emplace_back("RPC", gateway.rpc_endpoint());
  rows.emplace_back("keys",
                    gateway.keys_needed() ? "needed" : "none: whoever reaches it may use it");
}

}  // namespace muselet
