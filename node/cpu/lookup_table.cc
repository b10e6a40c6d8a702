#include "node/cpu/lookup_table.h"

#include "base/check.h"
#include "base/device/dequantize.h"

namespace muselet::cpu {

void LookupTable::Read(uint32_t row, float* out) const {
  const DTypeTraits traits = Traits(tensor_.dtype);
  const size_t row_bytes = columns() / traits.block_values * size_t{traits.block_bytes};
  const Status status =
      DequantizeRow(tensor_.dtype, tensor_.data + row * row_bytes, columns(), out);
  CHECK(status.ok(), status.message());
}

Result<std::unique_ptr<Matrix>> MakeLookupTable(const TensorView& tensor) {
  if (tensor.rank != 2 || tensor.count() == 0 || tensor.dtype == DType::kI8 ||
      tensor.dim(0) > UINT32_MAX || tensor.dim(1) > UINT32_MAX ||
      tensor.dim(1) % Traits(tensor.dtype).block_values != 0)
    return InvalidArgument("cannot look up rows of a tensor " + tensor.ToString());
  return std::unique_ptr<Matrix>(std::make_unique<LookupTable>(tensor));
}

}  // namespace muselet::cpu
