#include "node/engine/replica_server.h"

#include <algorithm>
#include <atomic>
#include <optional>
#include <utility>

#include "base/log.h"
#include "node/engine/cache_feed.h"
#include "node/engine/local_step_engine.h"
#include "node/engine/node_admission.h"
#include "node/engine/scheduler_link.h"
#include "node/engine/step_loop.h"

namespace muselet {
namespace {

constexpr int64_t kHungLeastUs = 3'000'000;
constexpr int64_t kHungSteps = 8;
constexpr int kCacheMessagesMax = 4;        // of one tick, to one scheduler
constexpr int64_t kIdleReportUs = 250'000;  // with nothing to say but that we are there

// Schedulers know a node by its sender name; two replicas of one node must not pass for each other.
LocalPeer ReplicaPeer(const ReplicaServerOptions& options) {
  return {options.local.name + "/" + options.replica, options.local.instance};
}

ReplicaInfo MakeInfo(const ReplicaServerOptions& options, const ModelInfo& model,
                     uint32_t context_tokens, uint64_t epoch) {
  ReplicaInfo info;
  info.replica = options.replica;
  info.model = options.model;
  info.model_digest = model.model_digest;
  info.numerics_id = model.numerics_id;
  info.epoch = epoch;
  info.context_tokens = context_tokens;
  for (const KvGroupInfo& group : model.kv_groups) {
    const uint64_t tokens = uint64_t{group.block_count} * model.block_tokens;
    if (group.window_tokens == 0) {
      info.kv_tokens = info.kv_tokens == 0 ? tokens : std::min(info.kv_tokens, tokens);
    }
  }
  info.sequences_max = options.engine.batch.sequences_max;
  return info;
}

NodeAdmissionOptions AdmissionOptions(const ReplicaServerOptions& options, uint64_t epoch) {
  NodeAdmissionOptions result;
  result.node = options.local.name;
  result.replica = options.replica;
  result.epoch = epoch;
  result.peer_timeout_us = options.engine.peer_timeout_us;
  result.orphan_timeout_us = options.engine.orphan_timeout_us;
  result.sequences_max =
      size_t{options.engine.batch.sequences_max} + options.engine.batch.waiting_max;
  return result;
}

}  // namespace

// Everything is on the loop thread, but for the atomics and the step loop's own thread.
class ReplicaServer::Core : public std::enable_shared_from_this<ReplicaServer::Core> {
 public:
  Core(const ReplicaServerOptions& options, EventLoop& loop, uint64_t epoch)
      : options_(options),
        loop_(loop),
        admission_(AdmissionOptions(options, epoch)),
        cache_feed_(options.replica, epoch),
        report_interval_us_(std::min(options.engine.report_interval_us, options.silence_max_us)) {}

  Status Start(std::unique_ptr<StepEngine> engine, WireContext& context, const NodeMetrics& metrics,
               uint64_t epoch);
  void Stop();
  void Drain();
  ReplicaHealth Health() const;
  bool drained() const { return draining_.load() && sequences_.load() == 0; }
  const ReplicaInfo& info() const { return info_; }

 private:
  void Deliver(NodeAdmissionOutput output);
  void OnTick();
  void SendReports();
  void SendCacheEvents();
  void LogOrphans();
  Report MakeReport(const StepProgress& progress);
  bool Hung(const StepProgress& progress) const;

  const ReplicaServerOptions options_;
  EventLoop& loop_;
  ReplicaInfo info_;
  NodeAdmission admission_;
  std::unique_ptr<StepLoop> steps_;
  std::unique_ptr<MessageServer> server_;
  std::vector<std::unique_ptr<SchedulerLink>> schedulers_;
  CacheFeed cache_feed_;                    // readers are parallel to schedulers_
  std::vector<uint64_t> cache_told_joins_;  // parallel to schedulers_: SchedulerLink::joined_count
  std::unique_ptr<PeriodicTimer> timer_;
  const int64_t report_interval_us_;
  uint64_t report_sequence_ = 0;
  int64_t last_report_us_ = 0;
  uint64_t reported_steps_ = 0;
  int64_t tick_interval_us_ = 0;
  int64_t idle_interval_us_ = 0;  // of ticks and reports while nothing runs
  size_t orphans_ = 0;            // as the log knows
  bool hung_logged_ = false;
  bool available_ = true;  // as the last report said
  bool stopped_ = false;

  std::atomic<bool> draining_ = false;
  std::atomic<size_t> sequences_ = 0;
  std::atomic<uint64_t> welcomed_ = 0;
};

Status ReplicaServer::Core::Start(std::unique_ptr<StepEngine> engine, WireContext& context,
                                  const NodeMetrics& metrics, uint64_t epoch) {
  const ModelInfo model_info = engine->info();
  const std::weak_ptr<Core> weak = weak_from_this();
  // The step thread only posts: all that follows from its updates happens on the loop.
  steps_ = std::make_unique<StepLoop>(
      std::move(engine), options_.engine.batch, metrics, Clock::Real(),
      [weak, &loop = loop_](std::vector<TokenUpdate> updates) {
        loop.Post([weak, &loop, updates = std::move(updates)]() mutable {
          const std::shared_ptr<Core> core = weak.lock();
          if (core == nullptr || core->stopped_) return;
          core->Deliver(core->admission_.OnUpdates(std::move(updates), loop.NowUs()));
        });
      });
  info_ = MakeInfo(options_, model_info, steps_->context_tokens(), epoch);
  ASSIGN_OR_RETURN(server_, MessageServer::Bind(loop_, context, options_.local, options_.endpoint,
                                                [this](const std::string& peer, Envelope envelope) {
                                                  Deliver(admission_.OnMessage(
                                                      peer, std::move(envelope), loop_.NowUs()));
                                                }));
  server_->OnDisconnect([this] { Deliver(admission_.OnDisconnect()); });
  info_.endpoint = server_->endpoint();
  const LocalPeer peer = ReplicaPeer(options_);
  Hello hello;
  hello.role = Role::kNode;
  hello.name = peer.name;
  hello.software_version = options_.software_version;
  hello.replicas = {info_};
  const PeerTiming timing{report_interval_us_, options_.engine.peer_timeout_us};
  for (const std::string& endpoint : options_.schedulers) {
    ASSIGN_OR_RETURN(auto link, SchedulerLink::Connect(loop_, context, peer, endpoint, hello,
                                                       timing, options_.drain_asked));
    schedulers_.push_back(std::move(link));
    cache_feed_.AddReader();
    cache_told_joins_.push_back(0);
  }
  tick_interval_us_ = TickIntervalUs(timing);
  const int64_t idle_report_us = std::min(kIdleReportUs, options_.silence_max_us);
  idle_interval_us_ =
      std::max(tick_interval_us_, TickIntervalUs({idle_report_us, timing.timeout_us}));
  timer_ = std::make_unique<PeriodicTimer>(loop_, tick_interval_us_, [this] { OnTick(); });
  steps_->Start();
  return OkStatus();
}

void ReplicaServer::Core::Deliver(NodeAdmissionOutput output) {
  while (true) {
    if (!output.commands.empty()) steps_->Push(std::move(output.commands));
    NodeAdmissionOutput next;
    for (auto& [connection, message] : output.messages) {
      const Status status = server_->Send(connection, message);
      if (status.ok()) continue;
      LogWarn("could not answer a gateway",
              {{"message", MessageName(message)}, {"reason", status.message()}});
      NodeAdmissionOutput failed = admission_.OnSendFailed(message);
      if (status.code() == StatusCode::kUnavailable) {
        NodeAdmissionOutput lost = admission_.OnUnreachable(connection, loop_.NowUs());
        std::move(lost.commands.begin(), lost.commands.end(), std::back_inserter(failed.commands));
      }
      std::move(failed.commands.begin(), failed.commands.end(), std::back_inserter(next.commands));
    }
    if (next.commands.empty()) break;
    output = std::move(next);
  }
  sequences_.store(admission_.sequence_count());
  LogOrphans();
  if (timer_ != nullptr && admission_.sequence_count() > 0) timer_->SetInterval(tick_interval_us_);
}

void ReplicaServer::Core::LogOrphans() {
  const size_t before = std::exchange(orphans_, admission_.orphan_count());
  if (orphans_ > before) {
    LogWarn("sequences go on without a gateway, for another one to take them over",
            {{"replica", options_.replica}, {"orphans", orphans_}});
  } else if (orphans_ < before) {
    LogInfo("sequences without a gateway were taken over, or ended",
            {{"replica", options_.replica}, {"orphans", orphans_}});
  }
}

void ReplicaServer::Core::OnTick() {
  const int64_t now_us = loop_.NowUs();
  Deliver(admission_.OnTick(now_us));
  uint64_t welcomed = 0;
  for (const auto& scheduler : schedulers_) {
    scheduler->Tick();
    if (scheduler->welcomed()) ++welcomed;
  }
  const StepProgress progress = steps_->progress();
  const bool idle = admission_.sequence_count() == 0 && progress.steps == reported_steps_ &&
                    welcomed == schedulers_.size() && welcomed == welcomed_.load();
  const int64_t interval_us = idle ? idle_interval_us_ : report_interval_us_;
  timer_->SetInterval(idle ? idle_interval_us_ : tick_interval_us_);
  // Ticks are a little late: half of one is not waited for.
  const bool due = now_us - last_report_us_ >= interval_us - tick_interval_us_ / 2;
  if (due || progress.available != available_) SendReports();
  SendCacheEvents();
}

void ReplicaServer::Core::SendCacheEvents() {
  cache_feed_.Apply(steps_->TakeCacheChanges());
  for (size_t i = 0; i < schedulers_.size(); ++i) {
    SchedulerLink& scheduler = *schedulers_[i];
    if (!scheduler.welcomed()) {
      cache_feed_.End(i);
      continue;
    }
    if (std::exchange(cache_told_joins_[i], scheduler.joined_count()) != scheduler.joined_count()) {
      cache_feed_.Begin(i);
    }
    for (int sent = 0; sent < kCacheMessagesMax; ++sent) {
      const std::optional<CacheEvents> events = cache_feed_.Next(i);
      if (!events || !scheduler.SendCacheEvents(*events)) break;
      cache_feed_.Sent(i);
    }
  }
}

void ReplicaServer::Core::SendReports() {
  last_report_us_ = loop_.NowUs();
  const StepProgress progress = steps_->progress();
  const bool hung = Hung(progress);
  if (hung != hung_logged_) {
    hung_logged_ = hung;
    if (hung) {
      LogError("the step loop hangs: reports stop",
               {{"replica", options_.replica}, {"steps", progress.steps}});
    } else {
      LogWarn("the step loop goes on", {{"replica", options_.replica}});
    }
  }
  if (hung) return;
  if (std::exchange(available_, progress.available) != progress.available) {
    LogInfo(
        progress.available ? "computes again" : "takes nothing new: the engine is not available",
        {{"replica", options_.replica}, {"sequences", admission_.sequence_count()}});
  }
  const Report report = MakeReport(progress);
  reported_steps_ = progress.steps;
  uint64_t welcomed = 0;
  for (const auto& scheduler : schedulers_) {
    scheduler->SendReport(report);
    if (scheduler->welcomed()) ++welcomed;
  }
  welcomed_.store(welcomed);
}

Report ReplicaServer::Core::MakeReport(const StepProgress& progress) {
  Report report;
  report.replica = info_.replica;
  report.epoch = info_.epoch;
  report.sequence = ++report_sequence_;
  report.steps = progress.steps;
  report.step_us = progress.step_us;
  report.running = progress.running;
  report.waiting = progress.waiting;
  report.kv_blocks_used = progress.kv_blocks_used;
  report.kv_blocks_total = progress.kv_blocks_total;
  report.draining = draining_.load() || !progress.available;
  report.active = admission_.ActiveSequences();
  report.prefill_tokens = progress.prefill.tokens;
  report.prefill_token_us = progress.prefill.token_us;
  report.schedulers = static_cast<uint32_t>(
      std::count_if(schedulers_.begin(), schedulers_.end(),
                    [](const auto& scheduler) { return scheduler->welcomed(); }));
  report.served = steps_->served();
  return report;
}

bool ReplicaServer::Core::Hung(const StepProgress& progress) const {
  if (progress.busy_since_us == 0 || !progress.available) return false;
  const int64_t age_us = Clock::Real().NowUs() - progress.busy_since_us;
  const int64_t limit_us = std::max(kHungLeastUs, kHungSteps * progress.step_us);
  return age_us > (steps_->notices_hangs() ? 2 * limit_us : limit_us);
}

ReplicaHealth ReplicaServer::Core::Health() const {
  const StepProgress progress = steps_->progress();
  ReplicaHealth health;
  health.draining = draining_.load();
  health.hung = Hung(progress);
  if (health.draining) {
    health.reason = options_.replica + " is draining";
  } else if (!progress.available) {
    health.reason = options_.replica + " waits for its ranks";
  } else if (health.hung) {
    health.reason = options_.replica + " cannot produce a token now";
  }
  health.ready = health.reason.empty();
  if (progress.busy_since_us != 0) {
    health.step_age_us = Clock::Real().NowUs() - progress.busy_since_us;
  }
  health.steps = progress.steps;
  health.schedulers_connected = welcomed_.load();
  health.sequences = sequences_.load();
  return health;
}

void ReplicaServer::Core::Drain() {
  // Sequences that the loop lets in before it sees this are finished like the others.
  loop_.Post([weak = weak_from_this()] {
    const std::shared_ptr<Core> core = weak.lock();
    if (core == nullptr || core->stopped_ || core->admission_.draining()) return;
    core->admission_.StartDraining();
    core->draining_.store(true);
    LogInfo("draining", {{"replica", core->options_.replica},
                         {"sequences", core->admission_.sequence_count()}});
    core->SendReports();
  });
}

void ReplicaServer::Core::Stop() {
  if (stopped_) return;
  stopped_ = true;
  timer_.reset();
  for (const auto& scheduler : schedulers_) scheduler->SayGoodbye("stopped");
  if (server_ != nullptr) {
    for (auto& [connection, goodbye] : admission_.Farewell().messages)
      (void)server_->Send(connection, std::move(goodbye));
  }
  if (steps_ != nullptr) steps_->Stop();
  schedulers_.clear();
  server_.reset();
}

ReplicaServer::ReplicaServer(std::shared_ptr<Core> core) : core_(std::move(core)) {}

ReplicaServer::~ReplicaServer() {
  Stop();
}

Result<std::unique_ptr<ReplicaServer>> ReplicaServer::Start(const ReplicaServerOptions& options,
                                                            std::shared_ptr<Model> model,
                                                            EventLoop& loop, WireContext& context,
                                                            const NodeMetrics& metrics) {
  return Start(options,
               std::make_unique<LocalStepEngine>(std::move(model),
                                                 options.engine.batch.sequences_max, Clock::Real()),
               loop, context, metrics);
}

Result<std::unique_ptr<ReplicaServer>> ReplicaServer::Start(const ReplicaServerOptions& options,
                                                            std::unique_ptr<StepEngine> engine,
                                                            EventLoop& loop, WireContext& context,
                                                            const NodeMetrics& metrics) {
  // Grows from one start to the next, without anything stored.
  const auto epoch = static_cast<uint64_t>(Clock::Real().UnixUs());
  auto core = std::make_shared<Core>(options, loop, epoch);
  const Status status = core->Start(std::move(engine), context, metrics, epoch);
  std::unique_ptr<ReplicaServer> server(new ReplicaServer(core));
  if (!status.ok()) return status.WithContext("replica " + options.replica);
  return server;
}

const ReplicaInfo& ReplicaServer::info() const {
  return core_->info();
}

ReplicaHealth ReplicaServer::Health() const {
  return core_->Health();
}

void ReplicaServer::Drain() {
  core_->Drain();
}

bool ReplicaServer::drained() const {
  return core_->drained();
}

void ReplicaServer::Stop() {
  core_->Stop();
}

}  // namespace muselet
