#include "node/cpu/packed_matrix.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/device/dequantize.h"
#include "tests/node/cpu/random_data.h"

namespace muselet::cpu {
namespace {

using testing::kMatrixDTypes;
using testing::RandomTensor;
using testing::SameBits;

TEST(PackedMatrixTest, DequantisesToTheBitsOfTheTensor) {
  ThreadPool pool(2);
  for (const DType dtype : kMatrixDTypes) {
    for (const uint32_t rows : {1U, 7U, 8U, 9U, 200U}) {
      const RandomTensor tensor(dtype, rows, 512, rows);
      const auto packed = PackedMatrix::Pack(tensor.view, 1, pool);
      ASSERT_TRUE(packed.ok()) << packed.status().message();
      const size_t row_bytes = tensor.bytes.size() / rows;
      for (uint32_t row = 0; row < rows; ++row) {
        std::vector<float> expected(512), actual(512);
        ASSERT_TRUE(
            DequantizeRow(dtype, tensor.bytes.data() + row * row_bytes, 512, expected.data()).ok());
        ReadRow((*packed)->view(), row, actual.data());
        EXPECT_TRUE(SameBits(expected, actual)) << tensor.view.ToString() << " row " << row;
      }
    }
  }
}

TEST(PackedMatrixTest, TakesColumnsThatAreNotWholeBlocksInPlainFormats) {
  ThreadPool pool(1);
  const RandomTensor tensor(DType::kF16, 3, 45, 1);
  EXPECT_TRUE(PackedMatrix::Pack(tensor.view, 1, pool).ok());
}

TEST(PackedMatrixTest, RefusesSegmentsThatCutABlock) {
  ThreadPool pool(1);
  const RandomTensor tensor(DType::kQ8_0, 8, 96, 1);
  EXPECT_TRUE(PackedMatrix::Pack(tensor.view, 3, pool).ok());
  const auto cut = PackedMatrix::Pack(tensor.view, 2, pool);
  EXPECT_EQ(cut.status().code(), StatusCode::kInvalidArgument);
}

TEST(PackedMatrixTest, RefusesVectorsAndInt8) {
  ThreadPool pool(1);
  RandomTensor tensor(DType::kF32, 8, 32, 1);
  tensor.view.rank = 1;
  EXPECT_EQ(PackedMatrix::Pack(tensor.view, 1, pool).status().code(), StatusCode::kInvalidArgument);
  tensor.view.rank = 2;
  tensor.view.dtype = DType::kI8;
  EXPECT_EQ(PackedMatrix::Pack(tensor.view, 1, pool).status().code(), StatusCode::kInvalidArgument);
}

TEST(HalfTest, EveryHalfSurvivesTheWayToFloatAndBack) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = HalfToFloat(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(HalfToFloat(FloatToHalf(value))));
    } else {
      ASSERT_EQ(FloatToHalf(value), half);
    }
  }
}

TEST(HalfTest, RoundsToNearestEven) {
  EXPECT_EQ(FloatToHalf(1.0F + 0x1p-11F), 0x3C00);             // a tie, down to even
  EXPECT_EQ(FloatToHalf(1.0F + 3 * 0x1p-11F), 0x3C02);         // a tie, up to even
  EXPECT_EQ(FloatToHalf(1.0F + 0x1p-11F + 0x1p-20F), 0x3C01);  // above the tie
  EXPECT_EQ(FloatToHalf(65519.0F), 0x7BFF);
  EXPECT_EQ(FloatToHalf(65520.0F), 0x7C00);  // infinity
  EXPECT_EQ(FloatToHalf(0x1p-25F), 0x0000);  // half of the smallest subnormal, a tie
  EXPECT_EQ(FloatToHalf(0x1.8p-25F), 0x0001);
}

}  // namespace
}  // namespace muselet::cpu
