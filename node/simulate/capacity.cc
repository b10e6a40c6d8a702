#include "node/simulate/capacity.h"

#include <algorithm>
#include <numeric>
#include <unordered_map>
#include <utility>

#include "base/clock.h"

namespace muselet {
namespace {

constexpr int64_t kReadyUsMax = 60'000'000;

Distribution Summarise(std::vector<int64_t>& times_us) {
  Distribution result;
  result.samples = times_us.size();
  if (times_us.empty()) return result;
  std::sort(times_us.begin(), times_us.end());
  const auto at = [&](double quantile) {
    const double place = quantile * static_cast<double>(times_us.size() - 1);
    return static_cast<double>(times_us[static_cast<size_t>(place + 0.5)]) / 1e3;
  };
  result.mean_ms = std::accumulate(times_us.begin(), times_us.end(), 0.0) /
                   static_cast<double>(times_us.size()) / 1e3;
  result.p50_ms = at(0.5);
  result.p90_ms = at(0.9);
  result.p99_ms = at(0.99);
  return result;
}

// Plays one trace and counts.
class CapacityRun {
 public:
  CapacityRun(const CapacityOptions& options, const std::vector<TraceRequest>& trace)
      : options_(options),
        trace_(trace),
        tallies_(options.surfaces.size()),
        dealt_(options.surfaces.size()),
        cluster_(options.cluster, [this](uint32_t, const OwnerEvent& event) { On(event); }) {}

  CapacityReport Run();

 private:
  struct Tally {
    SurfaceCapacity counts;
    std::vector<int64_t> ttft_us;
    std::vector<int64_t> itl_us;
  };
  struct Open {
    size_t surface = 0;
    int64_t asked_us = 0;
    int64_t first_us = 0;
    int64_t last_us = 0;
    uint32_t tokens = 0;
  };

  void AskNext();
  void Ask(size_t index);
  size_t DealSurface();
  void On(const OwnerEvent& event);
  void OnDelivered(const Delivered& event);
  void OnEnded(const Ended& event);
  CapacityReport Report(int64_t began_us, double wall_s);

  const CapacityOptions& options_;
  const std::vector<TraceRequest>& trace_;
  std::vector<Tally> tallies_;  // by surface
  std::vector<double> dealt_;   // requests over share
  std::unordered_map<RequestId, Open> open_;
  size_t next_ = 0;
  uint64_t reattempts_ = 0;
  int64_t began_us_ = 0;
  int64_t last_end_us_ = 0;
  SimCluster cluster_;
};

CapacityReport CapacityRun::Run() {
  const int64_t wall_us = Clock::Real().NowUs();
  cluster_.StartAll();
  SimWorld& world = cluster_.world();
  world.RunUntil(kReadyUsMax, [this] { return cluster_.ready(); });
  // All replicas have reported by then.
  world.RunUntil(world.now_us() + 1'000'000);
  began_us_ = last_end_us_ = world.now_us();
  AskNext();
  const auto done = [this] { return next_ == trace_.size() && open_.empty(); };
  const auto span_us =
      static_cast<int64_t>(static_cast<double>(trace_.back().arrival_us) / options_.speed);
  world.RunUntil(began_us_ + span_us + 2 * options_.timeout_us, done);
  return Report(began_us_, static_cast<double>(Clock::Real().NowUs() - wall_us) * 1e-6);
}

void CapacityRun::AskNext() {
  SimWorld& world = cluster_.world();
  const auto due_us = [this](size_t index) {
    return began_us_ +
           static_cast<int64_t>(static_cast<double>(trace_[index].arrival_us) / options_.speed);
  };
  while (next_ < trace_.size() && due_us(next_) <= world.now_us()) Ask(next_++);
  if (next_ < trace_.size()) world.After(due_us(next_) - world.now_us(), [this] { AskNext(); });
}

// The one that has least of what its share is.
size_t CapacityRun::DealSurface() {
  size_t best = 0;
  for (size_t i = 1; i < dealt_.size(); ++i)
    if (dealt_[i] < dealt_[best]) best = i;
  dealt_[best] += 1 / options_.surfaces[best].share;
  return best;
}

void CapacityRun::Ask(size_t index) {
  const TraceRequest& request = trace_[index];
  const size_t surface = DealSurface();
  const SurfaceOptions& its = options_.surfaces[surface];
  RequestRecord record;
  record.request = {MixBits(index + 1), index + 1};
  record.model = options_.cluster.model;
  record.surface = its.name;
  record.request_class = its.request_class;
  record.cache_salt = surface;
  record.timeout_us = its.timeout_us > 0 ? its.timeout_us : options_.timeout_us;
  record.prompt = TracePrompt(request, index, options_.cluster.engine.vocab_size);
  record.sampling.seed = index;
  record.stop.max_tokens = request.output_tokens;
  Tally& tally = tallies_[surface];
  ++tally.counts.requests;
  tally.counts.prompt_tokens += request.prompt_tokens;
  open_[record.request] = {surface, cluster_.world().now_us()};
  const auto gateway = static_cast<uint32_t>(index % options_.cluster.gateways);
  cluster_.gateway(gateway)->Tell(StartRequest{std::move(record)});
}

void CapacityRun::On(const OwnerEvent& event) {
  if (const auto* delivered = std::get_if<Delivered>(&event)) OnDelivered(*delivered);
  if (const auto* ended = std::get_if<Ended>(&event)) OnEnded(*ended);
  if (std::holds_alternative<Reattempted>(event)) ++reattempts_;
}

void CapacityRun::OnDelivered(const Delivered& event) {
  Open& open = open_.at(event.sequence.request);
  Tally& tally = tallies_[open.surface];
  const int64_t now_us = cluster_.world().now_us();
  tally.counts.output_tokens += event.tokens.size();
  tally.counts.cached_tokens += event.cached_prompt_tokens;
  for (size_t i = 0; i < event.tokens.size(); ++i) {
    if (open.tokens++ == 0) {
      open.first_us = now_us;
      tally.ttft_us.push_back(now_us - open.asked_us);
    } else {
      tally.itl_us.push_back(now_us - open.last_us);
    }
    open.last_us = now_us;
  }
}

void CapacityRun::OnEnded(const Ended& event) {
  const auto found = open_.find(event.request);
  const Open& open = found->second;
  SurfaceCapacity& counts = tallies_[open.surface].counts;
  last_end_us_ = cluster_.world().now_us();
  if (!event.status.ok()) {
    ++counts.errors[std::string(StatusCodeName(event.status.code()))];
  } else {
    ++counts.completed;
    const SurfaceOptions& surface = options_.surfaces[open.surface];
    const bool soon = surface.ttft_us == 0 || open.first_us - open.asked_us <= surface.ttft_us;
    const bool fast = surface.tpot_us == 0 || open.tokens < 2 ||
                      (open.last_us - open.first_us) / (open.tokens - 1) <= surface.tpot_us;
    if (soon && fast) ++counts.good;
  }
  open_.erase(found);
}

CapacityReport CapacityRun::Report(int64_t began_us, double wall_s) {
  CapacityReport report;
  report.replicas = options_.cluster.nodes;
  report.virtual_s = static_cast<double>(std::max<int64_t>(last_end_us_ - began_us, 1)) * 1e-6;
  report.arrivals_s = static_cast<double>(trace_.back().arrival_us) / options_.speed * 1e-6;
  report.wall_s = wall_s;
  report.reattempts = reattempts_;
  for (uint32_t i = 0; i < options_.cluster.nodes; ++i)
    report.busy += static_cast<double>(cluster_.node(i)->replica().busy_us()) * 1e-6;
  report.busy /= report.virtual_s * options_.cluster.nodes;
  Tally all;
  for (size_t i = 0; i < tallies_.size(); ++i) {
    Tally& tally = tallies_[i];
    all.ttft_us.insert(all.ttft_us.end(), tally.ttft_us.begin(), tally.ttft_us.end());
    all.itl_us.insert(all.itl_us.end(), tally.itl_us.begin(), tally.itl_us.end());
    SurfaceCapacity& counts = tally.counts;
    counts.ttft = Summarise(tally.ttft_us);
    counts.itl = Summarise(tally.itl_us);
    report.all.requests += counts.requests;
    report.all.completed += counts.completed;
    report.all.good += counts.good;
    report.all.prompt_tokens += counts.prompt_tokens;
    report.all.cached_tokens += counts.cached_tokens;
    report.all.output_tokens += counts.output_tokens;
    for (const auto& [code, count] : counts.errors) report.all.errors[code] += count;
    report.surfaces[options_.surfaces[i].name] = counts;
  }
  report.all.ttft = Summarise(all.ttft_us);
  report.all.itl = Summarise(all.itl_us);
  return report;
}

}  // namespace

CapacityReport RunCapacity(const CapacityOptions& options, const std::vector<TraceRequest>& trace) {
  return CapacityRun(options, trace).Run();
}

}  // namespace muselet
