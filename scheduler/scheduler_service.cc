#include "scheduler/scheduler_service.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include "base/log.h"
#include "scheduler/route/router.h"

namespace muselet {
namespace {

constexpr int64_t kTickMaxUs = 50'000;
constexpr int64_t kLoopStuckUs = 2'000'000;
// A broken connection is given this long to come back before its peer is asked for. Its process may
// live: a lost peer costs its streams an attempt.
constexpr int64_t kReconnectUs = 600'000;

class Service final : public SchedulerService {
 public:
  Service(const SchedulerServiceOptions& options, EventLoop& loop, SchedulerMetrics& metrics)
      : name_(options.name),
        loop_(loop),
        metrics_(metrics),
        router_(options.name, options.models, options.route, options.surfaces),
        drain_asked_(options.drain_asked) {}

  ~Service() override {
    ticker_.reset();
    if (server_ != nullptr) Deliver(router_.Farewell());
  }

  Status Open(const SchedulerServiceOptions& options, const LocalPeer& local,
              WireContext& context) {
    ASSIGN_OR_RETURN(
        server_, MessageServer::Bind(loop_, context, local, options.endpoint,
                                     [this](const std::string& peer, Envelope envelope) {
                                       Deliver(router_.OnMessage(peer, envelope, loop_.NowUs()));
                                       Pace();
                                     }));
    server_->OnDisconnect([this] {
      probe_at_us_ = loop_.NowUs() + kReconnectUs;
      Pace();
    });
    idle_tick_us_ =
        TickIntervalUs({options.route.heartbeat_interval_us, options.route.peer_timeout_us});
    ticker_ = std::make_unique<PeriodicTimer>(loop_, idle_tick_us_, [this] { Tick(); });
    Publish();
    LogInfo("scheduler listens", {{"scheduler", name_}, {"endpoint", server_->endpoint()}});
    return OkStatus();
  }

  const std::string& endpoint() const override { return server_->endpoint(); }

  Status Ready() const override {
    const std::lock_guard lock(mutex_);
    if (loop_.NowUs() - last_tick_us_ > kLoopStuckUs)
      return Unavailable("scheduler " + name_ + ": its loop does not turn");
    if (missing_.empty()) return OkStatus();
    return Unavailable("no ready replica of: " + missing_);
  }

 private:
  // Deadlines are as exact as the ticks; with nothing open there are none.
  void Pace() {
    const bool busy = router_.has_open_requests() || probe_at_us_ != 0;
    ticker_->SetInterval(busy ? std::min(kTickMaxUs, idle_tick_us_) : idle_tick_us_);
  }

  void Tick() {
    const int64_t now_us = loop_.NowUs();
    Deliver(router_.OnTick(now_us));
    if (probe_at_us_ != 0 && now_us >= probe_at_us_) {
      probe_at_us_ = 0;
      Probe();
    }
    Publish();
    Pace();
  }

  // Whose connection broke is known only by trying; Deliver tells the router of the unreachable.
  void Probe() {
    std::vector<Outgoing> probes;
    for (const auto& [id, peer] : router_.peers().peers()) probes.push_back({id, Heartbeat{}});
    Deliver(std::move(probes), true);
  }

  // A message that cannot be sent is dropped: peers ask again for what they miss, and tickets that
  // nobody uses are taken back.
  void Deliver(std::vector<Outgoing> messages, bool probing = false) {
    std::vector<std::string> unreachable;
    for (Outgoing& outgoing : messages) {
      const Status sent = server_->Send(outgoing.peer, std::move(outgoing.message));
      if (sent.code() == StatusCode::kUnavailable && probing) unreachable.push_back(outgoing.peer);
      if (sent.code() == StatusCode::kResourceExhausted)
        LogWarn("peer does not read", {{"scheduler", name_}, {"peer", outgoing.peer}});
    }
    for (const std::string& peer : unreachable) Deliver(router_.OnUnreachable(peer, loop_.NowUs()));
    LogEvents();
  }

  void LogEvents() {
    for (const RouteEvent& event : router_.TakeEvents()) {
      LogFields fields = {{"scheduler", name_}, {"name", event.name}, {"detail", event.detail}};
      switch (event.kind) {
        case RouteEvent::Kind::kNodeJoined:
          LogInfo("node joined", fields);
          break;
        case RouteEvent::Kind::kGatewayJoined:
          LogInfo("gateway joined", fields);
          break;
        case RouteEvent::Kind::kReplicaReady:
          LogInfo("replica ready", fields);
          break;
        case RouteEvent::Kind::kNodeLeft:
          LogInfo("node left", fields);
          break;
        case RouteEvent::Kind::kGatewayLeft:
          LogInfo("gateway left", fields);
          break;
        case RouteEvent::Kind::kReplicaLeft:
          fields.emplace_back("attempts_lost", event.attempts_lost);
          LogInfo("replica left", fields);
          break;
        case RouteEvent::Kind::kNodeLost:
          LogWarn("node lost", fields);
          break;
        case RouteEvent::Kind::kGatewayLost:
          LogWarn("gateway lost", fields);
          break;
        case RouteEvent::Kind::kReplicaLost:
          fields.emplace_back("attempts_lost", event.attempts_lost);
          LogWarn("replica lost", fields);
          break;
        case RouteEvent::Kind::kReplicaEjected:
          LogWarn("replica ejected: it is no good at present", fields);
          break;
        case RouteEvent::Kind::kNonsense:
          LogWarn("report that cannot be true: ignored", fields);
          break;
        case RouteEvent::Kind::kDrainAsked:
          LogInfo("drain asked for", fields);
          if (event.name == name_ && drain_asked_) drain_asked_();
          break;
      }
    }
  }

  void Publish() {
    const RouteCounts counts = router_.counts();
    metrics_.waiting.Set(static_cast<double>(counts.waiting));
    metrics_.placed.Set(static_cast<double>(counts.placed));
    metrics_.nodes.Set(static_cast<double>(counts.nodes));
    metrics_.gateways.Set(static_cast<double>(counts.gateways));
    metrics_.tickets.Increment(static_cast<double>(counts.tickets - published_.tickets));
    metrics_.refusals.Increment(static_cast<double>(counts.refusals - published_.refusals));
    metrics_.losses.Increment(static_cast<double>(counts.losses - published_.losses));
    metrics_.peers_left.Increment(static_cast<double>(counts.peers_left - published_.peers_left));
    metrics_.peers_lost.Increment(static_cast<double>(counts.peers_lost - published_.peers_lost));
    PublishPlacement(counts);
    PublishSurfaces(counts);
    published_ = counts;
    for (const int64_t queue_us : router_.TakeQueueTimesUs())
      metrics_.queue_time.Observe(static_cast<double>(queue_us) * 1e-6);
    std::string missing;
    for (const ModelState& state : router_.models()) {
      if (const Gauge* ready = metrics_.replicas_ready(state.model))
        ready->Set(state.replicas_ready);
      if (state.replicas_ready == 0) missing += (missing.empty() ? "" : ", ") + state.model;
    }
    const std::lock_guard lock(mutex_);
    missing_ = std::move(missing);
    last_tick_us_ = loop_.NowUs();
  }

  void PublishPlacement(const RouteCounts& counts) {
    const auto grow = [](const Counter& counter, uint64_t now, uint64_t before) {
      counter.Increment(static_cast<double>(now - before));
    };
    grow(metrics_.prompt_tokens, counts.prompt_tokens, published_.prompt_tokens);
    grow(metrics_.cached_prompt_tokens, counts.cached_prompt_tokens,
         published_.cached_prompt_tokens);
    grow(metrics_.cache_gaps, counts.cache_gaps, published_.cache_gaps);
    grow(metrics_.ejections, counts.ejections, published_.ejections);
    grow(metrics_.nonsense_reports, counts.nonsense_reports, published_.nonsense_reports);
    metrics_.prefix_blocks.Set(static_cast<double>(counts.prefix_blocks));
    metrics_.prefix_bytes.Set(static_cast<double>(counts.prefix_bytes));
  }

  void PublishSurfaces(const RouteCounts& counts) {
    const std::vector<SurfaceCounts> surfaces = router_.surface_counts();
    published_surfaces_.resize(surfaces.size());
    for (size_t i = 0; i < surfaces.size(); ++i) {
      const SchedulerMetrics::PerSurface& metrics = metrics_.surface(surfaces[i].surface);
      for (size_t c = 0; c < metrics.waiting.size(); ++c)
        metrics.waiting[c].Set(static_cast<double>(surfaces[i].waiting[c]));
      for (size_t r = 0; r < metrics.refusals.size(); ++r) {
        const uint64_t before = published_surfaces_[i].refusals[r];
        metrics.refusals[r].Increment(static_cast<double>(surfaces[i].refusals[r] - before));
      }
    }
    metrics_.surface("unknown").refusals[static_cast<size_t>(RefusalReason::kSurface)].Increment(
        static_cast<double>(counts.unknown_surfaces - published_.unknown_surfaces));
    published_surfaces_ = surfaces;
  }

  // Loop thread only.
  const std::string name_;
  EventLoop& loop_;
  SchedulerMetrics& metrics_;
  Router router_;
  const std::function<void()> drain_asked_;
  RouteCounts published_;
  std::vector<SurfaceCounts> published_surfaces_;
  int64_t probe_at_us_ = 0;
  int64_t idle_tick_us_ = 0;
  std::unique_ptr<MessageServer> server_;
  std::unique_ptr<PeriodicTimer> ticker_;

  // Guards what Ready reads.
  mutable std::mutex mutex_;
  std::string missing_;
  int64_t last_tick_us_ = 0;
};

}  // namespace

Result<std::unique_ptr<SchedulerService>> SchedulerService::Start(
    const SchedulerServiceOptions& options, const LocalPeer& local, EventLoop& loop,
    WireContext& context, SchedulerMetrics& metrics) {
  auto service = std::make_unique<Service>(options, loop, metrics);
  RETURN_IF_ERROR(service->Open(options, local, context));
  return std::unique_ptr<SchedulerService>(std::move(service));
}

}  // namespace muselet
