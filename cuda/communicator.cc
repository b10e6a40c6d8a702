#include "cuda/communicator.h"

#include <algorithm>
#include <cstring>

#include "comms/rank_group.h"
#include "cuda/tree_sum.h"

namespace muselet::cuda {
namespace {

constexpr int32_t kUnavailable = static_cast<int32_t>(StatusCode::kUnavailable);
constexpr int32_t kInternal = static_cast<int32_t>(StatusCode::kInternal);
constexpr int32_t kResourceExhausted = static_cast<int32_t>(StatusCode::kResourceExhausted);
constexpr uint64_t kPieceBytesMax = 4U << 20;  // of a sum, at once

RankOperation KindOf(const CudaOperation& operation) {
  return static_cast<RankOperation>(operation.operation);
}

bool IsPointToPoint(const CudaOperation& operation) {
  const RankOperation kind = KindOf(operation);
  return kind == RankOperation::kSend || kind == RankOperation::kRecv;
}

const std::byte* At(const void* memory, uint64_t offset) {
  return static_cast<const std::byte*>(memory) + offset;
}

std::byte* At(void* memory, uint64_t offset) {
  return static_cast<std::byte*>(memory) + offset;
}

}  // namespace

void Check(cudaError_t result, const char* what) {
  if (result == cudaSuccess) return;
  const int32_t code = result == cudaErrorMemoryAllocation ? kResourceExhausted : kUnavailable;
  throw Fault(code, std::string(what) + ": " + cudaGetErrorString(result));
}

Communicator::Communicator(const CudaGroupSpec& spec)
    : spec_(spec), stream_(static_cast<cudaStream_t>(spec.stream)) {
  try {
    Begin(spec);
  } catch (...) {
    End();
    throw;
  }
}

void Communicator::Begin(const CudaGroupSpec& spec) {
  Check(cudaSetDevice(spec.device), "cudaSetDevice");
  if (stream_ == nullptr) {
    Check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
    owns_stream_ = true;
  }
  if (spec.fast == 0 && spec.size > 1) {
    piece_bytes_ = std::clamp<uint64_t>(spec.message_bytes_max & ~uint64_t{3}, 4, kPieceBytesMax);
    void* scratch = nullptr;
    Check(cudaMalloc(&scratch, piece_bytes_ * spec.size), "memory for sums");
    scratch_ = static_cast<float*>(scratch);
  }
  ncclUniqueId id;
  static_assert(sizeof(id.internal) == kCudaUniqueIdBytes);
  std::memcpy(id.internal, spec.unique_id, sizeof(id.internal));
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  CheckCall(ncclCommInitRankConfig(&comm_, static_cast<int>(spec.size), id,
                                   static_cast<int>(spec.rank), &config),
            "ncclCommInitRank");
}

// What a call has begun may go on: InProgress tells its faults.
void Communicator::CheckCall(ncclResult_t result, const char* what) {
  if (result == ncclSuccess || result == ncclInProgress) return;
  std::string why = ncclGetErrorString(result);
  if (const char* more = ncclGetLastError(comm_); more != nullptr && *more != '\0') {
    why += std::string(": ") + more;
  }
  const bool remote = result == ncclRemoteError || result == ncclSystemError;
  throw Fault(remote || result == ncclUnhandledCudaError ? kUnavailable : kInternal,
              std::string(what) + ": " + why);
}

bool Communicator::InProgress() {
  ncclResult_t state = ncclSuccess;
  CheckCall(ncclCommGetAsyncError(comm_, &state), "ncclCommGetAsyncError");
  CheckCall(state, "NCCL");
  return state == ncclInProgress;
}

bool Communicator::Ready() {
  Check(cudaSetDevice(spec_.device), "cudaSetDevice");
  return !InProgress();
}

void Communicator::Enqueue(const CudaOperation& operation) {
  if (comm_ == nullptr) throw Fault(kUnavailable, "the group was ended");
  Check(cudaSetDevice(spec_.device), "cudaSetDevice");
  const bool in_pieces = KindOf(operation) == RankOperation::kAllReduce && scratch_ != nullptr;
  const uint64_t most = in_pieces ? piece_bytes_ : std::max<uint64_t>(operation.bytes, 1);
  uint64_t begin = 0;
  do {
    const uint64_t bytes = std::min(most, operation.bytes - begin);
    queue_.push_back({operation, begin, bytes, begin + bytes == operation.bytes});
    begin += bytes;
  } while (begin < operation.bytes);
  // Those that others are going to follow start together, or two that both send first would wait
  // for each other.
  if (!IsPointToPoint(operation)) Advance();
}

void Communicator::Advance() {
  while (true) {
    if (!started_.empty()) {
      if (InProgress()) return;
      for (const Launch& launch : started_) Finish(launch);
      started_.clear();
    }
    if (queue_.empty()) return;
    StartNext();
  }
}

void Communicator::StartNext() {
  const bool group = IsPointToPoint(queue_.front().operation);
  do {
    started_.push_back(queue_.front());
    queue_.pop_front();
  } while (group && !queue_.empty() && IsPointToPoint(queue_.front().operation));
  if (group) CheckCall(ncclGroupStart(), "ncclGroupStart");
  for (const Launch& launch : started_) Start(launch);
  if (group) CheckCall(ncclGroupEnd(), "ncclGroupEnd");
}

void Communicator::Start(const Launch& launch) {
  const CudaOperation& operation = launch.operation;
  if (launch.bytes == 0) return;
  const auto peer = static_cast<int>(operation.peer);
  switch (KindOf(operation)) {
    case RankOperation::kAllReduce:
      if (scratch_ != nullptr) {
        return CheckCall(ncclAllGather(At(operation.in, launch.begin), scratch_, launch.bytes,
                                       ncclInt8, comm_, stream_),
                         "ncclAllGather");
      }
      return CheckCall(ncclAllReduce(operation.in, operation.out, launch.bytes / sizeof(float),
                                     ncclFloat32, ncclSum, comm_, stream_),
                       "ncclAllReduce");
    case RankOperation::kAllGather:
      return CheckCall(
          ncclAllGather(operation.in, operation.out, launch.bytes, ncclInt8, comm_, stream_),
          "ncclAllGather");
    case RankOperation::kBroadcast:
      return CheckCall(
          ncclBroadcast(operation.in, operation.out, launch.bytes, ncclInt8, peer, comm_, stream_),
          "ncclBroadcast");
    case RankOperation::kSend:
      return CheckCall(ncclSend(operation.in, launch.bytes, ncclInt8, peer, comm_, stream_),
                       "ncclSend");
    case RankOperation::kRecv:
      return CheckCall(ncclRecv(operation.out, launch.bytes, ncclInt8, peer, comm_, stream_),
                       "ncclRecv");
  }
}

// NCCL has put it on the stream.
void Communicator::Finish(const Launch& launch) {
  const CudaOperation& operation = launch.operation;
  if (KindOf(operation) == RankOperation::kAllReduce && scratch_ != nullptr) {
    Check(EnqueueTreeSum(scratch_, spec_.size, launch.bytes / sizeof(float),
                         reinterpret_cast<float*>(At(operation.out, launch.begin)), stream_),
          "the sum of the members' parts");
  }
  if (!launch.last) return;
  if (events_.empty()) {
    cudaEvent_t event = nullptr;
    Check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate");
    events_.push_back(event);
  }
  const cudaEvent_t event = events_.back();
  events_.pop_back();
  pending_.push_back({operation.ticket, event});
  Check(cudaEventRecord(event, stream_), "cudaEventRecord");
}

uint64_t Communicator::Progress() {
  if (comm_ == nullptr) throw Fault(kUnavailable, "the group was ended");
  Check(cudaSetDevice(spec_.device), "cudaSetDevice");
  // Also tells of a peer that is gone.
  if (started_.empty()) static_cast<void>(InProgress());
  Advance();
  while (!pending_.empty()) {
    const cudaError_t state = cudaEventQuery(pending_.front().event);
    if (state == cudaErrorNotReady) {
      // Else the next kernel's launch would be told of it.
      static_cast<void>(cudaGetLastError());
      break;
    }
    Check(state, "an operation on the device");
    completed_ = pending_.front().ticket;
    events_.push_back(pending_.front().event);
    pending_.pop_front();
  }
  return completed_;
}

void Communicator::End() noexcept {
  // What fails here has failed before; nothing is left to be done about it.
  static_cast<void>(cudaSetDevice(spec_.device));
  if (comm_ != nullptr) static_cast<void>(ncclCommAbort(comm_));
  comm_ = nullptr;
  for (const Pending& pending : pending_) events_.push_back(pending.event);
  pending_.clear();
  for (const cudaEvent_t event : events_) static_cast<void>(cudaEventDestroy(event));
  events_.clear();
  if (scratch_ != nullptr) static_cast<void>(cudaFree(scratch_));
  scratch_ = nullptr;
  if (owns_stream_) static_cast<void>(cudaStreamDestroy(stream_));
  owns_stream_ = false;
}

}  // namespace muselet::cuda
