// Tokens a second of Forward, without the rest of the system, and beside each figure the bound that
// reading the weights sets on this machine, measured in the same run.
//
//   model_bench MODEL [threads] [int8|float32] [scalar|avx2]
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "node/cpu/cpu_ops.h"
#include "node/model/load_model.h"

namespace muselet {
namespace {

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Best of several runs of all threads summing 256 MiB, in bytes a second.
double ReadBandwidth(uint32_t threads) {
  std::vector<uint64_t> data((256U << 20) / sizeof(uint64_t), 1);
  double best = 0.0;
  for (int run = 0; run < 5; ++run) {
    const double start = Now();
    std::vector<std::thread> workers;
    std::vector<uint64_t> sums(size_t{threads} * 64);
    for (uint32_t t = 0; t < threads; ++t) {
      workers.emplace_back([&, t] {
        uint64_t sum[8] = {};
        for (size_t i = data.size() / threads * t; i + 8 <= data.size() / threads * (t + 1); i += 8)
          for (size_t lane = 0; lane < 8; ++lane) sum[lane] += data[i + lane];
        for (const uint64_t lane : sum) sums[size_t{t} * 64] += lane;
      });
    }
    for (std::thread& worker : workers) worker.join();
    best = std::max(best, static_cast<double>(data.size() * sizeof(uint64_t)) / (Now() - start));
  }
  return best;
}

// One step: `sequences` slices of `rows` rows, the first at `position`. Every sequence has blocks
// of its own for 1024 positions.
StepPlan MakePlan(uint32_t sequences, uint32_t rows, uint32_t position, uint64_t number) {
  StepPlan plan;
  plan.number = number;
  const uint32_t blocks = (position + rows + 15) / 16;
  for (uint32_t s = 0; s < sequences; ++s) {
    SequenceSlice slice;
    slice.slot = s;
    slice.first_position = position;
    slice.row_begin = plan.row_count();
    slice.row_count = rows;
    slice.logits_rows = 1;
    slice.table_begin = {static_cast<uint32_t>(plan.block_tables.size())};
    slice.table_count = {blocks};
    for (uint32_t b = 0; b < blocks; ++b) plan.block_tables.push_back(s * blocks + b);
    for (uint32_t i = 0; i < rows; ++i)
      plan.tokens.push_back(static_cast<TokenId>((number * 31 + s * 7 + i) % 1000));
    plan.slices.push_back(slice);
  }
  return plan;
}

double CpuSeconds() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

struct StepTime {
  double seconds = 0.0;      // median
  double cpu_seconds = 0.0;  // mean, of all threads: what counts on a busy machine
};

StepTime TimeSteps(Model& model, uint32_t sequences, uint32_t rows, uint32_t steps) {
  std::vector<double> seconds;
  double cpu_start = 0.0;
  for (uint32_t step = 0; step < steps + 2; ++step) {
    if (step == 2) cpu_start = CpuSeconds();
    const StepPlan plan = MakePlan(sequences, rows, rows > 1 ? 0 : 64 + step, step + 1);
    const double start = Now();
    const auto logits = model.Forward(plan);
    if (!logits.ok()) return {};
    if (step >= 2) seconds.push_back(Now() - start);
  }
  std::nth_element(seconds.begin(), seconds.begin() + seconds.size() / 2, seconds.end());
  return {seconds[seconds.size() / 2], (CpuSeconds() - cpu_start) / steps};
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

int Run(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: model_bench MODEL [threads] [int8|float32] [scalar|avx2]\n");
    return 2;
  }
  EngineOptions options;
  if (argc > 2) options.cpu.threads = static_cast<uint32_t>(std::atoi(argv[2]));
  if (argc > 3 && std::strcmp(argv[3], "float32") == 0)
    options.cpu.activations = ActivationFormat::kFloat32;
  if (argc > 4)
    options.cpu.isa = std::strcmp(argv[4], "scalar") == 0 ? IsaLevel::kScalar : IsaLevel::kAvx2;
  const double start = Now();
  auto checkpoint = Checkpoint::Open(argv[1]);
  if (!checkpoint.ok()) {
    std::fprintf(stderr, "%s\n", checkpoint.status().message().c_str());
    return 2;
  }
  auto model = LoadModel(std::move(checkpoint).value(), options, {});
  if (!model.ok()) {
    std::fprintf(stderr, "%s\n", model.status().message().c_str());
    return 2;
  }
  const double loaded = Now() - start;
  const ModelInfo& info = (*model)->info();
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  std::printf("%s; %s\n%s, %.1f MB of weights, loaded in %.2f s, peak resident %.0f MB\n",
              CpuName().c_str(), cpu::DescribeCpu(options.cpu).c_str(), info.numerics_id.c_str(),
              static_cast<double>(info.weight_bytes) * 1e-6, loaded,
              static_cast<double>(usage.ru_maxrss) * 1024e-6);
  const uint32_t threads =
      options.cpu.threads > 0 ? options.cpu.threads : std::thread::hardware_concurrency();
  const double bandwidth = ReadBandwidth(threads);
  std::printf("reads %.1f GB/s: at most %.0f weight passes a second\n", bandwidth * 1e-9,
              bandwidth / static_cast<double>(info.weight_bytes));
  const auto print = [&](const char* what, uint32_t rows, const StepTime& time) {
    std::printf("%-16s %8.2f ms %8.1f tok/s  (%.2f ms of processor time; memory allows %.0f)\n",
                what, time.seconds * 1e3, rows / time.seconds, time.cpu_seconds * 1e3,
                rows * bandwidth / static_cast<double>(info.weight_bytes));
  };
  print("decode batch 1", 1, TimeSteps(**model, 1, 1, 40));
  print("decode batch 8", 8, TimeSteps(**model, 8, 1, 40));
  print("decode batch 32", 32, TimeSteps(**model, 32, 1, 40));
  print("prefill 512", 512, TimeSteps(**model, 1, 512, 3));
  return 0;
}

}  // namespace
}  // namespace muselet

int main(int argc, char** argv) {
  return muselet::Run(argc, argv);
}
