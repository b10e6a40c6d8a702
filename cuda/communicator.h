// One NCCL communicator with a stream: a queue of operations of comms/rank_group that never waits.
// The communicator is nonblocking: a call that needs its peers goes on inside NCCL while we look
// from time to time, so that a peer that does not come costs a deadline and not a thread.
//
// Faults are exceptions (Fault), which the plugin's functions catch. Called by one thread at a
// time.
#pragma once

#include <cuda_runtime.h>
#include <nccl.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <stdexcept>
#include <string>
#include <vector>

#include "comms/cuda_plugin.h"

namespace muselet::cuda {

// `code` is a StatusCode.
class Fault : public std::runtime_error {
 public:
  Fault(int32_t code, const std::string& message) : std::runtime_error(message), code_(code) {}
  int32_t code() const { return code_; }

 private:
  int32_t code_;
};

void Check(cudaError_t result, const char* what);

class Communicator {
 public:
  // Begins to make it; waits for no other member.
  explicit Communicator(const CudaGroupSpec& spec);
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;
  // REQUIRES: End has returned, or the constructor threw.
  ~Communicator() = default;

  bool Ready();
  void Enqueue(const CudaOperation& operation);
  uint64_t Progress();
  void End() noexcept;

 private:
  // A part of an operation that is one call of NCCL, or one of a group of such calls.
  struct Launch {
    CudaOperation operation;
    uint64_t begin;  // in bytes
    uint64_t bytes;
    bool last;  // of the operation
  };
  struct Pending {
    uint64_t ticket;
    cudaEvent_t event;
  };

  bool InProgress();
  void CheckCall(ncclResult_t result, const char* what);
  void StartNext();
  void Start(const Launch& launch);
  void Finish(const Launch& launch);
  void Advance();
  void Begin(const CudaGroupSpec& spec);

  const CudaGroupSpec spec_;
  ncclComm_t comm_ = nullptr;
  cudaStream_t stream_ = nullptr;
  bool owns_stream_ = false;
  float* scratch_ = nullptr;         // all members' parts of a piece of a sum
  uint64_t piece_bytes_ = 0;         // of one member, in the scratch memory
  std::deque<Launch> queue_;         // not begun
  std::vector<Launch> started_;      // begun together; NCCL may still be at it
  std::deque<Pending> pending_;      // on the stream, oldest first
  std::vector<cudaEvent_t> events_;  // to be used again
  uint64_t completed_ = 0;
};

}  // namespace muselet::cuda
