// Rank groups over NCCL: the ranks are CUDA devices, the memory of operations is theirs
// (RankMemory::kDevice), and the library stands behind the plugin libmuselet_cuda.so, so that the
// program runs where there is no CUDA.
//
// Sums are gathered and added by the pairwise tree, like everybody's, unless `fast` leaves them to
// the library. NCCL cannot tell members that call different operations from one that does not come:
// both end at the deadline. Members learn of an Abort by their own deadline, or from their leader.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/status.h"
#include "comms/cuda_plugin.h"
#include "comms/rank_group.h"
#include "comms/rank_group_makers.h"

namespace muselet {

// The plugin's functions, for as long as the process lives. kUnavailable says why there are none:
// no such file, no NCCL, another release.
Result<const CudaPluginTable*> LoadCudaPlugin(const std::string& path);

struct NcclGroupOptions {
  int32_t device = 0;
  bool fast = false;       // sums in the library's order
  void* stream = nullptr;  // cudaStream_t on which operations are enqueued; null: one of its own
  // What NCCL's abort may take. Then only the end of the process frees the device.
  int64_t abort_budget_us = 2'000'000;
  // Ends the process, having said why. Null: logs it and exits with 5, as a rank that hangs does.
  std::function<void(const std::string& reason)> give_up = nullptr;
};

// As all makers (comms/rank_group_makers); `plugin` stays. kUnavailable: no such device.
Result<std::unique_ptr<RankGroup>> MakeNcclGroup(const RankGroupSpec& spec,
                                                 const NcclGroupOptions& options,
                                                 const CudaPluginTable& plugin,
                                                 RankRendezvous& rendezvous);

}  // namespace muselet
