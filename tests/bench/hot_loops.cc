// The hot loops, each a fixed number of times on one thread, for counting instructions: run under
// callgrind, it leaves one profile a loop, named "LEVEL/LOOP". Clock times on a shared machine
// drift, these counts do not (tests/bench/instructions.py compares them with the stored ones).
//
//   valgrind --tool=callgrind --instr-atstart=no hot_loops scalar|avx2
#include <valgrind/callgrind.h>

#include <cstdio>
#include <functional>
#include <numeric>
#include <string>
#include <string_view>

#include "base/check.h"
#include "node/cpu/cpu_ops.h"
#include "node/engine/sampler.h"
#include "scheduler/batch/batcher.h"
#include "tests/node/cpu/random_data.h"

namespace muselet::bench {
namespace {

// Counts `body`, after one run that grows its scratch memory.
void Count(std::string_view level, const std::string& loop, const std::function<void()>& body) {
  const std::string name = std::string(level) + "/" + loop;
  body();
  CALLGRIND_START_INSTRUMENTATION;
  CALLGRIND_ZERO_STATS;
  body();
  CALLGRIND_DUMP_STATS_AT(name.c_str());
  CALLGRIND_STOP_INSTRUMENTATION;
  std::printf("%s\n", name.c_str());
}

std::unique_ptr<Ops> MakeDevice(IsaLevel level, ActivationFormat activations) {
  auto made = cpu::MakeCpuOps({.activations = activations, .threads = 1, .isa = level});
  CHECK(made.ok(), made.status().message());
  return std::move(made).value();
}

struct FloatRows {
  FloatRows(uint32_t rows, uint32_t width, uint32_t seed)
      : values(testing::RandomFloats(size_t{rows} * width, seed)),
        view{values.data(), rows, width} {}
  std::vector<float> values;
  Rows view;
};

void CountMatMul(std::string_view level, Ops& device, DType dtype, uint32_t rows) {
  constexpr uint32_t kOutputs = 128, kColumns = 768;
  const testing::RandomTensor tensor(dtype, kOutputs, kColumns, 1);
  auto weight = device.Prepare(tensor.view, 1);
  CHECK(weight.ok(), weight.status().message());
  const FloatRows x(rows, kColumns, 2), out(rows, kOutputs, 3);
  const MatMulTarget target{weight->get(), nullptr, out.view};
  const std::string activations = IsQuantized(dtype) ? "_" + device.ActivationName() : "";
  Count(level,
        "matmul_" + std::string(Traits(dtype).name) + activations + "_rows_" + std::to_string(rows),
        [&] {
          device.MatMul(x.view, {&target, 1});
        });
}

void CountAttention(std::string_view level, Ops& device, uint32_t rows) {
  constexpr uint32_t kDepth = 300;
  const KvShape shape{DType::kF16, 16, 3, 64};
  const uint32_t blocks = (kDepth + 15) / 16;
  auto cache = device.Allocate(device.KvBlockBytes(shape) * blocks);
  CHECK(cache.ok(), cache.status().message());
  std::vector<BlockId> table(blocks);
  std::iota(table.begin(), table.end(), 0);
  std::vector<RowPlace> places;
  for (uint32_t row = 0; row < rows; ++row) places.push_back({kDepth - rows + row, 0});
  const FloatRows q(rows, 576, 1), k(rows, 192, 2), v(rows, 192, 3), out(rows, 576, 4);
  const PagedKv kv{shape, cache->data()};
  Count(level, "attention_rows_" + std::to_string(rows), [&] {
    device.KvWrite(k.view, v.view, {places, table}, kv);
    device.Attention(q.view, {places, table}, kv, {9, 0, 0.125F}, out.view);
  });
}

void CountRowOps(std::string_view level, Ops& device) {
  const FloatRows x(8, 576, 1), weight(1, 576, 2), out(8, 576, 3);
  Count(level, "norm", [&] { device.RmsNorm(x.view, weight.values.data(), 1e-5F, out.view); });
  const FloatRows gate(8, 1536, 4), up(8, 1536, 5), product(8, 1536, 6);
  Count(level, "silu_mul", [&] { device.SiluMul(gate.view, up.view, product.view); });
}

void CountKernels(std::string_view level, IsaLevel isa) {
  const auto int8 = MakeDevice(isa, ActivationFormat::kInt8);
  const auto plain = MakeDevice(isa, ActivationFormat::kFloat32);
  for (const DType dtype : testing::kMatrixDTypes)
    for (const uint32_t rows : {1U, 5U, 16U}) CountMatMul(level, *int8, dtype, rows);
  CountMatMul(level, *plain, DType::kQ4_1, 1);
  CountMatMul(level, *plain, DType::kQ4_1, 16);
  for (const uint32_t rows : {1U, 16U}) CountAttention(level, *int8, rows);
  CountRowOps(level, *int8);
}

void CountSampler(std::string_view level) {
  constexpr uint32_t kVocabulary = 16384;
  const FloatRows logits(1, kVocabulary, 1);
  Sampler sampler(kVocabulary);
  PenaltyCounts counts;
  counts.Reset(64);
  const StopRules stop;
  const auto count = [&](const std::string& loop, const SamplingParams& params) {
    const DrawContext context{params, stop, 0, 32, 40, counts};
    Count(level, loop, [&] {
      SampledToken token;
      CHECK(sampler.Draw(logits.values, context, &token).ok(), "no finite logit");
    });
  };
  SamplingParams params;
  params.seed = 1;
  count("sampler_temperature", params);
  params.top_k = 40;
  params.top_p = 0.9F;
  count("sampler_top_k_top_p", params);
  params = {};
  params.temperature = 0.0F;
  count("sampler_greedy", params);
}

// 32 sequences: admitted and prefilled, then 64 decode steps.
class BatcherLoop {
 public:
  BatcherLoop() : batcher_({}, {49152, 2048, {16, {{2048, 0}}}}) {}

  void AdmitAll() {
    for (uint64_t i = 0; i < kSequences; ++i) {
      Submit submit;
      submit.sequence = {{1, ++number_}, 0};
      for (TokenId t = 0; t < 48; ++t)
        submit.prompt.push_back((static_cast<TokenId>(number_) * 37 + t) % 49152);
      submit.stop.max_tokens = 1000;
      CHECK(batcher_.Admit(std::move(submit), now_us_).ok(), "the batcher refused");
    }
  }
  void Step() {
    const StepPlan plan = batcher_.Plan(now_us_);
    StepResult result;
    for (const SequenceSlice& slice : plan.slices) {
      SliceResult& gave = result.slices.emplace_back();
      gave.sampled = slice.samples;
      gave.token.id = 7;
    }
    now_us_ += 20'000;
    batcher_.Commit(plan.number, result, 20'000, now_us_);
    updates_ += batcher_.TakeUpdates().size();
  }
  void CancelAll() {
    for (const SequenceId& sequence : batcher_.ActiveSequences()) batcher_.Cancel(sequence, 0);
    batcher_.TakeUpdates();
  }
  bool prefilled() const { return batcher_.counters().tokens >= kSequences; }

 private:
  static constexpr uint64_t kSequences = 32;
  Batcher batcher_;
  uint64_t number_ = 0;
  int64_t now_us_ = 1;
  size_t updates_ = 0;
};

void CountBatcher(std::string_view level) {
  BatcherLoop decode;
  decode.AdmitAll();
  while (!decode.prefilled()) decode.Step();
  Count(level, "batcher_64_decode_steps_of_32", [&] {
    for (int step = 0; step < 64; ++step) decode.Step();
  });
  BatcherLoop start;
  Count(level, "batcher_admit_prefill_cancel_32", [&] {
    start.AdmitAll();
    for (int step = 0; step < 8; ++step) start.Step();
    start.CancelAll();
  });
}

int Run(int argc, char** argv) {
  const std::string_view level = argc == 2 ? argv[1] : "";
  if (level == "--compiler") {
    std::printf("%s\n", __VERSION__);
    return 0;
  }
  if (level != "scalar" && level != "avx2") {
    std::fprintf(stderr, "usage: hot_loops scalar|avx2|--compiler\n");
    return 2;
  }
  CountKernels(level, level == "avx2" ? IsaLevel::kAvx2 : IsaLevel::kScalar);
  if (level == "scalar") {  // what follows has no levels
    CountSampler("any");
    CountBatcher("any");
  }
  return 0;
}

}  // namespace
}  // namespace muselet::bench

int main(int argc, char** argv) {
  return muselet::bench::Run(argc, argv);
}
