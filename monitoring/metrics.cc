#include "monitoring/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <array>

#include "base/check.h"
#include "monitoring/process_collector.h"

namespace muselet {
namespace {

using Buckets = prometheus::Histogram::BucketBoundaries;

// Fine at the low end: a small model answers in milliseconds.
const Buckets kTokenSeconds = {0.0005, 0.001, 0.002, 0.003, 0.004, 0.006, 0.008, 0.01,
                               0.015,  0.02,  0.03,  0.04,  0.06,  0.08,  0.1,   0.15,
                               0.2,    0.3,   0.5,   1,     2.5,   5};
const Buckets kWaitSeconds = {0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3,
                              0.5,   0.75,  1,     1.5,   2.5,   5,    10,   20,  40,   80,  160};
const Buckets kRequestSeconds = {0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1,   1.5,
                                 2,    3,    5,    7.5, 10,  15,  30,  60,   120, 300};
const Buckets kTokenCounts = {1,   2,    4,    8,    16,   32,    64,    128,   256,
                              512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072};
const Buckets kRowCounts = {1,  2,   4,   8,   16,  24,  32,   48,  64,
                            96, 128, 192, 256, 384, 512, 1024, 2048};

using Labels = std::map<std::string, std::string>;

// One role's registrations: the same labels on all of its series.
class Series {
 public:
  Series(MetricRegistry& registry, Labels labels)
      : registry_(registry.registry()), labels_(std::move(labels)) {}

  Counter NewCounter(const char* name, const char* help, const Labels& more = {}) const {
    return Counter(
        &prometheus::BuildCounter().Name(name).Help(help).Register(registry_).Add(All(more)));
  }
  Gauge NewGauge(const char* name, const char* help, const Labels& more = {}) const {
    return Gauge(
        &prometheus::BuildGauge().Name(name).Help(help).Register(registry_).Add(All(more)));
  }
  Histogram NewHistogram(const char* name, const char* help, const Buckets& buckets) const {
    return Histogram(&prometheus::BuildHistogram().Name(name).Help(help).Register(registry_).Add(
        labels_, buckets));
  }

 private:
  Labels All(const Labels& more) const {
    Labels all = labels_;
    all.insert(more.begin(), more.end());
    return all;
  }

  prometheus::Registry& registry_;
  Labels labels_;
};

constexpr std::array<const char*, 7> kOutcomes = {"stop",    "length",  "cancelled", "deadline",
                                                  "refused", "invalid", "error"};

std::vector<Counter> NewOutcomeCounters(const Series& series) {
  std::vector<Counter> counters;
  for (const char* outcome : kOutcomes) {
    counters.push_back(series.NewCounter("muselet_requests_total", "Requests by how they ended.",
                                         {{"outcome", outcome}}));
  }
  return counters;
}

GatewayMetrics::PerModel NewPerModel(const Series& series) {
  return {
      .requests = NewOutcomeCounters(series),
      .prompt_tokens = series.NewCounter("muselet_prompt_tokens_total",
                                         "Prompt tokens of requests that were admitted."),
      .cached_prompt_tokens = series.NewCounter("muselet_cached_prompt_tokens_total",
                                                "Prompt tokens found in a prefix cache."),
      .generation_tokens = series.NewCounter("muselet_generation_tokens_total",
                                             "Generated tokens delivered to clients."),
      .time_to_first_token = series.NewHistogram(
          "muselet_time_to_first_token_seconds",
          "From the arrival of a request to its first generated token.", kWaitSeconds),
      .inter_token = series.NewHistogram(
          "muselet_inter_token_seconds",
          "Between two generated tokens of one answer, as the gateway gets them.", kTokenSeconds),
      .end_to_end =
          series.NewHistogram("muselet_request_duration_seconds",
                              "From the arrival of a request to its end.", kRequestSeconds),
      .queue_time = series.NewHistogram("muselet_request_queue_seconds",
                                        "From the arrival of a request to its place on a replica.",
                                        kWaitSeconds),
      .request_prompt_tokens = series.NewHistogram("muselet_request_prompt_tokens",
                                                   "Prompt tokens of a request.", kTokenCounts),
      .request_generation_tokens = series.NewHistogram(
          "muselet_request_generation_tokens", "Generated tokens of a request.", kTokenCounts),
      .in_flight = series.NewGauge("muselet_gateway_requests_in_flight",
                                   "Requests that the gateway holds now."),
      .retries = series.NewCounter("muselet_request_retries_total",
                                   "Attempts after the first, because a replica was lost."),
  };
}

GatewayMetrics::Recovery NewRecovery(const Series& series) {
  const auto audits = [&](const char* result) {
    return series.NewCounter("muselet_audits_total", "Answers computed again, by what came out.",
                             {{"result", result}});
  };
  return {
      .joins = series.NewCounter(
          "muselet_requests_joined_total",
          "Requests that were asked again and looked for what might still run of them."),
      .poisoned = series.NewCounter("muselet_requests_poisoned_total",
                                    "Requests given up because replicas failed by them."),
      .budget_refusals = series.NewCounter("muselet_retry_budget_refusals_total",
                                           "Attempts that the retry budget did not allow."),
      .late_messages = series.NewCounter("muselet_late_messages_total",
                                         "Messages of ended requests and old attempts, dropped."),
      .mismatched_tokens =
          series.NewCounter("muselet_mismatched_tokens_total",
                            "Tokens that came a second time and were not the same."),
      .audits = {audits("match"), audits("mismatch"), audits("skipped")},
      .audit_mismatches =
          series.NewCounter("muselet_audit_mismatches_total",
                            "Audited answers that another replica did not confirm."),
  };
}

SchedulerMetrics::PerSurface NewPerSurface(const Series& series, const std::string& surface) {
  SchedulerMetrics::PerSurface per_surface;
  for (const char* name : {"realtime", "interactive", "batch"}) {
    per_surface.waiting.push_back(series.NewGauge("muselet_scheduler_surface_waiting",
                                                  "Requests that wait, by surface and class.",
                                                  {{"surface", surface}, {"class", name}}));
  }
  for (const char* name :
       {"surface", "model", "too_long", "quota", "line", "overload", "deadline", "replica"}) {
    per_surface.refusals.push_back(series.NewCounter("muselet_scheduler_surface_refusals_total",
                                                     "Requests refused, by surface and reason.",
                                                     {{"surface", surface}, {"reason", name}}));
  }
  return per_surface;
}

}  // namespace

void Counter::Increment(double amount) const {
  counter_->Increment(amount);
}
void Gauge::Set(double value) const {
  gauge_->Set(value);
}
void Gauge::Add(double amount) const {
  gauge_->Increment(amount);
}
void Histogram::Observe(double value) const {
  histogram_->Observe(value);
}

MetricRegistry::MetricRegistry()
    : registry_(std::make_shared<prometheus::Registry>()),
      process_(std::make_unique<ProcessCollector>()) {}

MetricRegistry::~MetricRegistry() = default;

std::string MetricRegistry::Text() const {
  std::vector<prometheus::MetricFamily> families = registry_->Collect();
  for (auto& family : process_->Collect()) families.push_back(std::move(family));
  return prometheus::TextSerializer().Serialize(families);
}

GatewayMetrics::GatewayMetrics(MetricRegistry& registry, const std::string& gateway,
                               const std::vector<std::string>& models)
    : http_connections_(Series(registry, {{"gateway", gateway}})
                            .NewGauge("muselet_http_connections", "Open HTTP connections.")),
      recovery_(NewRecovery(Series(registry, {{"gateway", gateway}}))) {
  std::vector<std::string> labels = models;
  labels.emplace_back("unknown");
  for (const std::string& model : labels) {
    per_model_.emplace(model,
                       NewPerModel(Series(registry, {{"gateway", gateway}, {"model", model}})));
  }
  const Series series(registry, {{"gateway", gateway}});
  for (const char* code : {"1xx", "2xx", "3xx", "4xx", "5xx"}) {
    http_responses_.push_back(series.NewCounter("muselet_http_responses_total",
                                                "HTTP responses by class of status code.",
                                                {{"code", code}}));
  }
}

const GatewayMetrics::PerModel& GatewayMetrics::model(std::string_view id) const {
  const auto found = per_model_.find(id);
  return found != per_model_.end() ? found->second : per_model_.find("unknown")->second;
}

Counter GatewayMetrics::http_responses(int status_code) const {
  CHECK(status_code >= 100 && status_code < 600, "HTTP status ", status_code);
  return http_responses_[static_cast<size_t>(status_code / 100 - 1)];
}

SchedulerMetrics::SchedulerMetrics(MetricRegistry& registry, const std::string& scheduler,
                                   const std::vector<std::string>& models,
                                   const std::vector<std::string>& surfaces)
    : SchedulerMetrics(Series(registry, {{"scheduler", scheduler}}), models, surfaces) {}

template <typename S>
SchedulerMetrics::SchedulerMetrics(const S& series, const std::vector<std::string>& models,
                                   std::vector<std::string> surfaces)
    : waiting(series.NewGauge("muselet_scheduler_requests_waiting",
                              "Requests that wait for a place on a replica.")),
      placed(series.NewGauge("muselet_scheduler_requests_placed",
                             "Requests that hold a place on a replica.")),
      nodes(series.NewGauge("muselet_scheduler_nodes", "Nodes that are known and alive.")),
      gateways(series.NewGauge("muselet_scheduler_gateways", "Gateways that are known and alive.")),
      tickets(series.NewCounter("muselet_scheduler_tickets_total", "Places given.")),
      refusals(series.NewCounter("muselet_scheduler_refusals_total", "Requests refused.")),
      losses(series.NewCounter("muselet_scheduler_losses_total",
                               "Attempts lost because their replica went away.")),
      peers_left(series.NewCounter("muselet_scheduler_peers_left_total",
                                   "Nodes and gateways that left in order.")),
      peers_lost(series.NewCounter("muselet_scheduler_peers_lost_total",
                                   "Nodes and gateways that broke off or fell silent.")),
      queue_time(series.NewHistogram("muselet_scheduler_queue_seconds",
                                     "From asking for a place to getting it.", kWaitSeconds)),
      prompt_tokens(series.NewCounter("muselet_scheduler_prompt_tokens_total",
                                      "Prompt tokens of requests that got a place.")),
      cached_prompt_tokens(
          series.NewCounter("muselet_scheduler_cached_prompt_tokens_total",
                            "Of them, those that the chosen replica was known to have cached.")),
      prefix_blocks(series.NewGauge("muselet_scheduler_prefix_blocks",
                                    "Cached blocks of replicas that the scheduler knows of.")),
      prefix_bytes(
          series.NewGauge("muselet_scheduler_prefix_index_bytes", "Memory of the prefix index.")),
      cache_gaps(series.NewCounter("muselet_scheduler_cache_gaps_total",
                                   "Snapshots of prefix caches asked for after a gap.")),
      ejections(series.NewCounter("muselet_scheduler_ejections_total",
                                  "Replicas ejected for being slow or failing.")),
      nonsense_reports(series.NewCounter("muselet_scheduler_nonsense_reports_total",
                                         "Reports that cannot be true, ignored.")) {
  surfaces.emplace_back("unknown");
  for (const std::string& surface : surfaces)
    per_surface_.emplace(surface, NewPerSurface(series, surface));
  for (const std::string& model : models) {
    replicas_ready_.emplace(
        model, series.NewGauge("muselet_scheduler_replicas_ready",
                               "Replicas of a model that can take requests.", {{"model", model}}));
  }
}

const SchedulerMetrics::PerSurface& SchedulerMetrics::surface(std::string_view name) const {
  const auto found = per_surface_.find(name);
  return found != per_surface_.end() ? found->second : per_surface_.find("unknown")->second;
}

const Gauge* SchedulerMetrics::replicas_ready(std::string_view model) const {
  const auto found = replicas_ready_.find(model);
  return found == replicas_ready_.end() ? nullptr : &found->second;
}

NodeMetrics::NodeMetrics(MetricRegistry& registry, const std::string& node,
                         const std::string& replica, const std::string& model)
    : NodeMetrics(Series(registry, {{"node", node}, {"replica", replica}, {"model", model}})) {}

template <typename S>
NodeMetrics::NodeMetrics(const S& series)
    : running(series.NewGauge("muselet_sequences_running", "Sequences that are being computed.")),
      waiting(series.NewGauge("muselet_sequences_waiting",
                              "Sequences that are admitted and wait for the KV cache.")),
      kv_blocks_used(series.NewGauge("muselet_kv_blocks_used", "KV blocks held by sequences.")),
      kv_blocks_total(series.NewGauge("muselet_kv_blocks", "KV blocks that there are.")),
      kv_usage_ratio(series.NewGauge("muselet_kv_usage_ratio", "Used KV blocks, 0 to 1.")),
      prefill_tokens(series.NewCounter("muselet_prefill_tokens_total",
                                       "Rows computed to fill the KV cache with prompts.")),
      decode_tokens(series.NewCounter("muselet_decode_tokens_total", "Tokens sampled.")),
      prefix_query_tokens(series.NewCounter("muselet_prefix_cache_query_tokens_total",
                                            "Prompt tokens looked up in the prefix cache.")),
      prefix_hit_tokens(series.NewCounter("muselet_prefix_cache_hit_tokens_total",
                                          "Prompt tokens found in the prefix cache.")),
      preemptions(series.NewCounter("muselet_preemptions_total",
                                    "Sequences paused because KV blocks ran out.")),
      steps(series.NewCounter("muselet_steps_total", "Steps computed.")),
      sequences_finished(
          series.NewCounter("muselet_sequences_finished_total", "Sequences that ended.")),
      step_time(
          series.NewHistogram("muselet_step_seconds", "Duration of one step.", kTokenSeconds)),
      step_rows(series.NewHistogram("muselet_step_rows",
                                    "Rows of one step, prefill and decode together.", kRowCounts)),
      step_sequences(
          series.NewHistogram("muselet_step_sequences", "Sequences in one step.", kRowCounts)),
      prefill_chunk_rows(series.NewHistogram("muselet_prefill_chunk_rows",
                                             "Rows of one prefill chunk.", kRowCounts)),
      last_step_unix_seconds(series.NewGauge("muselet_last_step_timestamp_seconds",
                                             "When the last step ended, since the Unix epoch.")) {}

RankMetrics::RankMetrics(MetricRegistry& registry, const std::string& node,
                         const std::string& replica, const std::vector<std::string>& losses)
    : RankMetrics(Series(registry, {{"node", node}, {"replica", replica}}), losses) {}

template <typename S>
RankMetrics::RankMetrics(const S& series, const std::vector<std::string>& losses)
    : ranks(series.NewGauge("muselet_ranks", "Ranks that the replica is made of.")),
      ranks_joined(series.NewGauge("muselet_ranks_joined", "Ranks that have joined.")),
      epochs(series.NewCounter("muselet_rank_epochs_formed_total",
                               "Epochs that began with all ranks ready.")),
      forming_time(series.NewHistogram("muselet_rank_forming_seconds",
                                       "From the end of an epoch, or the start, to the next.",
                                       kWaitSeconds)) {
  for (const std::string& loss : losses) {
    this->losses.push_back(series.NewCounter("muselet_rank_losses_total",
                                             "Epochs that a rank's loss ended, by its reason.",
                                             {{"reason", loss}}));
  }
}

RankProcessMetrics::RankProcessMetrics(MetricRegistry& registry, const std::string& node,
                                       const std::vector<std::string>& causes) {
  const Series series(registry, {{"node", node}});
  for (const std::string& cause : causes) {
    deaths.push_back(series.NewCounter("muselet_rank_process_deaths_total",
                                       "Processes of ranks that ended unasked, by their cause.",
                                       {{"cause", cause}}));
  }
}

void RegisterBuildInfo(MetricRegistry& registry, const std::string& version,
                       const std::string& revision) {
  Series(registry, {{"version", version}, {"revision", revision}})
      .NewGauge("muselet_build_info", "Which build this is; always 1.")
      .Set(1);
}

void RegisterModelInfo(MetricRegistry& registry, const ModelInfoLabels& labels) {
  const Series series(registry, {{"model", labels.model}});
  series
      .NewGauge("muselet_model_info", "What a model is; always 1.",
                {{"architecture", labels.architecture},
                 {"digest", labels.digest},
                 {"numerics", labels.numerics_id}})
      .Set(1);
  series.NewGauge("muselet_model_weight_bytes", "Weights in memory, bytes.")
      .Set(labels.weight_bytes);
  series.NewGauge("muselet_model_context_tokens", "Longest sequence, tokens.")
      .Set(labels.context_tokens);
}

}  // namespace muselet
