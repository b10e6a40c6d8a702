// The functions of comms/cuda_plugin, and the symbol by which they are found. Nothing that is
// thrown here gets out.
#include <cuda_runtime.h>
#include <nccl.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include "comms/cuda_plugin.h"
#include "comms/rank_group.h"
#include "cuda/communicator.h"

namespace muselet {

struct CudaGroup {
  explicit CudaGroup(const CudaGroupSpec& spec) : communicator(spec) {}
  cuda::Communicator communicator;
};

namespace {

void Tell(CudaFault* fault, int32_t code, std::string_view message) {
  const size_t bytes = std::min(message.size(), sizeof(fault->message) - 1);
  fault->code = code;
  std::memcpy(fault->message, message.data(), bytes);
  fault->message[bytes] = '\0';
}

// Runs a body and gives what it throws as a fault, and `otherwise` as the value.
template <typename Value, typename Body>
Value Guard(CudaFault* fault, Value otherwise, const Body& body) {
  try {
    return body();
  } catch (const cuda::Fault& thrown) {
    Tell(fault, thrown.code(), thrown.what());
  } catch (const std::exception& thrown) {
    Tell(fault, static_cast<int32_t>(StatusCode::kInternal), thrown.what());
  }
  return otherwise;
}

uint32_t DeviceCount(CudaFault* fault) {
  return Guard<uint32_t>(fault, 0, [] {
    int count = 0;
    cuda::Check(cudaGetDeviceCount(&count), "no CUDA device can be used");
    return static_cast<uint32_t>(count);
  });
}

void NewUniqueId(char* bytes, CudaFault* fault) {
  Guard<bool>(fault, false, [bytes] {
    ncclUniqueId id;
    if (const ncclResult_t made = ncclGetUniqueId(&id); made != ncclSuccess) {
      throw cuda::Fault(static_cast<int32_t>(StatusCode::kUnavailable),
                        std::string("ncclGetUniqueId: ") + ncclGetErrorString(made));
    }
    std::memcpy(bytes, id.internal, kCudaUniqueIdBytes);
    return true;
  });
}

CudaGroup* GroupBegin(const CudaGroupSpec* spec, CudaFault* fault) {
  return Guard<CudaGroup*>(fault, nullptr,
                           [spec] { return std::make_unique<CudaGroup>(*spec).release(); });
}

uint32_t GroupReady(CudaGroup* group, CudaFault* fault) {
  return Guard<uint32_t>(fault, 0, [group] { return group->communicator.Ready() ? 1U : 0U; });
}

void GroupEnqueue(CudaGroup* group, const CudaOperation* operation, CudaFault* fault) {
  Guard<bool>(fault, false, [=] {
    group->communicator.Enqueue(*operation);
    return true;
  });
}

uint64_t GroupProgress(CudaGroup* group, CudaFault* fault) {
  return Guard<uint64_t>(fault, 0, [group] { return group->communicator.Progress(); });
}

void GroupEnd(CudaGroup* group) {
  group->communicator.End();
}

void GroupFree(CudaGroup* group) {
  const std::unique_ptr<CudaGroup> owner(group);
}

void* Allocate(int32_t device, uint64_t bytes, CudaFault* fault) {
  return Guard<void*>(fault, nullptr, [=] {
    void* memory = nullptr;
    cuda::Check(cudaSetDevice(device), "cudaSetDevice");
    cuda::Check(cudaMalloc(&memory, std::max<uint64_t>(bytes, 1)), "cudaMalloc");
    return memory;
  });
}

void Release(int32_t device, void* memory) {
  if (cudaSetDevice(device) == cudaSuccess) static_cast<void>(cudaFree(memory));
}

void Copy(int32_t device, void* to, const void* from, uint64_t bytes, CudaFault* fault) {
  Guard<bool>(fault, false, [=] {
    cuda::Check(cudaSetDevice(device), "cudaSetDevice");
    cuda::Check(cudaMemcpy(to, from, bytes, cudaMemcpyDefault), "cudaMemcpy");
    return true;
  });
}

constexpr CudaPluginTable kTable = {DeviceCount,  NewUniqueId,   GroupBegin, GroupReady,
                                    GroupEnqueue, GroupProgress, GroupEnd,   GroupFree,
                                    Allocate,     Release,       Copy};

}  // namespace
}  // namespace muselet

extern "C" __attribute__((visibility("default"))) const muselet::CudaPluginTable*
muselet_cuda_plugin(uint64_t abi, const muselet::CudaHostServices* host,
                    muselet::CudaFault* fault) {
  if (abi != muselet::CudaPluginAbi()) {
    muselet::Tell(fault, static_cast<int32_t>(muselet::StatusCode::kUnavailable),
                  "the plugin is of another release: install both from one");
    return nullptr;
  }
  int version = 0;
  if (host != nullptr && ncclGetVersion(&version) == ncclSuccess) {
    const std::string text = "NCCL " + std::to_string(version) + " is loaded";
    host->log(host->context, 0, text.c_str());
  }
  return &muselet::kTable;
}
