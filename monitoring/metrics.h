// Every metric of muselet, once: name, unit, labels, buckets, help (monitoring/README.md says what
// to do about each). A role gets its struct by reference and counts; nothing is global. All series
// exist at zero from the start.
//
// Built on prometheus-cpp; its types stay behind this header. Counting is thread-safe and does not
// allocate.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"

namespace prometheus {
class Counter;
class Gauge;
class Histogram;
class Registry;
}  // namespace prometheus

namespace muselet {

class ProcessCollector;

// References into a MetricRegistry, which must outlive them. Cheap to copy.
class Counter {
 public:
  explicit Counter(prometheus::Counter* counter) : counter_(counter) {}
  void Increment(double amount = 1.0) const;

 private:
  prometheus::Counter* counter_;
};
class Gauge {
 public:
  explicit Gauge(prometheus::Gauge* gauge) : gauge_(gauge) {}
  void Set(double value) const;
  void Add(double amount) const;

 private:
  prometheus::Gauge* gauge_;
};
class Histogram {
 public:
  explicit Histogram(prometheus::Histogram* histogram) : histogram_(histogram) {}
  void Observe(double value) const;  // in the metric's unit (seconds, tokens, rows)

 private:
  prometheus::Histogram* histogram_;
};

// The registry of one process; serves all its roles.
class MetricRegistry {
 public:
  MetricRegistry();
  ~MetricRegistry();
  // The Prometheus text format 0.0.4 of everything registered, process_* metrics included.
  std::string Text() const;
  prometheus::Registry& registry() { return *registry_; }

 private:
  std::shared_ptr<prometheus::Registry> registry_;
  std::unique_ptr<ProcessCollector> process_;
};

// How a request ended, for muselet_requests_total{outcome=...}.
enum class RequestOutcome : uint8_t {
  kStop,
  kLength,
  kCancelled,
  kDeadline,
  kRefused,
  kInvalid,
  kError
};

// labels: gateway, model. A request for a model that the config does not have counts under
// model="unknown".
class GatewayMetrics {
 public:
  GatewayMetrics(MetricRegistry& registry, const std::string& gateway,
                 const std::vector<std::string>& models);

  struct PerModel {
    std::vector<Counter> requests;        // by RequestOutcome: muselet_requests_total
    Counter prompt_tokens;                // muselet_prompt_tokens_total
    Counter cached_prompt_tokens;         // muselet_cached_prompt_tokens_total
    Counter generation_tokens;            // muselet_generation_tokens_total
    Histogram time_to_first_token;        // muselet_time_to_first_token_seconds
    Histogram inter_token;                // muselet_inter_token_seconds
    Histogram end_to_end;                 // muselet_request_duration_seconds
    Histogram queue_time;                 // muselet_request_queue_seconds: until the ticket
    Histogram request_prompt_tokens;      // muselet_request_prompt_tokens
    Histogram request_generation_tokens;  // muselet_request_generation_tokens
    Gauge in_flight;                      // muselet_gateway_requests_in_flight
    Counter retries;  // muselet_request_retries_total: attempts beyond the first
  };
  // The struct of a model; of the label "unknown" for any other name.
  const PerModel& model(std::string_view id) const;

  // muselet_http_responses_total{code="1xx".."5xx"}. REQUIRES: 100 <= status_code < 600.
  Counter http_responses(int status_code) const;
  // muselet_http_connections: open now.
  const Gauge& http_connections() const { return http_connections_; }

  // Of all models.
  struct Recovery {
    Counter joins;                // muselet_requests_joined_total: asked for what might run already
    Counter poisoned;             // muselet_requests_poisoned_total: replicas failed by them
    Counter budget_refusals;      // muselet_retry_budget_refusals_total: attempts not begun
    Counter late_messages;        // muselet_late_messages_total: of old attempts, dropped
    Counter mismatched_tokens;    // muselet_mismatched_tokens_total: sent again with another id
    std::vector<Counter> audits;  // muselet_audits_total{result}: match, mismatch, skipped
    Counter audit_mismatches;     // muselet_audit_mismatches_total
  };
  const Recovery& recovery() const { return recovery_; }

 private:
  std::map<std::string, PerModel, std::less<>> per_model_;
  std::vector<Counter> http_responses_;  // by code / 100 - 1
  Gauge http_connections_;
  Recovery recovery_;
};

class SchedulerMetrics {
 public:
  // A surface that is not among `surfaces` counts under surface="unknown".
  SchedulerMetrics(MetricRegistry& registry, const std::string& scheduler,
                   const std::vector<std::string>& models,
                   const std::vector<std::string>& surfaces = {"default"});

  Gauge waiting;         // muselet_scheduler_requests_waiting
  Gauge placed;          // muselet_scheduler_requests_placed: hold a ticket
  Gauge nodes;           // muselet_scheduler_nodes
  Gauge gateways;        // muselet_scheduler_gateways
  Counter tickets;       // muselet_scheduler_tickets_total
  Counter refusals;      // muselet_scheduler_refusals_total
  Counter losses;        // muselet_scheduler_losses_total: attempts on replicas that went away
  Counter peers_left;    // muselet_scheduler_peers_left_total: nodes and gateways, with a Goodbye
  Counter peers_lost;    // muselet_scheduler_peers_lost_total: without one
  Histogram queue_time;  // muselet_scheduler_queue_seconds
  // muselet_scheduler_prompt_tokens_total, muselet_scheduler_cached_prompt_tokens_total: of what
  // was placed, and of it what the chosen replica was known to have cached
  Counter prompt_tokens;
  Counter cached_prompt_tokens;
  Gauge prefix_blocks;       // muselet_scheduler_prefix_blocks: indexed
  Gauge prefix_bytes;        // muselet_scheduler_prefix_index_bytes
  Counter cache_gaps;        // muselet_scheduler_cache_gaps_total: snapshots asked for
  Counter ejections;         // muselet_scheduler_ejections_total
  Counter nonsense_reports;  // muselet_scheduler_nonsense_reports_total
  struct PerSurface {
    std::vector<Gauge> waiting;  // by RequestClass: muselet_scheduler_surface_waiting{class}
    // By RefusalReason (scheduler/route): muselet_scheduler_surface_refusals_total{reason}, with
    // surface, model, too_long, quota, line, overload, deadline, replica.
    std::vector<Counter> refusals;
  };
  const PerSurface& surface(std::string_view name) const;
  // muselet_scheduler_replicas_ready{model}; null for a model that the config does not have.
  const Gauge* replicas_ready(std::string_view model) const;

 private:
  template <typename S>
  SchedulerMetrics(const S& series, const std::vector<std::string>& models,
                   std::vector<std::string> surfaces);

  std::map<std::string, Gauge, std::less<>> replicas_ready_;
  std::map<std::string, PerSurface, std::less<>> per_surface_;
};

// labels: node, replica, model.
class NodeMetrics {
 public:
  NodeMetrics(MetricRegistry& registry, const std::string& node, const std::string& replica,
              const std::string& model);

  Gauge running;                // muselet_sequences_running
  Gauge waiting;                // muselet_sequences_waiting
  Gauge kv_blocks_used;         // muselet_kv_blocks_used
  Gauge kv_blocks_total;        // muselet_kv_blocks
  Gauge kv_usage_ratio;         // muselet_kv_usage_ratio, 0..1
  Counter prefill_tokens;       // muselet_prefill_tokens_total: rows computed in prefill
  Counter decode_tokens;        // muselet_decode_tokens_total: tokens sampled
  Counter prefix_query_tokens;  // muselet_prefix_cache_query_tokens_total
  Counter prefix_hit_tokens;    // muselet_prefix_cache_hit_tokens_total
  Counter preemptions;          // muselet_preemptions_total
  Counter steps;                // muselet_steps_total
  Counter sequences_finished;   // muselet_sequences_finished_total
  Histogram step_time;          // muselet_step_seconds
  Histogram step_rows;          // muselet_step_rows: rows of a step
  Histogram step_sequences;     // muselet_step_sequences: sequences in a step; _sum / _count is the
                                // mean batch
  Histogram prefill_chunk_rows;  // muselet_prefill_chunk_rows
  Gauge last_step_unix_seconds;  // muselet_last_step_timestamp_seconds

 private:
  template <typename S>
  explicit NodeMetrics(const S& series);
};

// A replica that is made of ranks, at its leader. labels: node, replica.
class RankMetrics {
 public:
  // `losses`: the words of the label reason.
  RankMetrics(MetricRegistry& registry, const std::string& node, const std::string& replica,
              const std::vector<std::string>& losses);

  Gauge ranks;         // muselet_ranks: that the replica needs
  Gauge ranks_joined;  // muselet_ranks_joined
  Counter epochs;      // muselet_rank_epochs_formed_total
  std::vector<Counter>
      losses;              // muselet_rank_losses_total{reason}: epochs that ended, by the words
  Histogram forming_time;  // muselet_rank_forming_seconds: without an epoch

 private:
  template <typename S>
  RankMetrics(const S& series, const std::vector<std::string>& losses);
};

// The processes of ranks on one node. labels: node, cause.
class RankProcessMetrics {
 public:
  RankProcessMetrics(MetricRegistry& registry, const std::string& node,
                     const std::vector<std::string>& causes);

  std::vector<Counter> deaths;  // muselet_rank_process_deaths_total, by the causes
};

// muselet_build_info{version, revision} = 1.
void RegisterBuildInfo(MetricRegistry& registry, const std::string& version,
                       const std::string& revision);
// muselet_model_info{model, architecture, digest, numerics, ...} = 1, muselet_model_weight_bytes,
// muselet_model_context_tokens.
struct ModelInfoLabels {
  std::string model;
  std::string architecture;
  std::string digest;
  std::string numerics_id;
  double weight_bytes = 0;
  double context_tokens = 0;
};
void RegisterModelInfo(MetricRegistry& registry, const ModelInfoLabels& labels);

}  // namespace muselet
