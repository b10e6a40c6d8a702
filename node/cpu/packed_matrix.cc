#include "node/cpu/packed_matrix.h"

#include <algorithm>
#include <cstring>

#include "base/device/dequantize.h"

namespace muselet::cpu {
namespace {

uint32_t Load32(const void* from) {
  uint32_t value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

uint16_t Load16(const void* from) {
  uint16_t value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

void Store32(void* to, uint32_t value) {
  std::memcpy(to, &value, sizeof(value));
}

// 16 bytes of a Q4 block (low nibbles are columns 0..15, high ones 16..31) into the row's bytes of
// the four quarters.
void PackNibbles(const std::byte* q, uint32_t lane, uint8_t* quarters) {
  constexpr uint32_t kLow = 0x0F0F0F0FU;
  for (uint32_t half = 0; half < 2; ++half) {
    const uint32_t first = Load32(q + 8 * half);
    const uint32_t second = Load32(q + 8 * half + 4);
    Store32(quarters + 32 * half + 4 * lane, (first & kLow) | ((second & kLow) << 4));
    Store32(quarters + 32 * (half + 2) + 4 * lane, ((first >> 4) & kLow) | (second & ~kLow));
  }
}

void PackBlock(const std::byte* source, uint32_t lane, PanelBlockQ4_0& block) {
  block.d[lane] = Load16(source);
  PackNibbles(source + 2, lane, block.q);
}

void PackBlock(const std::byte* source, uint32_t lane, PanelBlockQ4_1& block) {
  block.d[lane] = Load16(source);
  block.m[lane] = Load16(source + 2);
  PackNibbles(source + 4, lane, block.q);
}

void PackBlock(const std::byte* source, uint32_t lane, PanelBlockQ8_0& block) {
  block.d[lane] = Load16(source);
  for (uint32_t vector = 0; vector < 8; ++vector)
    std::memcpy(block.q + 32 * vector + 4 * lane, source + 2 + 4 * vector, 4);
}

// 32 values of up to 5 bits: the row's low nibbles, and their high bits if `high` is not null.
void PackValues(const uint8_t (&values)[kBlockColumns], uint32_t lane, uint8_t* quarters,
                uint8_t* high) {
  for (uint32_t i = 0; i < kBlockColumns; ++i) {
    const uint32_t vector = i / 4, byte = 4 * lane + i % 4;
    quarters[32 * (vector / 2) + byte] |=
        static_cast<uint8_t>((values[i] & 15U) << (4 * (vector % 2)));
    if (high != nullptr) high[byte] |= static_cast<uint8_t>((values[i] >> 4U) << vector);
  }
}

// 32 high bits and 16 bytes of nibbles.
void PackFiveBits(const std::byte* source, uint32_t lane, uint8_t* quarters, uint8_t* high) {
  const uint32_t bits = Load32(source);
  uint8_t values[kBlockColumns];
  for (uint32_t i = 0; i < kBlockColumns; ++i) {
    const uint32_t pair = std::to_integer<uint32_t>(source[4 + i % 16]);
    values[i] = static_cast<uint8_t>(((pair >> (i / 16 * 4)) & 15U) | (((bits >> i) & 1U) << 4U));
  }
  PackValues(values, lane, quarters, high);
}

void PackBlock(const std::byte* source, uint32_t lane, PanelBlockQ5_0& block) {
  block.d[lane] = Load16(source);
  PackFiveBits(source + 2, lane, block.q, block.high);
}

void PackBlock(const std::byte* source, uint32_t lane, PanelBlockQ5_1& block) {
  block.d[lane] = Load16(source);
  block.m[lane] = Load16(source + 2);
  PackFiveBits(source + 4, lane, block.q, block.high);
}

// Group `sub` of the 8 of a block; base/device/dequantize.cc says where what is.
template <typename Block>
void PackGroup(const std::byte* source, uint32_t sub, uint32_t lane, const std::byte* low,
               const std::byte* high_bits, uint8_t* high, Block& block) {
  const GroupScale six = ReadGroupScale(source, sub);
  block.d[lane] = Load16(source);
  block.e[lane] = Load16(source + 2);
  block.scale[lane] = static_cast<uint8_t>(six.scale);
  block.minimum[lane] = static_cast<uint8_t>(six.minimum);
  uint8_t values[kBlockColumns];
  for (uint32_t i = 0; i < kBlockColumns; ++i) {
    const auto pair = std::to_integer<uint32_t>(low[32 * (sub / 2) + i]);
    uint32_t value = (pair >> (4 * (sub % 2))) & 15U;
    if (high_bits != nullptr)
      value |= ((std::to_integer<uint32_t>(high_bits[i]) >> sub) & 1U) << 4U;
    values[i] = static_cast<uint8_t>(value);
  }
  PackValues(values, lane, block.q, high);
}

void PackSubBlock(const std::byte* source, uint32_t sub, uint32_t lane, PanelBlockQ4K& block) {
  PackGroup(source, sub, lane, source + 16, nullptr, nullptr, block);
}

void PackSubBlock(const std::byte* source, uint32_t sub, uint32_t lane, PanelBlockQ5K& block) {
  PackGroup(source, sub, lane, source + 48, source + 16, block.high, block);
}

// Sub-block `sub` of the 8 of 32 columns of one 256-value block. GGUF's order: half h (128 columns)
// has 64 bytes of low and 32 bytes of high bits; its columns 32g + l take nibble g / 2 of low byte
// 32 * (g % 2) + l, and bits 2g of high byte l.
void PackSubBlock(const std::byte* source, uint32_t sub, uint32_t lane, PanelBlockQ6K& block) {
  const uint32_t half = sub / 4, g = sub % 4;
  const auto* low = reinterpret_cast<const uint8_t*>(source) + 64 * half + 32 * (g % 2);
  const auto* high = reinterpret_cast<const uint8_t*>(source) + 128 + 32 * half;
  block.d[lane] = Load16(source + 208);
  for (uint32_t part = 0; part < 2; ++part)
    block.scale[part][lane] = static_cast<int8_t>(source[192 + 2 * sub + part]);
  for (uint32_t i = 0; i < kBlockColumns; ++i) {
    const uint32_t vector = i / 4, byte = 4 * lane + i % 4;
    const uint32_t nibble = (low[i] >> (4 * (g / 2))) & 15U;
    const uint32_t top = (high[i] >> (2 * g)) & 3U;
    block.low[32 * (vector / 2) + byte] |= static_cast<uint8_t>(nibble << (4 * (vector % 2)));
    block.high[32 * (vector / 4) + byte] |= static_cast<uint8_t>(top << (2 * (vector % 4)));
  }
}

template <typename Block>
void PackBlockRow(const std::byte* source, DType dtype, ColumnRange columns, uint32_t lane,
                  std::byte* panel) {
  auto* blocks = reinterpret_cast<Block*>(panel);
  const size_t first = columns.begin / kBlockColumns;
  for (uint32_t b = 0; b < columns.count / kBlockColumns; ++b)
    PackBlock(source + (first + b) * Traits(dtype).block_bytes, lane, blocks[b]);
}

// The same of formats whose blocks hold 8 of 32 columns.
template <typename Block>
void PackWideRow(const std::byte* source, DType dtype, ColumnRange columns, uint32_t lane,
                 std::byte* panel) {
  auto* blocks = reinterpret_cast<Block*>(panel);
  for (uint32_t b = 0; b < columns.count / kBlockColumns; ++b) {
    const size_t at = columns.begin / kBlockColumns + b;
    PackSubBlock(source + at / 8 * Traits(dtype).block_bytes, at % 8, lane, blocks[b]);
  }
}

template <typename Element>
void PackPlainRow(const std::byte* source, ColumnRange columns, uint32_t lane, std::byte* panel) {
  source += columns.begin * sizeof(Element);
  for (uint32_t k = 0; k < columns.count; ++k)
    std::memcpy(panel + (static_cast<size_t>(k) * kPanelRows + lane) * sizeof(Element),
                source + static_cast<size_t>(k) * sizeof(Element), sizeof(Element));
}

// `source` is the whole row.
void PackRow(const std::byte* source, DType dtype, ColumnRange columns, uint32_t lane,
             std::byte* panel) {
  switch (dtype) {
    case DType::kF32:
      return PackPlainRow<uint32_t>(source, columns, lane, panel);
    case DType::kF16:
    case DType::kBF16:
      return PackPlainRow<uint16_t>(source, columns, lane, panel);
    case DType::kQ4_0:
      return PackBlockRow<PanelBlockQ4_0>(source, dtype, columns, lane, panel);
    case DType::kQ4_1:
      return PackBlockRow<PanelBlockQ4_1>(source, dtype, columns, lane, panel);
    case DType::kQ8_0:
      return PackBlockRow<PanelBlockQ8_0>(source, dtype, columns, lane, panel);
    case DType::kQ5_0:
      return PackBlockRow<PanelBlockQ5_0>(source, dtype, columns, lane, panel);
    case DType::kQ5_1:
      return PackBlockRow<PanelBlockQ5_1>(source, dtype, columns, lane, panel);
    case DType::kQ4_K:
      return PackWideRow<PanelBlockQ4K>(source, dtype, columns, lane, panel);
    case DType::kQ5_K:
      return PackWideRow<PanelBlockQ5K>(source, dtype, columns, lane, panel);
    case DType::kQ6_K:
      return PackWideRow<PanelBlockQ6K>(source, dtype, columns, lane, panel);
    case DType::kI8:
      break;
  }
  CHECK(false, "no panels of ", Traits(dtype).name);
}

size_t PanelBytes(DType dtype, uint32_t columns) {
  const size_t blocks = columns / kBlockColumns;
  switch (dtype) {
    case DType::kQ4_0:
      return blocks * sizeof(PanelBlockQ4_0);
    case DType::kQ4_1:
      return blocks * sizeof(PanelBlockQ4_1);
    case DType::kQ8_0:
      return blocks * sizeof(PanelBlockQ8_0);
    case DType::kQ5_0:
      return blocks * sizeof(PanelBlockQ5_0);
    case DType::kQ5_1:
      return blocks * sizeof(PanelBlockQ5_1);
    case DType::kQ4_K:
      return blocks * sizeof(PanelBlockQ4K);
    case DType::kQ5_K:
      return blocks * sizeof(PanelBlockQ5K);
    case DType::kQ6_K:
      return blocks * sizeof(PanelBlockQ6K);
    default:
      return static_cast<size_t>(columns) * kPanelRows * Traits(dtype).block_bytes;
  }
}

template <typename Block>
const Block& BlockAt(const PanelView& panels, uint32_t row, uint32_t block) {
  return reinterpret_cast<const Block*>(panels.data + row / kPanelRows * panels.panel_bytes)[block];
}

uint32_t Nibble(const uint8_t* quarters, uint32_t lane, uint32_t column) {
  const uint32_t vector = column / 4;
  return (quarters[32 * (vector / 2) + 4 * lane + column % 4] >> (4 * (vector % 2))) & 15U;
}

// The integers of a block of 5 bits, less `offset`.
template <typename Block>
void ReadFiveBits(const Block& block, uint32_t lane, int offset, RowBlock& out) {
  for (uint32_t i = 0; i < kBlockColumns; ++i) {
    const uint32_t high = (block.high[4 * lane + i % 4] >> (i / 4)) & 1U;
    out.q[i] =
        static_cast<int8_t>(static_cast<int>(Nibble(block.q, lane, i) | (high << 4)) - offset);
  }
}

template <typename Block>
void ReadGroupScales(const Block& block, uint32_t lane, RowBlock& out) {
  out.d = HalfToFloat(block.d[lane]) * static_cast<float>(block.scale[lane]);
  out.m = -(HalfToFloat(block.e[lane]) * static_cast<float>(block.minimum[lane]));
}

RowBlock ReadQ6K(const PanelBlockQ6K& block, uint32_t lane) {
  RowBlock out;
  out.d = HalfToFloat(block.d[lane]);
  for (uint32_t part = 0; part < 2; ++part) out.scale[part] = block.scale[part][lane];
  for (uint32_t i = 0; i < kBlockColumns; ++i) {
    const uint32_t vector = i / 4;
    const uint32_t top =
        (block.high[32 * (vector / 4) + 4 * lane + i % 4] >> (2 * (vector % 4))) & 3U;
    out.q[i] = static_cast<int8_t>(static_cast<int>(Nibble(block.low, lane, i) | (top << 4)) - 32);
  }
  return out;
}

float PlainElement(const std::byte* panel, DType dtype, size_t index) {
  if (dtype == DType::kF32) {
    float value;
    std::memcpy(&value, panel + index * sizeof(value), sizeof(value));
    return value;
  }
  const uint16_t bits = Load16(panel + index * sizeof(bits));
  return dtype == DType::kF16 ? HalfToFloat(bits) : BFloat16ToFloat(bits);
}

// Whether a matrix can be made of these columns, in so many segments.
Status CheckCut(const TensorView& weight, ColumnRange columns, uint32_t segments) {
  if (weight.rank != 2 || weight.count() == 0 || weight.dtype == DType::kI8)
    return InvalidArgument("cannot multiply by a tensor " + weight.ToString());
  if (weight.dim(0) > UINT32_MAX - kPanelRows || weight.dim(1) > UINT32_MAX / kPanelRows)
    return InvalidArgument("tensor is too large: " + weight.ToString());
  const bool quantized = IsQuantized(weight.dtype);
  const uint32_t block = quantized ? kBlockColumns : kPanelRows;
  const bool range_ok = columns.count > 0 && columns.begin <= weight.dim(1) &&
                        columns.count <= weight.dim(1) - columns.begin &&
                        (!quantized || (columns.begin % block == 0 && columns.count % block == 0));
  const bool cut_ok = segments == 1 || (segments > 0 && columns.count % (segments * block) == 0);
  if (weight.dim(1) % Traits(weight.dtype).block_values != 0 || !range_ok || !cut_ok)
    return InvalidArgument("columns of " + weight.ToString() + " do not fall into whole blocks");
  return OkStatus();
}

}  // namespace

size_t PackedBytes(DType dtype, uint64_t rows, uint32_t columns) {
  return (rows + kPanelRows - 1) / kPanelRows * PanelBytes(dtype, columns);
}

Result<std::unique_ptr<PackedMatrix>> PackedMatrix::Pack(const TensorView& weight,
                                                         uint32_t segments, ThreadPool& pool,
                                                         std::shared_ptr<WeightArena> arena) {
  const uint64_t columns = weight.rank == 2 ? weight.dim(1) : 0;
  if (columns > UINT32_MAX) return InvalidArgument("tensor is too large: " + weight.ToString());
  return PackColumns(weight, {0, static_cast<uint32_t>(columns)}, segments, pool, std::move(arena));
}

Result<std::unique_ptr<PackedMatrix>> PackedMatrix::PackColumns(
    const TensorView& weight, ColumnRange columns, uint32_t segments, ThreadPool& pool,
    std::shared_ptr<WeightArena> arena) {
  RETURN_IF_ERROR(CheckCut(weight, columns, segments));
  auto matrix = std::make_unique<PackedMatrix>();
  PanelView& view = matrix->view_;
  view = {nullptr,       PanelBytes(weight.dtype, columns.count),
          weight.dtype,  static_cast<uint32_t>(weight.dim(0)),
          columns.count, segments};
  matrix->arena_ = std::move(arena);
  ASSIGN_OR_RETURN(std::byte* const panels, matrix->arena_->Allocate(matrix->bytes()));
  view.data = panels;

  const DTypeTraits traits = Traits(weight.dtype);
  const size_t row_bytes = weight.dim(1) / traits.block_values * traits.block_bytes;
  constexpr uint32_t kPanelsPerTile = 16;
  const uint32_t tiles = (matrix->panel_count() + kPanelsPerTile - 1) / kPanelsPerTile;
  pool.ParallelFor(tiles, [&](uint32_t tile, uint32_t) {
    const uint32_t begin = tile * kPanelsPerTile * kPanelRows;
    const uint32_t end = std::min(begin + kPanelsPerTile * kPanelRows, view.rows);
    for (uint32_t row = begin; row < end; ++row)
      PackRow(weight.data + row * row_bytes, view.dtype, columns, row % kPanelRows,
              panels + row / kPanelRows * view.panel_bytes);
  });
  return matrix;
}

RowBlock ReadRowBlock(const PanelView& panels, uint32_t row, uint32_t block) {
  const uint32_t lane = row % kPanelRows;
  RowBlock out;
  switch (panels.dtype) {
    case DType::kQ4_0: {
      const auto& from = BlockAt<PanelBlockQ4_0>(panels, row, block);
      out.d = HalfToFloat(from.d[lane]);
      for (uint32_t i = 0; i < kBlockColumns; ++i)
        out.q[i] = static_cast<int8_t>(static_cast<int>(Nibble(from.q, lane, i)) - 8);
      return out;
    }
    case DType::kQ4_1: {
      const auto& from = BlockAt<PanelBlockQ4_1>(panels, row, block);
      out.d = HalfToFloat(from.d[lane]);
      out.m = HalfToFloat(from.m[lane]);
      for (uint32_t i = 0; i < kBlockColumns; ++i)
        out.q[i] = static_cast<int8_t>(Nibble(from.q, lane, i));
      return out;
    }
    case DType::kQ8_0: {
      const auto& from = BlockAt<PanelBlockQ8_0>(panels, row, block);
      out.d = HalfToFloat(from.d[lane]);
      for (uint32_t i = 0; i < kBlockColumns; ++i)
        out.q[i] = from.q[32 * (i / 4) + 4 * lane + i % 4];
      return out;
    }
    case DType::kQ5_0: {
      const auto& from = BlockAt<PanelBlockQ5_0>(panels, row, block);
      out.d = HalfToFloat(from.d[lane]);
      ReadFiveBits(from, lane, 16, out);
      return out;
    }
    case DType::kQ5_1: {
      const auto& from = BlockAt<PanelBlockQ5_1>(panels, row, block);
      out.d = HalfToFloat(from.d[lane]);
      out.m = HalfToFloat(from.m[lane]);
      ReadFiveBits(from, lane, 0, out);
      return out;
    }
    case DType::kQ4_K: {
      const auto& from = BlockAt<PanelBlockQ4K>(panels, row, block);
      ReadGroupScales(from, lane, out);
      for (uint32_t i = 0; i < kBlockColumns; ++i)
        out.q[i] = static_cast<int8_t>(Nibble(from.q, lane, i));
      return out;
    }
    case DType::kQ5_K: {
      const auto& from = BlockAt<PanelBlockQ5K>(panels, row, block);
      ReadGroupScales(from, lane, out);
      ReadFiveBits(from, lane, 0, out);
      return out;
    }
    case DType::kQ6_K:
      return ReadQ6K(BlockAt<PanelBlockQ6K>(panels, row, block), lane);
    default:
      CHECK(false, Traits(panels.dtype).name, " has no blocks");
  }
}

void ReadRow(const PanelView& panels, uint32_t row, float* out) {
  if (!IsQuantized(panels.dtype)) {
    const std::byte* panel = panels.data + row / kPanelRows * panels.panel_bytes;
    for (uint32_t k = 0; k < panels.columns; ++k)
      out[k] =
          PlainElement(panel, panels.dtype, static_cast<size_t>(k) * kPanelRows + row % kPanelRows);
    return;
  }
  const bool has_minimum = HasMinimum(panels.dtype);
  for (uint32_t b = 0; b < panels.columns / kBlockColumns; ++b) {
    const RowBlock block = ReadRowBlock(panels, row, b);
    for (uint32_t i = 0; i < kBlockColumns; ++i) {
      const float step = block.d * static_cast<float>(block.scale[i / 16]);
      const float value = step * static_cast<float>(block.q[i]);
      out[b * kBlockColumns + i] = has_minimum ? value + block.m : value;
    }
  }
}

}  // namespace muselet::cpu
