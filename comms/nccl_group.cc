#include "comms/nccl_group.h"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "comms/rank_records.h"

namespace muselet {
namespace {

constexpr int64_t kSpinUs = 200;  // looks again at once, then with pauses
constexpr int64_t kPauseUs = 20;
constexpr int64_t kMakingPauseUs = 1000;
constexpr int kExitStuck = 5;  // kRankExitStuck of node/rank/restart_policy

Status StatusOf(const CudaFault& fault) {
  if (fault.code == 0) return OkStatus();
  return Status(static_cast<StatusCode>(fault.code), fault.message);
}

void LogOfPlugin(void* /*context*/, int32_t severity, const char* message) {
  const auto tell = severity >= 3   ? LogError
                    : severity == 2 ? LogWarn
                    : severity == 1 ? LogInfo
                                    : LogDebug;
  tell(message, {{"from", "cuda"}});
}

void EndProcess(const std::string& reason) {
  LogError("the process ends, as only that frees its device", {{"reason", reason}});
  _exit(kExitStuck);
}

class NcclGroup final : public RankGroup {
 public:
  NcclGroup(const RankGroupSpec& spec, NcclGroupOptions options, const CudaPluginTable& plugin)
      : spec_(spec),
        options_(std::move(options)),
        plugin_(plugin),
        records_(spec.name, "nccl", spec.rank) {
    if (!options_.give_up) options_.give_up = EndProcess;
  }
  ~NcclGroup() override {
    BeginEnding();
    if (ending_.joinable()) ending_.join();
    if (group_ != nullptr) plugin_.group_free(group_);
  }

  // Once, before anything else.
  Status Make(RankRendezvous& rendezvous);

  uint32_t rank() const override { return spec_.rank; }
  uint32_t size() const override { return spec_.size; }
  std::string_view transport() const override { return "nccl"; }
  RankMemory memory() const override { return RankMemory::kDevice; }

  RankTicket AllReduce(std::span<float> values) override {
    const auto bytes = std::as_writable_bytes(values);
    return Enqueue(RankOperation::kAllReduce, 0, bytes.data(), bytes.data(), bytes.size());
  }
  RankTicket AllGather(std::span<const std::byte> mine, std::span<std::byte> all) override {
    CHECK(all.size() == mine.size() * spec_.size, spec_.name, ": ", all.size());
    return Enqueue(RankOperation::kAllGather, 0, mine.data(), all.data(), mine.size());
  }
  RankTicket Broadcast(std::span<std::byte> data, uint32_t root) override {
    CHECK(root < spec_.size, spec_.name, ": root ", root);
    return Enqueue(RankOperation::kBroadcast, root, data.data(), data.data(), data.size());
  }
  RankTicket Send(std::span<const std::byte> data, uint32_t to) override {
    CHECK(to < spec_.size && to != spec_.rank, spec_.name, ": to ", to);
    return Enqueue(RankOperation::kSend, to, data.data(), nullptr, data.size());
  }
  RankTicket Recv(std::span<std::byte> data, uint32_t from) override {
    CHECK(from < spec_.size && from != spec_.rank, spec_.name, ": from ", from);
    return Enqueue(RankOperation::kRecv, from, nullptr, data.data(), data.size());
  }
  Status Wait(RankTicket ticket, int64_t deadline_us) override;
  void Abort(const Status& reason) override {
    const bool as_is =
        reason.code() == StatusCode::kUnavailable || reason.code() == StatusCode::kCancelled;
    Fail(as_is ? reason : Unavailable(reason.ToString()));
  }
  RankProgress progress() const override { return records_.progress(); }
  std::vector<RankOperationRecord> records() const override { return records_.records(); }

 private:
  // How far a call that cannot be interrupted is.
  struct Ending {
    std::mutex mutex;
    std::condition_variable changed;
    bool done = false;
  };

  Status BeginMaking(RankRendezvous& rendezvous);
  RankTicket Enqueue(RankOperation operation, uint32_t peer, const void* in, void* out,
                     size_t bytes);
  Status Progress();
  Status LateFault(RankTicket ticket) const;
  void Fail(const Status& fault) {
    if (records_.Fault(fault)) BeginEnding();
  }
  // Until so much time has passed, or the group ends.
  void Pause(int64_t us);
  void BeginEnding();
  void End();

  const RankGroupSpec spec_;
  NcclGroupOptions options_;
  const CudaPluginTable& plugin_;
  RankRecords records_;
  CudaGroup* group_ = nullptr;
  std::mutex calls_;  // into the group, each of them short but for its end
  std::mutex ending_mutex_;
  std::condition_variable ending_changed_;
  bool ending_begun_ = false;  // under ending_mutex_
  std::thread ending_;
};

Status NcclGroup::BeginMaking(RankRendezvous& rendezvous) {
  CudaFault fault = {};
  const uint32_t devices = plugin_.device_count(&fault);
  RETURN_IF_ERROR(StatusOf(fault));
  if (options_.device < 0 || static_cast<uint32_t>(options_.device) >= devices) {
    return Unavailable("no device cuda:" + std::to_string(options_.device) + ", there are " +
                       std::to_string(devices));
  }
  CudaGroupSpec made = {};
  made.rank = spec_.rank;
  made.size = spec_.size;
  made.device = options_.device;
  made.fast = options_.fast ? 1 : 0;
  made.message_bytes_max = spec_.message_bytes_max;
  made.stream = options_.stream;
  const std::string key = spec_.name + "/nccl/id";
  if (spec_.rank == 0) {
    plugin_.new_unique_id(made.unique_id, &fault);
    RETURN_IF_ERROR(StatusOf(fault));
    RETURN_IF_ERROR(rendezvous.Put(key, std::string(made.unique_id, kCudaUniqueIdBytes)));
  } else {
    const auto id = rendezvous.Get(key, spec_.deadline_us);
    if (!id.ok()) return id.status().WithContext("member 0 is missing");
    if (id->size() != kCudaUniqueIdBytes) return Unavailable("member 0 gave no id of a group");
    std::memcpy(made.unique_id, id->data(), kCudaUniqueIdBytes);
  }
  group_ = plugin_.group_begin(&made, &fault);
  return StatusOf(fault);
}

Status NcclGroup::Make(RankRendezvous& rendezvous) {
  RETURN_IF_ERROR(BeginMaking(rendezvous));
  while (true) {
    CudaFault fault = {};
    const bool ready = plugin_.group_ready(group_, &fault) != 0;
    RETURN_IF_ERROR(StatusOf(fault));
    if (ready) return OkStatus();
    RETURN_IF_ERROR(rendezvous.ended());
    if (Clock::Real().NowUs() >= spec_.deadline_us) {
      return DeadlineExceeded("not all of its " + std::to_string(spec_.size) +
                              " members came in time; member " + std::to_string(spec_.rank) +
                              " did");
    }
    Pause(kMakingPauseUs);
  }
}

RankTicket NcclGroup::Enqueue(RankOperation operation, uint32_t peer, const void* in, void* out,
                              size_t bytes) {
  CHECK(bytes <= spec_.message_bytes_max, spec_.name, ": ", bytes, " bytes");
  const bool to_other =
      operation != RankOperation::kAllReduce && operation != RankOperation::kAllGather;
  const uint32_t recorded = to_other ? peer : spec_.rank;
  const RankTicket ticket = records_.Enqueued(operation, recorded, bytes);
  CudaFault fault = {};
  {
    const std::lock_guard lock(calls_);
    if (records_.faulted()) return ticket;
    const CudaOperation enqueued = {ticket, static_cast<uint32_t>(operation), peer, in, out, bytes};
    plugin_.group_enqueue(group_, &enqueued, &fault);
  }
  // Told by the Wait that follows.
  if (fault.code != 0) Fail(StatusOf(fault).WithContext("rank group " + spec_.name));
  return ticket;
}

Status NcclGroup::Progress() {
  CudaFault fault = {};
  const std::lock_guard lock(calls_);
  if (records_.faulted()) return OkStatus();
  const RankTicket completed = plugin_.group_progress(group_, &fault);
  RETURN_IF_ERROR(StatusOf(fault).WithContext("rank group " + spec_.name));
  if (completed > records_.completed()) records_.Completed(completed);
  return OkStatus();
}

Status NcclGroup::LateFault(RankTicket ticket) const {
  return DeadlineExceeded("rank group " + spec_.name + ", member " + std::to_string(spec_.rank) +
                          " at operation " + std::to_string(records_.completed() + 1) + " of " +
                          std::to_string(ticket) + ": the deadline passed");
}

Status NcclGroup::Wait(RankTicket ticket, int64_t deadline_us) {
  CHECK(ticket <= records_.progress().enqueued, spec_.name, ": ticket ", ticket);
  const int64_t begin_us = Clock::Real().NowUs();
  while (!records_.faulted() && records_.completed() < ticket) {
    const Status fault = Progress();
    if (!fault.ok()) Fail(fault);
    if (records_.faulted() || records_.completed() >= ticket) break;
    const int64_t now_us = Clock::Real().NowUs();
    if (now_us >= deadline_us) {
      Fail(LateFault(ticket));
    } else if (now_us - begin_us > kSpinUs) {
      Pause(kPauseUs);
    } else {
      std::this_thread::yield();
    }
  }
  return records_.faulted() ? records_.fault() : OkStatus();
}

void NcclGroup::Pause(int64_t us) {
  std::unique_lock lock(ending_mutex_);
  ending_changed_.wait_for(lock, std::chrono::microseconds(us), [this] { return ending_begun_; });
}

void NcclGroup::BeginEnding() {
  const std::lock_guard lock(ending_mutex_);
  if (std::exchange(ending_begun_, true) || group_ == nullptr) return;
  ending_changed_.notify_all();
  ending_ = std::thread([this] { End(); });
}

// NCCL's abort can hang where a device or a driver does, and nothing but the end of the process
// helps then.
void NcclGroup::End() {
  Ending ending;
  std::thread worker([&] {
    {
      const std::lock_guard lock(calls_);
      plugin_.group_end(group_);
    }
    const std::lock_guard lock(ending.mutex);
    ending.done = true;
    ending.changed.notify_all();
  });
  {
    std::unique_lock lock(ending.mutex);
    const auto budget = std::chrono::microseconds(options_.abort_budget_us);
    if (!ending.changed.wait_for(lock, budget, [&] { return ending.done; })) {
      options_.give_up("rank group " + spec_.name + ": NCCL could not be aborted within " +
                       std::to_string(options_.abort_budget_us / 1000) + " ms");
    }
  }
  worker.join();
}

}  // namespace

Result<const CudaPluginTable*> LoadCudaPlugin(const std::string& path) {
  static constexpr CudaHostServices kHost = {nullptr, LogOfPlugin};
  // Never closed: its threads and those of the libraries below it outlive every use.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return Unavailable(std::string("no CUDA plugin: ") + dlerror());
  void* symbol = dlsym(library, kCudaPluginEntry);
  if (symbol == nullptr) return Unavailable(path + " is no plugin of muselet");
  CudaFault fault = {};
  const auto entry = reinterpret_cast<CudaPluginEntry>(symbol);
  const CudaPluginTable* table = entry(CudaPluginAbi(), &kHost, &fault);
  if (table == nullptr && fault.code == 0) return Unavailable(path + " gives no functions");
  if (table == nullptr) return StatusOf(fault).WithContext(path);
  return table;
}

Result<std::unique_ptr<RankGroup>> MakeNcclGroup(const RankGroupSpec& spec,
                                                 const NcclGroupOptions& options,
                                                 const CudaPluginTable& plugin,
                                                 RankRendezvous& rendezvous) {
  RETURN_IF_ERROR(ValidateRankGroupSpec(spec));
  auto group = std::make_unique<NcclGroup>(spec, options, plugin);
  const Status made = group->Make(rendezvous);
  if (!made.ok()) return made.WithContext("rank group " + spec.name);
  return std::unique_ptr<RankGroup>(std::move(group));
}

}  // namespace muselet
