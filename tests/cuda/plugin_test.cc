// What can be known of the plugin on a machine without a device.
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "comms/rank_tree.h"
#include "cuda/tree_sum.h"
#include "tests/comms/rank_members.h"
#include "tests/cuda/cuda_members.h"
#include "tests/support/shared_rendezvous.h"

namespace muselet::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

TEST(CudaPluginTest, RefusesAProgramOfAnotherRelease) {
  static_cast<void>(Plugin());
  void* library = dlopen(MUSELET_CUDA_PLUGIN, RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(library, nullptr) << dlerror();
  const auto entry = reinterpret_cast<CudaPluginEntry>(dlsym(library, kCudaPluginEntry));
  ASSERT_NE(entry, nullptr);
  CudaFault fault = {};
  EXPECT_EQ(entry(CudaPluginAbi() + 1, nullptr, &fault), nullptr);
  EXPECT_THAT(fault.message, HasSubstr("another release"));
}

TEST(CudaPluginTest, CountsDevicesOrSaysWhyThereAreNone) {
  CudaFault fault = {};
  const uint32_t devices = Plugin().device_count(&fault);
  if (devices > 0) {
    EXPECT_EQ(fault.code, 0);
    return;
  }
  EXPECT_EQ(fault.code, static_cast<int32_t>(StatusCode::kUnavailable));
  EXPECT_THAT(fault.message, StartsWith("no CUDA device can be used: "));
  SharedRendezvous rendezvous;
  const auto made = MakeStagedNcclGroup(
      {.name = "tensor-0", .rank = 0, .size = 1, .deadline_us = Patience()}, 0, rendezvous);
  EXPECT_EQ(made.status().code(), StatusCode::kUnavailable);
  EXPECT_THAT(made.status().message(), HasSubstr("no CUDA device can be used"));
}

// The kernel's own function, compiled for the processor.
TEST(CudaTreeTest, AddsInTheOrderOfAllMakers) {
  constexpr size_t kCount = 257;
  for (uint32_t members = 1; members <= cuda::kTreePartsMax; ++members) {
    std::vector<float> parts;
    for (uint32_t member = 0; member < members; ++member) {
      const auto values = TouchyValues(member, kCount, 3);
      parts.insert(parts.end(), values.begin(), values.end());
    }
    std::vector<const float*> pointers;
    for (uint32_t member = 0; member < members; ++member)
      pointers.push_back(parts.data() + member * kCount);
    std::vector<float> want(kCount), got(kCount);
    RankTreeSum(pointers, kCount, want.data());
    for (size_t i = 0; i < kCount; ++i) got[i] = cuda::TreeSum(parts.data() + i, members, kCount);
    EXPECT_EQ(std::memcmp(got.data(), want.data(), kCount * sizeof(float)), 0) << members;
  }
}

}  // namespace
}  // namespace muselet::testing
