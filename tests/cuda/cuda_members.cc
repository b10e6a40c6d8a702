#include "tests/cuda/cuda_members.h"

#include <deque>
#include <utility>

#include "base/check.h"
#include "tests/comms/rank_members.h"

namespace muselet::testing {
namespace {

class StagedGroup final : public RankGroup {
 public:
  StagedGroup(std::unique_ptr<RankGroup> group, int32_t device)
      : group_(std::move(group)), device_(device) {}
  ~StagedGroup() override {
    group_.reset();
    for (const Copy& copy : copies_) Plugin().release(device_, copy.device);
  }

  uint32_t rank() const override { return group_->rank(); }
  uint32_t size() const override { return group_->size(); }
  std::string_view transport() const override { return group_->transport(); }

  RankTicket AllReduce(std::span<float> values) override {
    const std::span<std::byte> there = Stage(std::as_writable_bytes(values), true);
    return Note(group_->AllReduce({reinterpret_cast<float*>(there.data()), values.size()}));
  }
  RankTicket AllGather(std::span<const std::byte> mine, std::span<std::byte> all) override {
    const std::span<std::byte> there = StageInput(mine);
    const std::span<std::byte> gathered = Stage(all, true);
    return Note(group_->AllGather(there, gathered));
  }
  RankTicket Broadcast(std::span<std::byte> data, uint32_t root) override {
    return Note(group_->Broadcast(Stage(data, true), root));
  }
  RankTicket Send(std::span<const std::byte> data, uint32_t to) override {
    return Note(group_->Send(StageInput(data), to));
  }
  RankTicket Recv(std::span<std::byte> data, uint32_t from) override {
    return Note(group_->Recv(Stage(data, true), from));
  }
  Status Wait(RankTicket ticket, int64_t deadline_us) override {
    RETURN_IF_ERROR(group_->Wait(ticket, deadline_us));
    while (!copies_.empty() && copies_.front().ticket <= ticket) {
      const Copy copy = copies_.front();
      copies_.pop_front();
      CudaFault fault = {};
      if (copy.back) {
        Plugin().copy(device_, copy.host.data(), copy.device, copy.host.size(), &fault);
        CHECK(fault.code == 0, fault.message);
      }
      Plugin().release(device_, copy.device);
    }
    return OkStatus();
  }
  void Abort(const Status& reason) override { group_->Abort(reason); }
  RankProgress progress() const override { return group_->progress(); }
  std::vector<RankOperationRecord> records() const override { return group_->records(); }

 private:
  struct Copy {
    RankTicket ticket = 0;  // 0: of the operation that is about to be called
    std::span<std::byte> host;
    void* device = nullptr;
    bool back = false;
  };

  std::span<std::byte> Stage(std::span<std::byte> host, bool back) {
    CudaFault fault = {};
    void* memory = Plugin().allocate(device_, host.size(), &fault);
    CHECK(fault.code == 0, fault.message);
    Plugin().copy(device_, memory, host.data(), host.size(), &fault);
    CHECK(fault.code == 0, fault.message);
    copies_.push_back({0, host, memory, back});
    return {static_cast<std::byte*>(memory), host.size()};
  }
  std::span<std::byte> StageInput(std::span<const std::byte> host) {
    return Stage({const_cast<std::byte*>(host.data()), host.size()}, false);
  }
  RankTicket Note(RankTicket ticket) {
    for (Copy& copy : copies_) {
      if (copy.ticket == 0) copy.ticket = ticket;
    }
    return ticket;
  }

  std::unique_ptr<RankGroup> group_;
  const int32_t device_;
  std::deque<Copy> copies_;  // in the order of their tickets
};

}  // namespace

const CudaPluginTable& Plugin() {
  static const CudaPluginTable* const table = [] {
    const auto loaded = LoadCudaPlugin(MUSELET_CUDA_PLUGIN);
    CHECK(loaded.ok(), loaded.status().ToString());
    return *loaded;
  }();
  return *table;
}

std::string WhyNoDevices(uint32_t count) {
  CudaFault fault = {};
  const uint32_t there = Plugin().device_count(&fault);
  if (fault.code != 0) return std::string("no GPU: ") + fault.message;
  if (there >= count) return "";
  return "no GPU: " + std::to_string(count) + " are needed, there are " + std::to_string(there);
}

Result<std::unique_ptr<RankGroup>> MakeStagedNcclGroup(const RankGroupSpec& spec, int32_t device,
                                                       RankRendezvous& rendezvous) {
  NcclGroupOptions options;
  options.device = device;
  ASSIGN_OR_RETURN(std::unique_ptr<RankGroup> group,
                   MakeNcclGroup(spec, options, Plugin(), rendezvous));
  return std::unique_ptr<RankGroup>(std::make_unique<StagedGroup>(std::move(group), device));
}

// Members as threads, each with a device of its own: NCCL takes no device twice in one process.
const std::vector<RankMaker>& RankMakers() {
  static const std::vector<RankMaker> makers = {
      {"nccl",
       [](const RankGroupSpec& spec, RankRendezvous& rendezvous) {
         return MakeStagedNcclGroup(spec, static_cast<int32_t>(spec.rank), rendezvous);
       },
       WhyNoDevices, /*keeps_sends=*/false}};
  return makers;
}

}  // namespace muselet::testing
