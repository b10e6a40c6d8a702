#include "node/cpu/cpu_ops.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/device/dequantize.h"
#include "node/cpu/expert_feed_forward.h"
#include "node/cpu/isa.h"
#include "node/cpu/kernels.h"
#include "node/cpu/lookup_table.h"
#include "node/cpu/packed_matrix.h"
#include "node/cpu/paged_attention.h"
#include "node/cpu/partial_sums.h"
#include "node/cpu/quantized_buffer.h"
#include "node/cpu/thread_pool.h"

namespace muselet::cpu {
namespace {

constexpr uint32_t kRowsPerTile = 64;     // of a product: their activations stay in the L2 cache
constexpr size_t kInlineElements = 8192;  // elementwise work below this is not worth two threads

constexpr uint32_t kRowTilesPerThread =
    4;  // of elementwise work: taking a tile costs as much as a row
// Attention reads a cache of keys and values from places all over it.
constexpr size_t kLargePagesFrom = size_t{64} << 20;

uint32_t DivideUp(uint32_t a, uint32_t b) {
  return (a + b - 1) / b;
}

class CpuOps final : public Ops {
 public:
  CpuOps(const CpuOptions& options, const Kernels& kernels, uint32_t threads)
      : kernels_(kernels),
        int8_(options.activations == ActivationFormat::kInt8),
        pool_(threads),
        experts_(kernels, pool_, int8_) {}

  std::string LayoutName() const override { return "cpu/lanes8-v2"; }
  std::string ActivationName() const override { return int8_ ? "int8" : "f32"; }

  Result<DeviceBuffer> Allocate(size_t bytes) override {
    return bytes < kLargePagesFrom ? AllocatePages(bytes) : AllocateLargePages(bytes);
  }

  Result<std::unique_ptr<Matrix>> Prepare(const TensorView& weight, uint32_t segments) override {
    if (segments > kSegmentsMax) return InvalidArgument("a product has too many segments");
    ASSIGN_OR_RETURN(std::unique_ptr<PackedMatrix> packed,
                     PackedMatrix::Pack(weight, segments, pool_, arena_));
    return std::unique_ptr<Matrix>(std::move(packed));
  }

  Result<std::unique_ptr<Matrix>> PrepareColumns(const TensorView& weight, ColumnRange columns,
                                                 uint32_t segments) override {
    if (segments > kSegmentsMax) return InvalidArgument("a product has too many segments");
    ASSIGN_OR_RETURN(std::unique_ptr<PackedMatrix> packed,
                     PackedMatrix::PackColumns(weight, columns, segments, pool_, arena_));
    return std::unique_ptr<Matrix>(std::move(packed));
  }

  Result<std::unique_ptr<Matrix>> PrepareTable(const TensorView& table) override {
    return MakeLookupTable(table);
  }

  Result<DeviceBuffer> PrepareVector(const TensorView& vector) override {
    if (vector.rank != 1) return InvalidArgument("not a vector: " + vector.ToString());
    ASSIGN_OR_RETURN(DeviceBuffer buffer, AllocatePages(vector.shape[0] * sizeof(float)));
    RETURN_IF_ERROR(DequantizeRow(vector.dtype, vector.data, vector.shape[0],
                                  reinterpret_cast<float*>(buffer.data())));
    return buffer;
  }

  void Gather(const Matrix& table, std::span<const TokenId> ids, Rows out) override {
    CHECK(out.count == ids.size() && out.width == table.columns(), "gather: shapes differ");
    if (const auto* lookup = dynamic_cast<const LookupTable*>(&table)) {
      ForRows(out,
              [&](uint32_t row) { lookup->Read(static_cast<uint32_t>(ids[row]), out.row(row)); });
      return;
    }
    const PanelView& view = static_cast<const PackedMatrix&>(table).view();
    ForRows(out,
            [&](uint32_t row) { ReadRow(view, static_cast<uint32_t>(ids[row]), out.row(row)); });
  }

  void RmsNorm(Rows x, const float* weight, float eps, Rows out) override {
    CHECK(x.count == out.count && x.width == out.width, "norm: shapes differ");
    ForRows(x, [&](uint32_t row) {
      kernels_.rms_norm_row(x.row(row), weight, eps, x.width, out.row(row));
    });
  }

  void MatMul(Rows x, std::span<const MatMulTarget> targets) override {
    const QuantizedRows quantized = ReserveInputs(x, targets);
    if (quantized.q != nullptr)
      ForRows(x, [&](uint32_t row) { kernels_.quantize_row(x.row(row), row, quantized); });
    Multiply(x, quantized, targets);
  }

  void NormMatMul(Rows x, const float* weight, float eps, Rows normed,
                  std::span<const MatMulTarget> targets) override {
    CHECK(x.count == normed.count && x.width == normed.width, "norm: shapes differ");
    const QuantizedRows quantized = ReserveInputs(normed, targets);
    ForRows(x, [&](uint32_t row) {
      kernels_.rms_norm_row(x.row(row), weight, eps, x.width, normed.row(row));
      if (quantized.q != nullptr) kernels_.quantize_row(normed.row(row), row, quantized);
    });
    Multiply(normed, quantized, targets);
  }

  void SiluMatMul(Rows gate, Rows up, std::span<const MatMulTarget> targets) override {
    const QuantizedRows quantized = ReserveInputs(gate, targets);
    ForRows(gate, [&](uint32_t row) {
      kernels_.silu_mul(gate.row(row), up.row(row), gate.width, gate.row(row));
      if (quantized.q != nullptr) kernels_.quantize_row(gate.row(row), row, quantized);
    });
    Multiply(gate, quantized, targets);
  }

  void Rope(Rows x, uint32_t head_dim, const RopeRows& angles) override {
    CHECK(x.width % head_dim == 0 && angles.rotary_dim <= head_dim, "rope: shapes differ");
    ForRows(x, [&](uint32_t row) { RopeRow(x.row(row), x.width, head_dim, angles, row); });
  }

  void KvWrite(Rows k, Rows v, const StepRows& rows, const PagedKv& cache) override {
    const KvShape& shape = cache.shape;
    CHECK(k.width == shape.kv_heads * shape.head_dim && v.width == k.width, "KV: shapes differ");
    ForRows(k, [&](uint32_t row) { WriteRow(k, v, rows, cache, row); });
  }

  void RopeKvWrite(Rows q, Rows k, Rows v, const RopeRows& angles, const StepRows& rows,
                   const PagedKv& cache) override {
    const KvShape& shape = cache.shape;
    CHECK(k.width == shape.kv_heads * shape.head_dim && v.width == k.width, "KV: shapes differ");
    CHECK(q.width % shape.head_dim == 0 && angles.rotary_dim <= shape.head_dim,
          "rope: shapes differ");
    ForRows(q, [&](uint32_t row) {
      RopeRow(q.row(row), q.width, shape.head_dim, angles, row);
      RopeRow(k.row(row), k.width, shape.head_dim, angles, row);
      WriteRow(k, v, rows, cache, row);
    });
  }

  void Attention(Rows q, const StepRows& rows, const PagedKv& cache, const AttentionSpec& spec,
                 Rows out) override {
    attention_.Attend(kernels_, pool_, q, rows, cache, spec, out);
  }

  void SiluMul(Rows gate, Rows up, Rows out) override {
    ForRows(gate, [&](uint32_t row) {
      kernels_.silu_mul(gate.row(row), up.row(row), gate.width, out.row(row));
    });
  }

  void GeluMul(Rows gate, Rows up, Rows out) override {
    ForRows(gate, [&](uint32_t row) {
      kernels_.gelu_mul(gate.row(row), up.row(row), gate.width, out.row(row));
    });
  }

  void SigmoidMul(Rows gate, Rows x, Rows out) override {
    ForRows(gate, [&](uint32_t row) {
      kernels_.sigmoid_mul(gate.row(row), x.row(row), gate.width, out.row(row));
    });
  }

  void SoftCap(Rows x, float cap, Rows out) override {
    ForRows(x, [&](uint32_t row) { kernels_.soft_cap(x.row(row), cap, x.width, out.row(row)); });
  }

  void Scale(Rows x, float factor, Rows out) override {
    ForRows(x, [&](uint32_t row) {
      for (uint32_t i = 0; i < x.width; ++i) out.row(row)[i] = x.row(row)[i] * factor;
    });
  }

  void Clear(Rows out) override {
    ForRows(out, [&](uint32_t row) { std::fill_n(out.row(row), out.width, 0.0F); });
  }

  void ExpertFeedForward(Rows x, Rows scores, const RouterSpec& router,
                         const ExpertScratch& scratch, std::span<const ExpertPart> parts) override {
    experts_.Compute(x, scores, router, scratch, parts);
  }

  void Add(Rows x, Rows y, Rows out) override {
    ForRows(x, [&](uint32_t row) {
      for (uint32_t i = 0; i < x.width; ++i) out.row(row)[i] = x.row(row)[i] + y.row(row)[i];
    });
  }

  void AddPartials(std::span<const PartialSum> parts, const float* bias, Rows out) override {
    ForRows(out, [&](uint32_t row) { AddPartialsRow(parts, bias, row, out); });
  }

  void SelectRows(Rows x, std::span<const uint32_t> rows, Rows out) override {
    CHECK(out.count == rows.size() && out.width == x.width, "select: shapes differ");
    ForRows(out, [&](uint32_t i) { std::copy_n(x.row(rows[i]), x.width, out.row(i)); });
  }

  size_t KvBlockBytes(const KvShape& shape) const override {
    return size_t{2} * shape.kv_heads * shape.head_dim * kKvBlockTokens *
           Traits(shape.dtype).block_bytes;
  }

 private:
  bool UsesInt8(const Matrix& weight) const { return int8_ && IsQuantized(weight.dtype()); }

  // body(row) for every row, on all threads if there is enough to do.
  template <typename Body>
  void ForRows(Rows rows, const Body& body) {
    if (size_t{rows.count} * rows.width < kInlineElements) {
      for (uint32_t row = 0; row < rows.count; ++row) body(row);
      return;
    }
    const uint32_t per_tile = DivideUp(rows.count, pool_.threads() * kRowTilesPerThread);
    pool_.ParallelFor(DivideUp(rows.count, per_tile), [&](uint32_t tile, uint32_t) {
      const uint32_t end = std::min((tile + 1) * per_tile, rows.count);
      for (uint32_t row = tile * per_tile; row < end; ++row) body(row);
    });
  }

  // Memory for the rounded inputs of a product, nothing if no target needs them rounded.
  QuantizedRows ReserveInputs(Rows x, std::span<const MatMulTarget> targets) {
    bool needed = false;
    for (const MatMulTarget& target : targets) {
      const Matrix& weight = *target.weight;
      CHECK(weight.columns() == x.width && weight.rows() == target.out.width &&
                x.count == target.out.count,
            "product: shapes differ");
      needed |= UsesInt8(weight);
    }
    if (!needed) return {};
    return quantized_.Reserve(x.count, x.width);
  }

  void WriteRow(Rows k, Rows v, const StepRows& rows, const PagedKv& cache, uint32_t row) const {
    const KvShape& shape = cache.shape;
    const RowPlace& place = rows.places[row];
    const BlockId block = rows.tables[place.table_begin + place.position / kKvBlockTokens];
    for (uint32_t head = 0; head < shape.kv_heads; ++head) {
      const KvHeadView view = HeadView(cache, head);
      std::byte* at = cache.blocks + block * view.block_bytes;
      kernels_.kv_write({at + view.key_offset, at + view.value_offset,
                         place.position % kKvBlockTokens, view.half, view.head_dim,
                         k.row(row) + head * shape.head_dim, v.row(row) + head * shape.head_dim});
    }
  }

  void Multiply(Rows x, const QuantizedRows& quantized, std::span<const MatMulTarget> targets) {
    uint32_t panels = 0;
    for (const MatMulTarget& target : targets) panels += DivideUp(target.out.width, kPanelRows);
    // Small tiles at the end keep the threads busy; whole cache lines of outputs keep them apart.
    const uint32_t panels_per_tile = std::clamp(panels / (pool_.threads() * 8), 2U, 16U);
    const uint32_t row_tiles = DivideUp(x.count, kRowsPerTile);
    const uint32_t panel_tiles = DivideUp(panels, panels_per_tile);
    pool_.ParallelFor(row_tiles * panel_tiles, [&](uint32_t index, uint32_t) {
      const uint32_t begin = index % panel_tiles * panels_per_tile;
      const uint32_t row_begin = index / panel_tiles * kRowsPerTile;
      MultiplyPanels(x, quantized, targets, begin, std::min(begin + panels_per_tile, panels),
                     row_begin, std::min(row_begin + kRowsPerTile, x.count));
    });
  }

  // Panels [begin, end) of the targets' panels laid end to end.
  void MultiplyPanels(Rows x, const QuantizedRows& quantized, std::span<const MatMulTarget> targets,
                      uint32_t begin, uint32_t end, uint32_t row_begin, uint32_t row_end) const {
    for (const MatMulTarget& target : targets) {
      const auto& weight = static_cast<const PackedMatrix&>(*target.weight);
      const uint32_t count = weight.panel_count();
      if (begin < count && end > 0) {
        const MatMulTile tile = {
            weight.view(), begin,     std::min(end, count), row_begin,       row_end,
            x.data,        quantized, target.bias,          target.out.data, target.accumulate};
        if (UsesInt8(weight)) {
          kernels_.matmul_int8(tile);
        } else {
          kernels_.matmul_float(tile);
        }
      }
      begin = begin > count ? begin - count : 0;
      end = end > count ? end - count : 0;
    }
  }

  static void RopeRow(float* x, uint32_t width, uint32_t head_dim, const RopeRows& angles,
                      uint32_t row) {
    const uint32_t pairs = angles.rotary_dim / 2;
    const float* cosine = angles.cosine + size_t{row} * pairs;
    const float* sine = angles.sine + size_t{row} * pairs;
    const uint32_t step = angles.interleaved ? 2 : 1;
    const uint32_t apart = angles.interleaved ? 1 : pairs;
    for (float* head = x; head < x + width; head += head_dim) {
      for (uint32_t i = 0; i < pairs; ++i) {
        const float a = head[step * i], b = head[step * i + apart];
        head[step * i] = a * cosine[i] - b * sine[i];
        head[step * i + apart] = b * cosine[i] + a * sine[i];
      }
    }
  }

  const Kernels& kernels_;
  const bool int8_;
  ThreadPool pool_;
  const std::shared_ptr<WeightArena> arena_ = std::make_shared<WeightArena>();
  PagedAttention attention_;

  QuantizedBuffer quantized_;  // the rounded inputs of the current product
  cpu::ExpertFeedForward experts_;
};

}  // namespace

Result<std::unique_ptr<Ops>> MakeCpuOps(const CpuOptions& options) {
  ASSIGN_OR_RETURN(const Kernels* kernels, SelectKernels(options.isa));
  const uint32_t threads = options.threads > 0 ? options.threads : ThreadPool::AvailableCpus();
  return std::unique_ptr<Ops>(std::make_unique<CpuOps>(options, *kernels, threads));
}

std::string DescribeCpu(const CpuOptions& options) {
  const uint32_t threads = options.threads > 0 ? options.threads : ThreadPool::AvailableCpus();
  return std::string(IsaName(options.isa)) + ", " + std::to_string(threads) +
         (threads == 1 ? " thread" : " threads");
}

}  // namespace muselet::cpu
