// Options of nodes: backend, KV cache, batching.
#include "node/config/option_rows.h"
#include "node/cpu/isa.h"

namespace muselet {
namespace {

void AddCpuBackend(std::vector<Option>& rows) {
  const char* group = "CPU backend";
  AddOption(
      rows, group,
      {"cpu.activations",
       ValueKind::kChoice,
       "Format of the inputs of quantised matrix products; float32 is slower and follows the "
       "reference closely",
       0,
       0,
       {"int8", "float32"}},
      [](auto& c) -> auto& { return c.engine.cpu.activations; });
  AddOption(
      rows, group,
      {"cpu.threads", ValueKind::kInteger,
       "Compute threads of each rank, the step thread included; 0 divides the cores that the "
       "process may use among the ranks of the machine",
       0, 1024},
      [](auto& c) -> auto& { return c.engine.cpu.threads; });
  AddOption(
      rows, group,
      {"cpu.isa", ValueKind::kChoice,
       "Instruction set of the kernels; auto is the best that the CPU has", 0, 0,
       cpu::IsaLevelNames()},
      [](auto& c) -> auto& { return c.engine.cpu.isa; });
}

void AddKvCache(std::vector<Option>& rows) {
  const char* group = "KV cache";
  AddOption(
      rows, group,
      {"kv.bytes", ValueKind::kBytes,
       "Size of the KV cache of each rank of a replica; more holds more and longer sequences at "
       "once",
       1048576, 17592186044416},
      [](auto& c) -> auto& { return c.engine.kv.bytes; });
  AddOption(
      rows, group,
      {"kv.format",
       ValueKind::kChoice,
       "Format of keys and values; auto is float32 with cpu.activations float32, else float16",
       0,
       0,
       {"auto", "float16", "float32"}},
      [](auto& c) -> auto& { return c.engine.kv.format; });
}

void AddBatching(std::vector<Option>& rows) {
  const char* group = "Batching";
  AddOption(
      rows, group,
      {"batch.sequences_max", ValueKind::kInteger, "Sequences that run at once in one replica", 1,
       4096},
      [](auto& c) -> auto& { return c.engine.batch.sequences_max; });
  AddOption(
      rows, group,
      {"batch.waiting_max", ValueKind::kInteger,
       "Sequences admitted to a replica but not yet running; more are refused", 1, 1000000},
      [](auto& c) -> auto& { return c.engine.batch.waiting_max; });
  AddOption(
      rows, group,
      {"batch.step_tokens_max", ValueKind::kInteger,
       "Rows of one step, decodes and prefill chunks together", 1, 65536},
      [](auto& c) -> auto& { return c.engine.batch.step_tokens_max; });
  AddOption(
      rows, group,
      {"batch.prefill_chunk_max", ValueKind::kInteger,
       "Rows of one prefill chunk; smaller keeps running streams smoother, larger starts new ones "
       "sooner",
       1, 65536},
      [](auto& c) -> auto& { return c.engine.batch.prefill_chunk_max; });
  AddOption(
      rows, group,
      {"batch.step_target", ValueKind::kDuration,
       "Prefill is cut so that a step with running decodes is predicted to last no longer than "
       "this",
       1e3, 10e6},
      [](auto& c) -> auto& { return c.engine.batch.step_target_us; });
  AddOption(
      rows, group,
      {"batch.step_stretch", ValueKind::kNumber,
       "A step with running decodes takes in prefill until it is predicted to last this many times "
       "what the decodes alone take; each further prompt in line adds as much again",
       1, 100},
      [](auto& c) -> auto& { return c.engine.batch.step_stretch; });
  AddOption(
      rows, group,
      {"batch.step_max", ValueKind::kDuration,
       "No step at all is predicted to last longer than this", 1e3, 60e6},
      [](auto& c) -> auto& { return c.engine.batch.step_max_us; });
  AddOption(
      rows, group,
      {"batch.prefix_cache", ValueKind::kBool,
       "Keep the KV blocks of finished prompts and find them again by content"},
      [](auto& c) -> auto& { return c.engine.batch.prefix_cache; });
  AddOption(
      rows, group,
      {"batch.resume_tokens_min", ValueKind::kInteger,
       "Tokens that a paused sequence makes before it may be paused again", 0, 65536},
      [](auto& c) -> auto& { return c.engine.batch.resume_tokens_min; });
}

void AddEngine(std::vector<Option>& rows) {
  const char* group = "Engine";
  AddOption(
      rows, group,
      {"engine.context_tokens", ValueKind::kInteger,
       "Longest prompt and answer of one sequence; 0 is what the checkpoint says", 0, 16777216},
      [](auto& c) -> auto& { return c.engine.context_tokens; });
  AddOption(
      rows, group,
      {"engine.report_interval", ValueKind::kDuration,
       "Time between two load reports to the schedulers", 10e3, 60e6},
      [](auto& c) -> auto& { return c.engine.report_interval_us; });
  AddOption(
      rows, group,
      {"engine.peer_timeout", ValueKind::kDuration,
       "Silence after which a scheduler or a gateway counts as gone", 100e3, 3600e6},
      [](auto& c) -> auto& { return c.engine.peer_timeout_us; });
  AddOption(
      rows, group,
      {"engine.orphan_timeout", ValueKind::kDuration,
       "How long requests of a gateway that is gone go on, for another one to take them over; 0s = "
       "they are cancelled at once",
       0, 3600e6},
      [](auto& c) -> auto& { return c.engine.orphan_timeout_us; });
}

void AddRanks(std::vector<Option>& rows) {
  const char* group = "Ranks of sharded replicas";
  AddOption(
      rows, group,
      {"ranks.join_timeout", ValueKind::kDuration,
       "Time in which all ranks of a replica must join and load; then the log says who is missing, "
       "and the wait begins anew",
       100e3, 3600e6},
      [](auto& c) -> auto& { return c.engine.ranks.join_timeout_us; });
  AddOption(
      rows, group,
      {"ranks.silence_timeout", ValueKind::kDuration,
       "A rank without a word or progress for this long, or for eight times what its step was "
       "predicted to last, counts as lost",
       100e3, 3600e6},
      [](auto& c) -> auto& { return c.engine.ranks.silence_timeout_us; });
  AddOption(
      rows, group,
      {"ranks.private_network", ValueKind::kBool,
       "Nobody else can reach the network between the hosts of a sharded replica: its tensors may "
       "cross it in plain TCP"},
      [](auto& c) -> auto& { return c.engine.ranks.private_network; });
}

}  // namespace

std::vector<Option> EngineOptionRows() {
  std::vector<Option> rows;
  AddCpuBackend(rows);
  AddKvCache(rows);
  AddBatching(rows);
  AddEngine(rows);
  AddRanks(rows);
  return rows;
}

}  // namespace muselet
