// What crosses between the program and its plugin libmuselet_cuda.so, which alone knows CUDA and
// NCCL: plain structs and functions. No exception, no global and no owner of a standard container
// crosses; texts are copied into buffers of the caller. Both sides are built from one release: the
// number that the entry point is called with is a hash of this file's layout.
//
// The plugin moves and waits for nothing by itself: it enqueues on streams and says how far they
// are. Deadlines, records, logs and the end of a process are the program's (comms/nccl_group).
#pragma once

#include <cstddef>
#include <cstdint>

namespace muselet {

// A fault as the plugin tells it; `code` is a StatusCode, 0 = none.
struct CudaFault {
  int32_t code;
  char message[508];
};

struct CudaHostServices {
  void* context;
  // severity: 0 debug, 1 info, 2 warning, 3 error. Any thread.
  void (*log)(void* context, int32_t severity, const char* message);
};

constexpr size_t kCudaUniqueIdBytes = 128;

struct CudaGroupSpec {
  uint32_t rank;
  uint32_t size;
  int32_t device;
  uint32_t fast;               // sums may be the library's, in an order of its own
  uint64_t message_bytes_max;  // the largest operation
  void* stream;                // cudaStream_t; null: one of the group's own
  char unique_id[kCudaUniqueIdBytes];
};

// One operation of comms/rank_group; memory is the device's.
struct CudaOperation {
  uint64_t ticket;
  uint32_t operation;  // RankOperation
  uint32_t peer;       // root, receiver or sender
  const void* in;
  void* out;
  uint64_t bytes;  // of one member's part
};

struct CudaGroup;  // a communicator of NCCL with its stream

// Functions fill `fault` when they fail, and leave it as it is otherwise. Those of one group are
// called by one thread at a time.
struct CudaPluginTable {
  // Why there is none stands in `fault`.
  uint32_t (*device_count)(CudaFault* fault);
  // Names a group that is going to be made; `bytes` has kCudaUniqueIdBytes.
  void (*new_unique_id)(char* bytes, CudaFault* fault);

  // Begins to make a group and waits for no other member; nullptr with a fault.
  CudaGroup* (*group_begin)(const CudaGroupSpec* spec, CudaFault* fault);
  // 1 when all members have it.
  uint32_t (*group_ready)(CudaGroup* group, CudaFault* fault);
  // Never waits. Sends and receives are started together by the next group_progress or by another
  // operation, so that members may send before they receive.
  void (*group_enqueue)(CudaGroup* group, const CudaOperation* operation, CudaFault* fault);
  // Starts what can be started; the ticket of the last operation that is complete.
  uint64_t (*group_progress)(CudaGroup* group, CudaFault* fault);
  // Aborts all operations. May take for ever if the device or a peer does not answer.
  void (*group_end)(CudaGroup* group);
  // REQUIRES: group_end has returned.
  void (*group_free)(CudaGroup* group);

  // Memory of a device; `copy` goes either way and waits until it is done.
  void* (*allocate)(int32_t device, uint64_t bytes, CudaFault* fault);
  void (*release)(int32_t device, void* memory);
  void (*copy)(int32_t device, void* to, const void* from, uint64_t bytes, CudaFault* fault);
};

// Grows with each change of what the functions mean.
constexpr uint64_t kCudaPluginRevision = 1;

constexpr uint64_t CudaPluginAbi() {
  uint64_t hash = 14695981039346656037ULL;
  for (const uint64_t part :
       {kCudaPluginRevision, uint64_t{sizeof(void*)}, uint64_t{sizeof(CudaFault)},
        uint64_t{sizeof(CudaHostServices)}, uint64_t{sizeof(CudaGroupSpec)},
        uint64_t{offsetof(CudaGroupSpec, stream)}, uint64_t{sizeof(CudaOperation)},
        uint64_t{offsetof(CudaOperation, bytes)}, uint64_t{sizeof(CudaPluginTable)}}) {
    hash = (hash ^ part) * 1099511628211ULL;
  }
  return hash;
}

// The one symbol of the plugin: its functions, or nullptr with a fault if `abi` is not its own.
// `host` outlives the process's use of the plugin.
constexpr const char* kCudaPluginEntry = "muselet_cuda_plugin";
using CudaPluginEntry = const CudaPluginTable* (*)(uint64_t abi, const CudaHostServices* host,
                                                   CudaFault* fault);

}  // namespace muselet
