// Members of NCCL groups for tests that know host memory only.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/status.h"
#include "comms/nccl_group.h"
#include "comms/rank_group.h"

namespace muselet::testing {

// The plugin as it was built; the test fails without it.
const CudaPluginTable& Plugin();

// Why there are not so many devices: "no GPU: ..."; "" if there are.
std::string WhyNoDevices(uint32_t count);

// Makes a group over the device's memory, and a twin around it that takes host memory: what it is
// given is copied to the device when an operation is called, and back when it was waited for.
Result<std::unique_ptr<RankGroup>> MakeStagedNcclGroup(const RankGroupSpec& spec, int32_t device,
                                                       RankRendezvous& rendezvous);

}  // namespace muselet::testing
