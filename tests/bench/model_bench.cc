// Tokens a second of Forward, without the rest of the system, and beside each figure the bound that
// reading the weights sets on this machine, measured in the same run.
//
//   model_bench MODEL [--threads N] [--float32] [--isa scalar|avx2|avx512] [--json FILE]
//               [--no-limits] [CASE...]
//   CASE: decode:SEQUENCES:STEPS:POSITION, prefill:ROWS or mixed:SEQUENCES:ROWS:POSITION. Decode
//   steps take one row of each sequence, the first at POSITION; a prompt is cut into the chunks
//   that the server would make; a mixed step has a decode row of each sequence and ROWS of a
//   prompt, at POSITION and after it.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "base/json.h"
#include "node/cpu/cpu_ops.h"
#include "node/model/load_model.h"
#include "tests/bench/machine_limits.h"

namespace muselet::bench {
namespace {

constexpr uint32_t kBlockTokens = 16;
constexpr const char* kUsage =
    "usage: model_bench MODEL [--threads N] [--float32] [--isa scalar|avx2|avx512] [--json FILE] "
    "[--no-limits] "
    "[decode:SEQUENCES:STEPS:POSITION|prefill:ROWS|mixed:SEQUENCES:ROWS:POSITION]...\n";

struct Case {
  std::string name;
  uint32_t sequences = 1;
  uint32_t steps = 1;
  uint32_t position = 0;
  uint32_t prefill_rows = 0;  // 0: decode
  bool mixed = false;         // both
};

struct Arguments {
  std::string model, json;
  EngineOptions options;
  std::vector<Case> cases;
  bool limits = true;
};

struct Timing {
  double seconds = 0.0;  // of all steps
  double median_step_s = 0.0;
  double cpu_seconds = 0.0;  // of all threads
  uint32_t tokens = 0;
};

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double CpuSeconds() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

// Rows [position, position + rows) of the next sequence, whose blocks begin at `first_block`.
void AddSlice(StepPlan& plan, uint32_t rows, uint32_t position, uint32_t first_block) {
  const uint32_t used = (position + rows + kBlockTokens - 1) / kBlockTokens;
  SequenceSlice slice;
  slice.slot = static_cast<SequenceSlot>(plan.slices.size());
  slice.first_position = position;
  slice.row_begin = plan.row_count();
  slice.row_count = rows;
  slice.logits_rows = 1;
  slice.table_begin = {static_cast<uint32_t>(plan.block_tables.size())};
  slice.table_count = {used};
  for (uint32_t b = 0; b < used; ++b) plan.block_tables.push_back(first_block + b);
  for (uint32_t i = 0; i < rows; ++i)
    plan.tokens.push_back(static_cast<TokenId>((plan.number * 31 + slice.slot * 7 + i) % 1000));
  plan.slices.push_back(slice);
}

// One step: `sequences` slices of `rows` rows, the first at `position`. Every sequence has
// `blocks` blocks of its own.
StepPlan MakePlan(uint32_t sequences, uint32_t rows, uint32_t position, uint32_t blocks,
                  uint64_t number) {
  StepPlan plan;
  plan.number = number;
  for (uint32_t s = 0; s < sequences; ++s) AddSlice(plan, rows, position, s * blocks);
  return plan;
}

// The same step some times over.
std::vector<StepPlan> MixedPlans(const Case& wanted) {
  constexpr uint32_t kDecodePosition = 200, kSteps = 16;
  const uint32_t blocks = kDecodePosition / kBlockTokens + 1;
  std::vector<StepPlan> plans;
  for (uint32_t step = 0; step < kSteps; ++step) {
    plans.push_back(MakePlan(wanted.sequences, 1, kDecodePosition, blocks, step + 1));
    AddSlice(plans.back(), wanted.prefill_rows, wanted.position, wanted.sequences * blocks);
    plans.back().slices.back().logits_rows = 0;
  }
  return plans;
}

// The plans of a case, in order.
std::vector<StepPlan> Plans(const Case& wanted, const BatchOptions& batch) {
  if (wanted.mixed) return MixedPlans(wanted);
  std::vector<StepPlan> plans;
  if (wanted.prefill_rows == 0) {
    const uint32_t blocks = (wanted.position + wanted.steps) / kBlockTokens + 1;
    for (uint32_t step = 0; step < wanted.steps; ++step)
      plans.push_back(MakePlan(wanted.sequences, 1, wanted.position + step, blocks, step + 1));
    return plans;
  }
  const uint32_t chunk = std::min(batch.prefill_chunk_max, batch.step_tokens_max);
  for (uint32_t at = 0; at < wanted.prefill_rows; at += chunk) {
    const uint32_t rows = std::min(chunk, wanted.prefill_rows - at);
    plans.push_back(MakePlan(1, rows, at, 0, plans.size() + 1));
    if (at + rows < wanted.prefill_rows) plans.back().slices[0].logits_rows = 0;
  }
  return plans;
}

Result<Timing> Time(Model& model, const std::vector<StepPlan>& plans) {
  RETURN_IF_ERROR(model.Forward(plans.front()).status());  // pages and scratch memory
  Timing timing;
  std::vector<double> steps;
  const double start = Now(), cpu_start = CpuSeconds();
  for (const StepPlan& plan : plans) {
    const double step_start = Now();
    RETURN_IF_ERROR(model.Forward(plan).status());
    steps.push_back(Now() - step_start);
    timing.tokens += plan.row_count();
  }
  timing.seconds = Now() - start;
  timing.cpu_seconds = CpuSeconds() - cpu_start;
  std::nth_element(steps.begin(), steps.begin() + static_cast<long>(steps.size() / 2), steps.end());
  timing.median_step_s = steps[steps.size() / 2];
  return timing;
}

std::string CpuName() {
  std::ifstream info("/proc/cpuinfo");
  std::string line, name, flags;
  while (std::getline(info, line)) {
    if (line.rfind("model name", 0) == 0) name = line.substr(line.find(':') + 2);
    if (line.rfind("flags", 0) == 0 && flags.empty())
      for (const char* flag : {"avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni"})
        if ((line + " ").find(" " + std::string(flag) + " ") != std::string::npos)
          flags += " " + std::string(flag);
  }
  return name + ":" + flags;
}

bool ParseCase(const std::string& text, Case* parsed) {
  parsed->name = text;
  int end = 0;
  const auto whole = [&] { return end == static_cast<int>(text.size()); };
  if (std::sscanf(text.c_str(), "decode:%u:%u:%u%n", &parsed->sequences, &parsed->steps,
                  &parsed->position, &end) == 3)
    return whole() && parsed->sequences > 0 && parsed->steps > 0;
  if (std::sscanf(text.c_str(), "mixed:%u:%u:%u%n", &parsed->sequences, &parsed->prefill_rows,
                  &parsed->position, &end) == 3) {
    parsed->mixed = true;
    return whole() && parsed->sequences > 0 && parsed->prefill_rows > 0;
  }
  return std::sscanf(text.c_str(), "prefill:%u%n", &parsed->prefill_rows, &end) == 1 && whole() &&
         parsed->prefill_rows > 0;
}

bool ParseArguments(int argc, char** argv, Arguments* arguments) {
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const bool takes_value = word == "--threads" || word == "--isa" || word == "--json";
    if (takes_value && i + 1 == argc) return false;
    CpuOptions& cpu = arguments->options.cpu;
    if (word == "--threads") {
      cpu.threads = static_cast<uint32_t>(std::atoi(argv[++i]));
    } else if (word == "--json") {
      arguments->json = argv[++i];
    } else if (word == "--isa") {
      const std::string level = argv[++i];
      if (level != "scalar" && level != "avx2" && level != "avx512") return false;
      cpu.isa = level == "scalar" ? IsaLevel::kScalar
                : level == "avx2" ? IsaLevel::kAvx2
                                  : IsaLevel::kAvx512;
    } else if (word == "--float32") {
      cpu.activations = ActivationFormat::kFloat32;
    } else if (word == "--no-limits") {
      arguments->limits = false;
    } else if (word.rfind("--", 0) == 0) {
      return false;
    } else if (arguments->model.empty()) {
      arguments->model = word;
    } else if (!ParseCase(word, &arguments->cases.emplace_back())) {
      return false;
    }
  }
  if (arguments->cases.empty()) {
    for (const char* name : {"decode:1:128:0", "decode:8:64:16", "decode:32:64:16", "prefill:512"})
      ParseCase(name, &arguments->cases.emplace_back());
  }
  return !arguments->model.empty();
}

Json Measure(Model& model, const Arguments& arguments, const MachineLimits& limits) {
  Json cases = Json::array();
  const auto weight_bytes = static_cast<double>(model.info().weight_bytes);
  for (const Case& wanted : arguments.cases) {
    const auto timing = Time(model, Plans(wanted, arguments.options.batch));
    if (!timing.ok()) {
      std::fprintf(stderr, "%s: %s\n", wanted.name.c_str(), timing.status().message().c_str());
      continue;
    }
    const double rate = timing->tokens / timing->seconds;
    double passes = wanted.prefill_rows > 0 ? wanted.prefill_rows : wanted.sequences;
    if (wanted.mixed) passes += wanted.sequences;
    std::printf("%-18s %8.2f ms a step %8.1f tok/s  (%.2f s of processor time in %.2f s",
                wanted.name.c_str(), timing->median_step_s * 1e3, rate, timing->cpu_seconds,
                timing->seconds);
    if (arguments.limits)
      std::printf("; reading allows %.0f", passes * limits.read_bytes_per_s / weight_bytes);
    std::printf(")\n");
    cases.push_back({{"case", wanted.name},
                     {"tokens", timing->tokens},
                     {"seconds", timing->seconds},
                     {"tokens_per_s", rate},
                     {"median_step_s", timing->median_step_s},
                     {"cpu_seconds", timing->cpu_seconds}});
  }
  return cases;
}

int Run(int argc, char** argv) {
  Arguments arguments;
  if (!ParseArguments(argc, argv, &arguments)) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  const double start = Now();
  auto checkpoint = Checkpoint::Open(arguments.model);
  auto model = checkpoint.ok() ? LoadModel(std::move(checkpoint).value(), arguments.options, {})
                               : Result<std::unique_ptr<Model>>(checkpoint.status());
  if (!model.ok()) {
    std::fprintf(stderr, "%s\n", model.status().message().c_str());
    return 2;
  }
  const ModelInfo& info = (*model)->info();
  const double loaded_s = Now() - start;
  std::printf("%s; %s\n%s, %.1f MB of weights, loaded in %.2f s\n", CpuName().c_str(),
              cpu::DescribeCpu(arguments.options.cpu).c_str(), info.numerics_id.c_str(),
              static_cast<double>(info.weight_bytes) * 1e-6, loaded_s);
  std::fflush(stdout);  // who profiles the steps alone waits for this line
  MachineLimits limits;
  if (arguments.limits) {
    const uint32_t threads = arguments.options.cpu.threads;
    limits = MeasureMachine(threads > 0 ? threads : std::thread::hardware_concurrency());
    std::printf("reads %.1f GB/s, %.0f GFLOP/s in f32, %.0f GOP/s in int8\n",
                limits.read_bytes_per_s * 1e-9, limits.f32_flops * 1e-9, limits.int8_ops * 1e-9);
  }
  Json report = {{"cpu", CpuName()},
                 {"device", cpu::DescribeCpu(arguments.options.cpu)},
                 {"numerics_id", info.numerics_id},
                 {"weight_bytes", info.weight_bytes},
                 {"parameter_count", info.parameter_count},
                 {"kv_bytes_per_token",
                  info.kv_bytes / (uint64_t{info.kv_groups[0].block_count} * info.block_tokens)},
                 {"loaded_s", loaded_s},
                 {"read_bytes_per_s", limits.read_bytes_per_s},
                 {"f32_flops", limits.f32_flops},
                 {"int8_ops", limits.int8_ops}};
  report["cases"] = Measure(**model, arguments, limits);
  if (!arguments.json.empty()) std::ofstream(arguments.json) << report.dump(1) << "\n";
  return report["cases"].size() == arguments.cases.size() ? 0 : 1;
}

}  // namespace
}  // namespace muselet::bench

int main(int argc, char** argv) {
  return muselet::bench::Run(argc, argv);
}
