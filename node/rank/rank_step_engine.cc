#include "node/rank/rank_step_engine.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <deque>
#include <future>
#include <mutex>
#include <thread>
#include <utility>

#include "base/log.h"
#include "comms/event_loop.h"
#include "comms/raw_router.h"
#include "node/rank/epoch_leader.h"

namespace muselet {
namespace {

constexpr uint32_t kQueueMessagesMax = 1024;  // to a rank
constexpr int64_t kProbeIntervalUs = 20'000;
constexpr uint32_t kProbes = 5;

EpochPlan PlanOf(const RankStepEngineOptions& options) {
  EpochPlan plan;
  plan.replica = options.replica;
  plan.nodes = options.nodes;
  plan.pipeline = options.pipeline;
  plan.sampling_rank = (options.pipeline - 1) * options.tensor;
  plan.agreement.software_version = options.software_version;
  plan.agreement.model_digest = options.info.model_digest;
  plan.agreement.shard_plan_digest = options.shard_plan_digest;
  plan.agreement.numerics_id = options.info.numerics_id;
  for (const KvGroupInfo& group : options.info.kv_groups)
    plan.agreement.kv_blocks.push_back(group.block_count);
  return plan;
}

// Of what a Step is on the wire, from above.
size_t WireBytesMax(const StepWork& work) {
  constexpr size_t kNumberBytes = 10, kFrameBytes = 256;
  size_t bytes =
      kFrameBytes + kNumberBytes * (work.plan.tokens.size() + work.plan.block_tables.size() +
                                    (5 + kKvGroupsMax) * work.plan.slices.size());
  for (const SlotStart& start : work.starts) {
    bytes += kFrameBytes + kNumberBytes * (start.tokens.size() + start.stop.end_tokens.size() +
                                           2 * start.sampling.logit_bias.size());
  }
  return bytes;
}

class SocketRankEngine final : public RankStepEngine {
 public:
  SocketRankEngine(RankStepEngineOptions options, const RankMetrics& metrics)
      : options_(std::move(options)),
        limits_(RankLimitsOf(options_.info, options_.slots, options_.rows_max)),
        metrics_(metrics),
        loop_("ranks-" + options_.replica),
        leader_(PlanOf(options_), options_.timing, loop_.NowUs()) {
    metrics_.ranks.Set(static_cast<double>(options_.nodes.size()));
    waiting_for_ = leader_.missing();
  }
  ~SocketRankEngine() override { Stop(); }

  Status Open(WireContext& context) {
    WireLimits wire;
    wire.message_bytes_max = static_cast<uint32_t>(limits_.message_bytes_max);
    wire.queue_messages_max = kQueueMessagesMax;
    ASSIGN_OR_RETURN(
        router_,
        RawRouter::Bind(
            loop_, context, options_.endpoint,
            [this](const RawPeer& peer, std::string body) { OnBytes(peer.id, body); }, wire));
    router_->OnDisconnect([this] { Probe(); });
    timer_ = std::make_unique<PeriodicTimer>(loop_, EpochTickUs(options_.timing),
                                             [this] { Deliver(leader_.OnTick(loop_.NowUs())); });
    thread_ = std::thread([this] { loop_.Run(); });
    return OkStatus();
  }

  const ModelInfo& info() const override { return options_.info; }
  uint32_t plans_max() const override { return options_.pipeline > 1 ? options_.pipeline + 1 : 2; }
  uint32_t sequence_groups() const override {
    return options_.pipeline > 1 ? options_.pipeline + 1 : 1;
  }
  const std::string& endpoint() const override { return router_->endpoint(); }
  uint64_t epoch() const override { return epoch_; }
  bool available() const override { return available_; }
  uint64_t state_epoch() const override { return state_epoch_; }
  void NoteOwnFault() override { ++own_faults_; }
  uint64_t own_faults() const override { return own_faults_; }
  bool notices_hangs() const override { return true; }
  std::string waiting_for() const override {
    const std::lock_guard lock(mutex_);
    return waiting_for_;
  }

  void Start(Handlers handlers) override {
    loop_.Post([this, handlers = std::move(handlers)] {
      handlers_ = handlers;
      if (available_) handlers_.availability();
    });
  }

  void Stop() override {
    if (!thread_.joinable()) return;
    // Destroyed on its thread: ZeroMQ and asio have one owner.
    std::promise<void> closed;
    loop_.Post([this, &closed] {
      handlers_ = {};
      Deliver(leader_.Leave("the leader stops"));
      available_ = false;
      timer_.reset();
      probe_timer_.reset();
      closed.set_value();
    });
    closed.get_future().wait();
    loop_.Stop();
    thread_.join();
    outstanding_.clear();
    metrics_.ranks_joined.Set(0);
  }

  void Submit(WorkPointer work) override {
    // std::function wants to be copied.
    auto holder = std::make_shared<WorkPointer>(std::move(work));
    loop_.Post([this, holder] { Take(std::move(*holder)); });
  }

 private:
  struct Pending {
    WorkPointer work;
    bool sent = false;  // else it is over, and waits for those before it
    int64_t sent_us = 0;
  };

  // Some connection broke. ZeroMQ may go on taking messages for it for a moment.
  void Probe() {
    Deliver(leader_.OnDisconnect());
    probes_left_ = kProbes;
    probe_timer_ = std::make_unique<PeriodicTimer>(loop_, kProbeIntervalUs, [this] {
      Deliver(leader_.OnDisconnect());
      if (--probes_left_ == 0) probe_timer_.reset();
    });
  }

  void OnBytes(const std::string& peer, const std::string& bytes) {
    Result<RankMessage> message = DecodeRankMessage(bytes, limits_);
    if (message.ok()) return Deliver(leader_.OnMessage(peer, *std::move(message), loop_.NowUs()));
    if (message.status().code() == StatusCode::kPermissionDenied) {
      return Deliver(leader_.OnOtherVersion(peer, message.status().message(), loop_.NowUs()));
    }
    if (std::has_single_bit(++malformed_)) {
      LogWarn("ignored a malformed message at the leader of a replica",
              {{"replica", options_.replica},
               {"reason", message.status().message()},
               {"count", malformed_}});
    }
    Deliver(leader_.OnMalformed(peer, message.status().message(), loop_.NowUs()));
  }

  void Take(WorkPointer work) {
    work->fault = OkStatus();
    work->state_lost = false;
    if (!leader_.formed() || work->state_epoch != state_epoch_) {
      GiveBackLost(std::move(work), "the ranks of " + options_.replica + " have no epoch for it");
      return;
    }
    if (const size_t bytes = WireBytesMax(*work); bytes > limits_.message_bytes_max) {
      work->fault = ResourceExhausted("a step of " + std::to_string(bytes) +
                                      " bytes is too large for the wire to the ranks");
      outstanding_.push_back({std::move(work)});
      return FlushEnded();
    }
    outstanding_.push_back({std::move(work), true, loop_.NowUs()});
    const StepWork& sent = *outstanding_.back().work;
    Deliver(leader_.Submit(sent.plan, sent.starts, loop_.NowUs()));
  }

  void GiveBackLost(WorkPointer work, const std::string& reason, int64_t lost_us = 0) {
    work->fault = Unavailable(reason);
    work->state_lost = true;
    work->step_us = lost_us;
    work->result.slices.clear();
    GiveBack(std::move(work));
  }

  void GiveBack(WorkPointer work) {
    work->starts.clear();
    if (handlers_.done) handlers_.done(std::move(work));
  }

  void FlushEnded() {
    while (!outstanding_.empty() && !outstanding_.front().sent) {
      WorkPointer work = std::move(outstanding_.front().work);
      outstanding_.pop_front();
      GiveBack(std::move(work));
    }
  }

  void Deliver(EpochOutput output) {
    std::vector<std::pair<std::string, std::string>> unreachable;
    for (const EpochOutgoing& outgoing : output.send) {
      const std::string bytes = EncodeRankMessage(outgoing.message);
      for (const std::string& peer : outgoing.peers) {
        if (const Status sent = router_->Send({peer}, bytes); !sent.ok())
          unreachable.emplace_back(peer, sent.message());
      }
    }
    for (EpochEvent& event : output.events) Handle(event);
    for (const auto& [peer, reason] : unreachable)
      Deliver(leader_.OnUnreachable(peer, reason, loop_.NowUs()));
  }

  void Handle(EpochEvent& event) {
    using Kind = EpochEvent::Kind;
    if (event.kind == Kind::kDone) return OnDone(std::move(event.done));
    ShowWhoIsThere();
    const LogFields fields = {
        {"replica", options_.replica}, {"epoch", event.epoch}, {"detail", event.text}};
    switch (event.kind) {
      case Kind::kDone:
        break;
      case Kind::kJoined:
        LogInfo("a rank has joined", fields);
        break;
      case Kind::kLeft:
        LogWarn("a rank has left", fields);
        break;
      case Kind::kMissing:
        LogWarn("ranks are missing", fields);
        break;
      case Kind::kRefused:
        LogWarn("refused a rank", fields);
        break;
      case Kind::kForming:
        LogInfo("all ranks have joined", fields);
        break;
      case Kind::kFormed:
        OnFormed(event);
        break;
      case Kind::kLost:
        OnLost(event);
        break;
    }
  }

  void ShowWhoIsThere() {
    metrics_.ranks_joined.Set(leader_.joined_count());
    const std::lock_guard lock(mutex_);
    waiting_for_ = leader_.formed() ? "" : leader_.missing();
  }

  void OnFormed(const EpochEvent& event) {
    epoch_ = event.epoch;
    LogInfo("the ranks are ready", {{"replica", options_.replica},
                                    {"epoch", event.epoch},
                                    {"ranks", options_.nodes.size()},
                                    {"forming_ms", event.forming_us / 1000}});
    metrics_.epochs.Increment();
    metrics_.forming_time.Observe(static_cast<double>(event.forming_us) * 1e-6);
    available_ = true;
    if (handlers_.availability) handlers_.availability();
  }

  void OnDone(RankDone done) {
    Pending pending = std::move(outstanding_.front());
    outstanding_.pop_front();
    pending.work->fault = std::move(done.fault);
    pending.work->result = std::move(done.result);
    pending.work->step_us = done.step_us;
    last_done_us_ = loop_.NowUs();
    GiveBack(std::move(pending.work));
    FlushEnded();
  }

  // Where the ranks gave the step up. Whoever died or went silent says nothing of how long it
  // takes.
  int64_t OldestComputedUs(RankLoss loss) const {
    const bool given_up = loss == RankLoss::kNoProgress || loss == RankLoss::kFault;
    if (!given_up || outstanding_.empty() || !outstanding_.front().sent) return 0;
    return loop_.NowUs() - std::max(outstanding_.front().sent_us, last_done_us_);
  }

  void OnLost(const EpochEvent& event) {
    LogWarn("lost a rank; the replica forms anew", {{"replica", options_.replica},
                                                    {"epoch", event.epoch},
                                                    {"reason", RankLossName(event.loss)},
                                                    {"detail", event.text},
                                                    {"steps", outstanding_.size()}});
    const auto kind = static_cast<size_t>(event.loss);
    if (kind < metrics_.losses.size()) metrics_.losses[kind].Increment();
    if (!event.was_formed) return;
    int64_t lost_us = OldestComputedUs(event.loss);
    available_ = false;
    ++state_epoch_;
    std::deque<Pending> lost = std::exchange(outstanding_, {});
    for (Pending& pending : lost)
      GiveBackLost(std::move(pending.work), event.text, std::exchange(lost_us, 0));
    if (handlers_.availability) handlers_.availability();
  }

  const RankStepEngineOptions options_;
  const RankLimits limits_;
  const RankMetrics metrics_;
  EventLoop loop_;

  // Loop thread only.
  EpochLeader leader_;
  std::unique_ptr<RawRouter> router_;
  std::unique_ptr<PeriodicTimer> timer_;
  std::unique_ptr<PeriodicTimer> probe_timer_;
  uint32_t probes_left_ = 0;
  Handlers handlers_;
  std::deque<Pending> outstanding_;  // oldest first
  int64_t last_done_us_ = 0;
  uint64_t malformed_ = 0;

  std::atomic<bool> available_ = false;
  std::atomic<uint64_t> state_epoch_ = 1;
  std::atomic<uint64_t> own_faults_ = 0;
  std::atomic<uint64_t> epoch_ = 0;
  mutable std::mutex mutex_;  // guards what follows
  std::string waiting_for_;
  std::thread thread_;
};

Status CheckOptions(const RankStepEngineOptions& options) {
  const uint64_t ranks = uint64_t{options.tensor} * options.pipeline;
  if (ranks == 0 || ranks > kEpochRanksMax)
    return InvalidArgument("replica " + options.replica + ": " + std::to_string(ranks) +
                           " ranks, from 1 to " + std::to_string(kEpochRanksMax) + " are possible");
  if (options.nodes.size() != ranks)
    return InvalidArgument("replica " + options.replica + ": " + std::to_string(ranks) +
                           " ranks on " + std::to_string(options.nodes.size()) + " devices");
  if (options.pipeline + 1 >= kRankStepsMax)
    return InvalidArgument("replica " + options.replica + ": pipeline " +
                           std::to_string(options.pipeline) + " is over the limit of " +
                           std::to_string(kRankStepsMax - 2));
  return OkStatus();
}

}  // namespace

std::vector<std::string> RankLossNames() {
  std::vector<std::string> names;
  for (size_t i = 0; i < kRankLossKinds; ++i)
    names.emplace_back(RankLossName(static_cast<RankLoss>(i)));
  return names;
}

Result<std::unique_ptr<RankStepEngine>> RankStepEngine::Make(RankStepEngineOptions options,
                                                             WireContext& context,
                                                             const RankMetrics& metrics) {
  RETURN_IF_ERROR(CheckOptions(options));
  auto engine = std::make_unique<SocketRankEngine>(std::move(options), metrics);
  RETURN_IF_ERROR(engine->Open(context));
  return std::unique_ptr<RankStepEngine>(std::move(engine));
}

}  // namespace muselet
