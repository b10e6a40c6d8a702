#include "node/config/machine_checks.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "comms/wire_keys.h"
#include "node/config/address.h"
#include "node/config/cluster_checks.h"
#include "node/config/quantity.h"
#include "node/config/rank_placement.h"
#include "node/gateway/api_keys.h"
#include "node/gateway/cluster_secret.h"

namespace muselet {
namespace {

std::string Item(const char* section, size_t index) {
  return std::string(section) + "[" + std::to_string(index) + "]";
}

template <typename Entries>
bool Names(const Entries& entries, const std::string& name) {
  return std::any_of(entries.begin(), entries.end(),
                     [&](const auto& entry) { return entry.name == name; });
}

// "1.5 GiB": to be read beside another size, so not exact.
std::string AboutBytes(uint64_t bytes) {
  constexpr double kGiB = 1024.0 * 1024 * 1024;
  const double value = static_cast<double>(bytes);
  char text[32];
  const bool large = value >= kGiB;
  std::snprintf(text, sizeof(text), large ? "%.1f GiB" : "%.0f MiB",
                large ? value / kGiB : value / (1024.0 * 1024));
  return text;
}

// About what the weights take once they are loaded: the bytes of the files that hold them. 0 for
// what cannot be read, which CheckModelFile refuses.
uint64_t WeightFileBytes(const std::string& path) {
  std::error_code fault;
  if (!std::filesystem::is_directory(path, fault)) {
    const uint64_t bytes = std::filesystem::file_size(path, fault);
    return fault ? 0 : bytes;
  }
  uint64_t bytes = 0;
  for (std::filesystem::directory_iterator at(path, fault), end; !fault && at != end;
       at.increment(fault)) {
    if (at->path().extension() != ".safetensors") continue;
    const uint64_t part = at->file_size(fault);
    if (!fault) bytes += part;
  }
  return bytes;
}

// The message of a Status without the key that it begins with: the fault names the key itself.
std::string WithoutKey(const std::string& message, std::string_view key) {
  const bool named = message.starts_with(key) && message.substr(key.size()).starts_with(": ");
  return named ? message.substr(key.size() + 2) : message;
}

class MachineChecker {
 public:
  MachineChecker(const ClusterConfig& config, const ConfigRequest& request, ValueLedger& ledger)
      : config_(config),
        entry_(request.file_check == ConfigRequest::FileCheck::kAll ? "" : request.entry),
        machine_check_(request.machine_check),
        machine_(request.machine ? *request.machine : ThisMachine()),
        ledger_(ledger) {}

  void Run() {
    CheckModels();
    if (entry_.empty() || Names(config_.gateways, entry_)) {
      CheckKeys();
      CheckSecret();
    }
    CheckWireKeys();
    if (ComputesHere()) {
      CheckIsa();
      CheckMemory();
    }
  }

 private:
  void CheckModels() {
    const auto needed = ModelsNeededBy(config_, entry_);
    for (size_t i = 0; i < config_.models.size(); ++i) {
      const ModelEntry& model = config_.models[i];
      const bool wanted =
          entry_.empty() || std::find(needed.begin(), needed.end(), model.id) != needed.end();
      const std::string key = Item("models", i) + ".path";
      if (wanted && !ledger_.InDoubt(key)) CheckModelFile(key, model.path);
    }
  }

  void CheckModelFile(const std::string& key, const std::string& path) {
    std::error_code fault;
    const auto status = std::filesystem::status(path, fault);
    if (status.type() == std::filesystem::file_type::not_found) {
      ledger_.Fault(key, path + " does not exist",
                    "a GGUF file or a Hugging Face directory is needed");
    } else if (fault || access(path.c_str(), R_OK) != 0) {
      ledger_.Fault(key, path + " cannot be read",
                    "check the owner and mode of the file and its directories");
    } else if (std::filesystem::is_directory(status) &&
               !std::filesystem::exists(path + "/config.json", fault)) {
      ledger_.Fault(key, path + " has no config.json", "is this a Hugging Face model directory?");
    } else if (!std::filesystem::is_directory(status) &&
               !std::filesystem::is_regular_file(status)) {
      ledger_.Fault(key, path + " is neither a file nor a directory", "");
    }
  }

  // Reads the keys as the gateway will, so that it cannot be surprised when its ports are open.
  void CheckKeys() {
    ApiKeys keys;
    for (size_t i = 0; i < config_.surfaces.size(); ++i) {
      const std::string& path = config_.surfaces[i].key_file;
      const std::string key = Item("surfaces", i) + ".key_file";
      if (path.empty() || ledger_.InDoubt(key)) continue;
      const Status added = keys.AddFile(path, i);
      if (added.ok()) continue;
      const bool named = added.message().find(path) != std::string::npos;
      ledger_.Fault(key, (named ? "" : path + ": ") + added.message(), "one API key a line");
    }
  }

  // Reads the files as the process will.
  void CheckWireKeys() {
    const SecurityOptions& security = config_.security;
    const auto check = [&](const std::string& key, const std::string& path, const auto& read) {
      if (path.empty() || ledger_.InDoubt(key)) return;
      const Status status = read(path).status();
      if (status.ok()) return;
      const bool named = status.message().find(path) != std::string::npos;
      ledger_.Fault(key, (named ? "" : path + ": ") + status.message(),
                    "muselet keys generate makes such files");
    };
    if (!security.key_file.empty() && !ledger_.InDoubt("security.key_file")) {
      const Status works = CheckWireKeysWork();
      if (!works.ok()) ledger_.Fault("security.key_file", works.message(), "");
    }
    check("security.key_file", security.key_file, ReadSecretKeyFile);
    check("security.known_keys_file", security.known_keys_file, ReadPublicKeysFile);
    check("security.front_end_keys_file", security.front_end_keys_file, ReadPublicKeysFile);
  }

  void CheckSecret() {
    const std::string key = "security.secret_file";
    const std::string& path = config_.security.secret_file;
    if (path.empty() || ledger_.InDoubt(key)) return;
    const Status status = ClusterSecret::ReadFrom(path).status();
    if (!status.ok()) ledger_.Fault(key, status.message(), "");
  }

  void CheckIsa() {
    const std::string key = "cpu.isa";
    if (ledger_.InDoubt(key)) return;
    const Status runs = machine_.check_isa(config_.engine.cpu.isa);
    if (!runs.ok()) ledger_.Fault(key, WithoutKey(runs.message(), key), "");
  }

  bool ComputesHere() const {
    if (machine_check_ == ConfigRequest::MachineCheck::kIfLoopback) {
      return !ledger_.InDoubt("nodes") &&
             std::all_of(config_.nodes.begin(), config_.nodes.end(),
                         [](const NodeEntry& node) { return IsLoopbackHost(node.host); });
    }
    return entry_.empty() || Names(config_.nodes, entry_);
  }

  // The ranks of a machine share its memory. Each takes its cache whole when it starts.
  void CheckMemory() {
    const std::string key = "kv.bytes";
    const MemoryLimit& memory = machine_.memory;
    if (ledger_.InDoubt(key) || memory.bytes == 0) return;
    constexpr uint64_t kMiB = 1 << 20;
    RanksHere here = CountRanksHere();
    here.weight_bytes = here.weight_bytes / kMiB * kMiB;
    const uint64_t room = memory.bytes - std::min(memory.bytes, here.weight_bytes);
    const uint64_t bytes = config_.engine.kv.bytes;
    if (bytes <= room / here.ranks) return;
    const std::string each =
        here.ranks == 1 ? "" : " for each of " + std::to_string(here.ranks) + " ranks";
    const std::string weights =
        here.weight_bytes == 0 ? "" : " and " + AboutBytes(here.weight_bytes) + " of weights";
    const uint64_t most = room / here.ranks / kMiB * kMiB;
    ledger_.Fault(key,
                  FormatBytes(static_cast<int64_t>(bytes)) + each + weights + " is more than " +
                      memory.source + ", " + AboutBytes(memory.bytes),
                  most < kMiB ? "use a machine with more memory"
                              : "less than " + FormatBytes(static_cast<int64_t>(most)) +
                                    ", activations need room too");
  }

  struct RanksHere {
    uint64_t ranks = 1;  // at least; what is in doubt is not counted
    uint64_t weight_bytes = 0;
  };

  // The ranks on the entry's machine; on all nodes if there is none, since then one machine runs
  // them all. A rank is taken to hold its part of the weights.
  RanksHere CountRanksHere() const {
    for (const char* section : {"models", "nodes", "replicas"}) {
      if (ledger_.InDoubt(section)) return {};
    }
    RanksHere here;
    uint64_t ranks = 0;
    for (const ReplicaEntry& replica : config_.replicas) {
      const std::vector<RankPlacement> places = PlaceRanks(config_, replica);
      const auto count = static_cast<uint64_t>(std::count_if(
          places.begin(), places.end(),
          [&](const RankPlacement& rank) { return entry_.empty() || entry_ == rank.node; }));
      if (count == 0) continue;
      ranks += count;
      for (const ModelEntry& model : config_.models) {
        if (model.id != replica.model) continue;
        here.weight_bytes += WeightFileBytes(model.path) / places.size() * count;
      }
    }
    here.ranks = std::max<uint64_t>(1, ranks);
    return here;
  }

  const ClusterConfig& config_;
  const std::string entry_;  // "" = all
  const ConfigRequest::MachineCheck machine_check_;
  const Machine machine_;
  ValueLedger& ledger_;
};

}  // namespace

void CheckMachine(const ClusterConfig& config, const ConfigRequest& request, ValueLedger& ledger) {
  if (request.file_check == ConfigRequest::FileCheck::kNone || ledger.InDoubt("")) return;
  MachineChecker(config, request, ledger).Run();
}

}  // namespace muselet
