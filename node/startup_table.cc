#include "node/startup_table.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "node/cpu/isa.h"
#include "node/load_progress.h"

namespace muselet {
namespace {

// Every sequence needs a block of each group, so the smallest group limits the tokens.
uint64_t KvBlocks(const ModelInfo& info) {
  uint64_t blocks = 0;
  for (const KvGroupInfo& group : info.kv_groups) {
    blocks = blocks == 0 ? group.block_count : std::min<uint64_t>(blocks, group.block_count);
  }
  return blocks;
}

// "q4_1+q8_0 weights, int8 activations, f16 KV" out of the numerics id, whose last parts are
// weights, activations, KV and mode.
std::string FormatsIn(const std::string& numerics_id) {
  std::vector<std::string> parts;
  std::istringstream words(numerics_id);
  for (std::string word; std::getline(words, word, '/');) parts.push_back(word);
  if (parts.size() < 4) return numerics_id;
  const std::string* last = &parts[parts.size() - 4];
  const std::string kv = last[2].starts_with("kv-") ? last[2].substr(3) : last[2];
  return last[0] + " weights, " + last[1] + " activations, " + kv + " KV";
}

uint64_t ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  uint64_t total_pages = 0;
  uint64_t resident_pages = 0;
  if (!(file >> total_pages >> resident_pages)) return 0;
  return resident_pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

void AddAdminRow(const std::string& address, StartupRows& rows) {
  if (!address.empty()) rows.emplace_back("metrics", "http://" + address + "/metrics");
}

}  // namespace

std::string FormatStartupTable(const StartupRows& rows) {
  size_t width = 0;
  for (const auto& [name, value] : rows) width = std::max(width, name.size());
  std::string table;
  for (const auto& [name, value] : rows) table += fmt::format("  {:<{}}  {}\n", name, width, value);
  return table;
}

std::string FormatMemory(uint64_t bytes) {
  constexpr double kMiB = 1 << 20;
  const double value = static_cast<double>(bytes) / kMiB;
  return value < 1024 ? fmt::format("{:.1f} MiB", value) : fmt::format("{:.2f} GiB", value / 1024);
}

void AddModelRows(const std::string& model, const ModelInfo& info, const EngineOptions& options,
                  StartupRows& rows) {
  rows.emplace_back(
      "model", fmt::format("{}: {}, {:.1f} M parameters, {} of weights", model, info.architecture,
                           static_cast<double>(info.parameter_count) * 1e-6,
                           FormatMemory(info.weight_bytes)));
  rows.emplace_back("formats", FormatsIn(info.numerics_id));
  rows.emplace_back("numerics", info.numerics_id);
  rows.emplace_back("context", fmt::format("{} tokens a sequence", info.context_tokens));
  const uint64_t blocks = KvBlocks(info);
  rows.emplace_back("KV cache",
                    fmt::format("{}: {} blocks of {}, {} tokens, for at most {} sequences at once",
                                FormatMemory(info.kv_bytes), blocks, info.block_tokens,
                                blocks * info.block_tokens, options.batch.sequences_max));
}

void AddRankRows(const NodeRole::ReplicaSummary& replica, StartupRows& rows) {
  const ShardPlan& shards = replica.shards;
  const size_t ranks = std::max<size_t>(shards.ranks.size(), 1);
  rows.emplace_back("replica",
                    fmt::format("{}: {} rank{} (tensor {} x pipeline {})", replica.replica, ranks,
                                ranks == 1 ? "" : "s", shards.tensor, shards.pipeline));
  for (const RankShard& shard : shards.ranks) {
    rows.emplace_back(shard.rank == 0 ? "ranks" : "",
                      fmt::format("{}: {}, layers {} to {}, part {} of {}", shard.rank,
                                  replica.places[shard.rank], shard.layer_begin,
                                  shard.layer_end - 1, shard.tensor_rank + 1, shards.tensor));
  }
}

void AddNodeRows(const NodeRole& node, const EngineOptions& options, StartupRows& rows) {
  const uint32_t threads = node.threads_per_rank();
  rows.emplace_back("node",
                    fmt::format("{}: CPU, {}, {} thread{} a rank", node.name(),
                                cpu::IsaName(options.cpu.isa), threads, threads == 1 ? "" : "s"));
  AddAdminRow(node.admin_address(), rows);
  for (const NodeRole::ReplicaSummary& replica : node.replicas()) {
    AddRankRows(replica, rows);
    AddModelRows(replica.model, replica.info, options, rows);
  }
}

void AddSchedulerRows(const SchedulerRole& scheduler, StartupRows& rows) {
  // In one process with all others nobody connects from outside.
  const bool inside = scheduler.endpoint().starts_with("inproc://");
  rows.emplace_back("scheduler", scheduler.name() + (inside ? "" : " at " + scheduler.endpoint()));
  AddAdminRow(scheduler.admin_address(), rows);
}

void AddProcessRows(StartupRows& rows) {
  rows.emplace_back("memory", FormatMemory(ResidentBytes()) + " resident");
}

void AddGatewayRows(const GatewayRole& gateway, StartupRows& rows) {
  const std::string url = "http://" + gateway.http_address();
  rows.emplace_back("gateway", gateway.name());
  rows.emplace_back("API", url + "/v1");
  rows.emplace_back("metrics", url + "/metrics");
  if (!gateway.rpc_endpoint().empty()) rows.emplace_back("RPC", gateway.rpc_endpoint());
  rows.emplace_back("keys",
                    gateway.keys_needed() ? "needed" : "none: whoever reaches it may use it");
}

}  // namespace muselet
