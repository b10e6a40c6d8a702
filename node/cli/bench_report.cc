#include "node/cli/bench_report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "base/json.h"
#include "node/cli/version.h"

namespace muselet {
namespace {

double Milliseconds(int64_t duration_us) {
  return static_cast<double>(duration_us) / 1e3;
}

double Quantile(const std::vector<double>& sorted, double quantile) {
  const double place = quantile * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(std::floor(place));
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (sorted[above] - sorted[below]) * (place - static_cast<double>(below));
}

std::string Row(const char* name, const Percentiles& values) {
  char line[160];
  if (values.samples == 0) {
    std::snprintf(line, sizeof(line), "  %-22s %10s\n", name, "-");
  } else {
    std::snprintf(line, sizeof(line), "  %-22s %10.2f %10.2f %10.2f %10.2f %10.2f\n", name,
                  values.mean, values.p50, values.p90, values.p99, values.max);
  }
  return line;
}

std::string Line(const char* name, double value, const char* unit) {
  char line[160];
  std::snprintf(line, sizeof(line), "  %-22s %10.2f %s\n", name, value, unit);
  return line;
}

Json ToJson(const Percentiles& values) {
  if (values.samples == 0) return nullptr;
  return {{"samples", values.samples}, {"mean", values.mean}, {"p50", values.p50},
          {"p90", values.p90},         {"p99", values.p99},   {"max", values.max}};
}

Json OptionsJson(const BenchOptions& options, const std::string& model) {
  Json json;
  json["url"] = options.url;
  json["model"] = model;
  json["api"] = options.completions ? "completions" : "chat";
  json["concurrency"] = options.concurrency;
  json["rate"] = options.rate > 0 ? Json(options.rate) : Json(nullptr);
  json["seed"] = options.seed;
  json["prompts"] = options.prompts;
  json["max_tokens"] = options.max_tokens;
  json["temperature"] = options.temperature;
  json["ignore_eos"] = options.ignore_eos;
  json["warmup"] = options.warmup;
  return json;
}

struct Samples {
  std::vector<double> ttft;
  std::vector<double> itl;
  std::vector<double> tpot;
  std::vector<double> end_to_end;
};

void AddSuccess(const RequestRecord& record, BenchSummary& summary, Samples& samples) {
  ++summary.succeeded;
  summary.prompt_tokens += record.prompt_tokens;
  summary.output_tokens += record.output_tokens;
  summary.counted_by_chunks = summary.counted_by_chunks || !record.has_usage;
  samples.end_to_end.push_back(Milliseconds(record.end_us - record.start_us));
  if (record.first_us == 0) return;
  samples.ttft.push_back(Milliseconds(record.first_us - record.start_us));
  for (const int64_t gap_us : record.gaps_us) samples.itl.push_back(Milliseconds(gap_us));
  if (record.output_tokens < 2) return;
  samples.tpot.push_back(Milliseconds(record.last_us - record.first_us) /
                         (record.output_tokens - 1));
}

}  // namespace

Percentiles PercentilesOf(std::vector<double> samples_ms) {
  Percentiles values;
  values.samples = samples_ms.size();
  if (samples_ms.empty()) return values;
  std::sort(samples_ms.begin(), samples_ms.end());
  values.mean = std::accumulate(samples_ms.begin(), samples_ms.end(), 0.0) /
                static_cast<double>(samples_ms.size());
  values.p50 = Quantile(samples_ms, 0.50);
  values.p90 = Quantile(samples_ms, 0.90);
  values.p99 = Quantile(samples_ms, 0.99);
  values.max = samples_ms.back();
  return values;
}

BenchSummary Summarise(const std::vector<RequestRecord>& records) {
  BenchSummary summary;
  Samples samples;
  int64_t first_us = INT64_MAX;
  int64_t last_us = INT64_MIN;
  double busy_us = 0;
  for (const RequestRecord& record : records) {
    first_us = std::min(first_us, record.start_us);
    last_us = std::max(last_us, record.end_us);
    busy_us += static_cast<double>(record.end_us - record.start_us);
    if (record.error.empty()) {
      AddSuccess(record, summary, samples);
      continue;
    }
    ++summary.failed;
    ++summary.errors[record.error];
    summary.error_notes.emplace(record.error, record.error_message);
  }
  if (last_us > first_us) {
    const auto elapsed_us = static_cast<double>(last_us - first_us);
    summary.elapsed_s = elapsed_us / 1e6;
    summary.mean_in_flight = busy_us / elapsed_us;
    summary.output_tokens_per_s = static_cast<double>(summary.output_tokens) / summary.elapsed_s;
    summary.total_tokens_per_s =
        static_cast<double>(summary.prompt_tokens + summary.output_tokens) / summary.elapsed_s;
    summary.requests_per_s = summary.succeeded / summary.elapsed_s;
  }
  summary.ttft = PercentilesOf(std::move(samples.ttft));
  summary.itl = PercentilesOf(std::move(samples.itl));
  summary.tpot = PercentilesOf(std::move(samples.tpot));
  summary.end_to_end = PercentilesOf(std::move(samples.end_to_end));
  return summary;
}

std::string BenchTable(const BenchSummary& summary, const BenchOptions& options,
                       const std::string& model) {
  std::string table = model + " at " + options.url + "\n";
  table += Line("duration", summary.elapsed_s, "s");
  table += "  requests               " + std::to_string(summary.succeeded) + " succeeded, " +
           std::to_string(summary.failed) + " failed\n";
  table += Line("mean in flight", summary.mean_in_flight, "requests");
  table += Line("request throughput", summary.requests_per_s, "requests/s");
  table += Line("output throughput", summary.output_tokens_per_s, "tokens/s");
  table += Line("total throughput", summary.total_tokens_per_s, "tokens/s");
  table += "  tokens                 " + std::to_string(summary.prompt_tokens) + " prompt, " +
           std::to_string(summary.output_tokens) + " output" +
           (summary.counted_by_chunks ? " (counted by chunks: the server sends no usage)" : "") +
           "\n";
  table += "\n  milliseconds                 mean        p50        p90        p99        max\n";
  table += Row("time to first token", summary.ttft);
  table += Row("inter-token latency", summary.itl);
  table += Row("time per output token", summary.tpot);
  table += Row("end to end", summary.end_to_end);
  for (const auto& [kind, count] : summary.errors) {
    table += "\n  " + std::to_string(count) + " × " + kind + ": " + summary.error_notes.at(kind);
  }
  return table + (summary.errors.empty() ? "" : "\n");
}

std::string BenchJson(const BenchSummary& summary, const BenchOptions& options,
                      const std::string& model) {
  Json json;
  json["tool"] = "muselet bench " + std::string(SoftwareVersion());
  json["options"] = OptionsJson(options, model);
  json["duration_s"] = summary.elapsed_s;
  json["requests"] = {{"succeeded", summary.succeeded}, {"failed", summary.failed}};
  json["mean_in_flight"] = summary.mean_in_flight;
  json["prompt_tokens"] = summary.prompt_tokens;
  json["output_tokens"] = summary.output_tokens;
  json["tokens_counted_by"] = summary.counted_by_chunks ? "chunks" : "usage";
  json["requests_per_s"] = summary.requests_per_s;
  json["output_tokens_per_s"] = summary.output_tokens_per_s;
  json["total_tokens_per_s"] = summary.total_tokens_per_s;
  json["ttft_ms"] = ToJson(summary.ttft);
  json["itl_ms"] = ToJson(summary.itl);
  json["tpot_ms"] = ToJson(summary.tpot);
  json["end_to_end_ms"] = ToJson(summary.end_to_end);
  json["errors"] = summary.errors;
  return json.dump(2) + "\n";
}

}  // namespace muselet
