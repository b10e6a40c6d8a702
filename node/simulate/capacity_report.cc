// How a CapacityReport is shown.
#include <algorithm>
#include <cstdio>

#include "base/json.h"
#include "node/simulate/capacity.h"

namespace muselet {
namespace {

double PerSecond(uint64_t count, const CapacityReport& report) {
  return static_cast<double>(count) / report.virtual_s;
}

double Part(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

void AppendSurface(const std::string& name, const SurfaceCapacity& surface,
                   const CapacityReport& report, std::string& text) {
  char line[320];
  std::snprintf(line, sizeof(line),
                "%-14s %9llu %9llu %8.2f %9.1f %9.1f %9.1f %9.1f %8.2f %8.2f %8.2f %7.1f%%\n",
                name.substr(0, 14).c_str(), static_cast<unsigned long long>(surface.requests),
                static_cast<unsigned long long>(surface.completed), PerSecond(surface.good, report),
                PerSecond(surface.output_tokens, report), surface.ttft.p50_ms, surface.ttft.p90_ms,
                surface.ttft.p99_ms, surface.itl.p50_ms, surface.itl.p90_ms, surface.itl.p99_ms,
                100 * Part(surface.cached_tokens, surface.prompt_tokens));
  text += line;
  for (const auto& [code, count] : surface.errors)
    text += "  " + std::to_string(count) + " ended with " + code + "\n";
}

Json ToJson(const Distribution& times) {
  if (times.samples == 0) return nullptr;
  return {{"samples", times.samples},
          {"mean_ms", times.mean_ms},
          {"p50_ms", times.p50_ms},
          {"p90_ms", times.p90_ms},
          {"p99_ms", times.p99_ms}};
}

Json ToJson(const SurfaceCapacity& surface, const CapacityReport& report) {
  Json json;
  json["requests"] = surface.requests;
  json["completed"] = surface.completed;
  json["goodput_per_s"] = PerSecond(surface.good, report);
  json["good_part"] = Part(surface.good, surface.requests);
  json["output_tokens_per_s"] = PerSecond(surface.output_tokens, report);
  json["prompt_tokens"] = surface.prompt_tokens;
  json["output_tokens"] = surface.output_tokens;
  json["cached_part"] = Part(surface.cached_tokens, surface.prompt_tokens);
  json["ttft"] = ToJson(surface.ttft);
  json["itl"] = ToJson(surface.itl);
  json["errors"] = Json::object();
  for (const auto& [code, count] : surface.errors) json["errors"][code] = count;
  return json;
}

}  // namespace

std::string CapacityText(const CapacityReport& report) {
  char line[320];
  std::snprintf(line, sizeof(line),
                "%u replicas, %.1f s of arrivals, %.1f s to the last answer (simulated in %.1f s, "
                "%.0f times real time)\nreplicas computed %.1f%% of the time; %llu attempts "
                "repeated\n\n",
                report.replicas, report.arrivals_s, report.virtual_s, report.wall_s,
                report.virtual_s / std::max(report.wall_s, 1e-6), 100 * report.busy,
                static_cast<unsigned long long>(report.reattempts));
  std::string text = line;
  std::snprintf(line, sizeof(line), "%-14s %9s %9s %8s %9s %29s %26s %8s\n", "surface", "requests",
                "completed", "good/s", "tokens/s", "TTFT ms: p50, p90, p99",
                "ITL ms: p50, p90, p99", "cached");
  text += line;
  for (const auto& [name, surface] : report.surfaces) AppendSurface(name, surface, report, text);
  if (report.surfaces.size() > 1) AppendSurface("all", report.all, report, text);
  return text;
}

std::string CapacityJson(const CapacityReport& report) {
  Json json;
  json["replicas"] = report.replicas;
  json["arrivals_s"] = report.arrivals_s;
  json["virtual_s"] = report.virtual_s;
  json["wall_s"] = report.wall_s;
  json["busy_part"] = report.busy;
  json["reattempts"] = report.reattempts;
  json["all"] = ToJson(report.all, report);
  json["surfaces"] = Json::object();
  for (const auto& [name, surface] : report.surfaces)
    json["surfaces"][name] = ToJson(surface, report);
  return json.dump(2) + "\n";
}

}  // namespace muselet
