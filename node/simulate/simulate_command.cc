#include "node/simulate/simulate_command.h"

#include <algorithm>
#include <vector>

#include "node/simulate/calibration.h"
#include "node/simulate/capacity.h"
#include "node/simulate/measure.h"
#include "node/simulate/trace.h"

namespace muselet {
namespace {

constexpr uint32_t kReplicasMax = 1000;
constexpr int64_t kLinkUs = 150;  // of a message between processes, about what loopback takes

Status CheckArguments(const SimulateArguments& arguments) {
  if (arguments.replicas > kReplicasMax)
    return InvalidArgument("--replicas: at most " + std::to_string(kReplicasMax));
  if (!(arguments.speed > 0 && arguments.speed <= 1e6))
    return InvalidArgument("--speed: expected more than 0 and at most 1000000");
  if (!(arguments.length_scale > 0 && arguments.length_scale <= 1000))
    return InvalidArgument("--length-scale: expected more than 0 and at most 1000");
  if (arguments.kv_tokens > 4'000'000'000)
    return InvalidArgument("--kv-tokens: at most 4000000000");
  if (arguments.trace.empty() && arguments.measure_to.empty())
    return InvalidArgument("--trace: which requests? A file of them is needed");
  return OkStatus();
}

SimClusterOptions ClusterOptions(const ClusterConfig& config, const SimulateArguments& arguments,
                                 const Calibration& calibration) {
  SimClusterOptions options;
  options.seed = arguments.seed;
  options.links.delay_us_min = options.links.delay_us_max = kLinkUs;
  options.model = config.models.front().id;
  options.gateways = std::max<uint32_t>(1, static_cast<uint32_t>(config.gateways.size()));
  options.schedulers = std::max<uint32_t>(1, static_cast<uint32_t>(config.schedulers.size()));
  const auto replicas = static_cast<uint32_t>(
      std::count_if(config.replicas.begin(), config.replicas.end(),
                    [&](const ReplicaEntry& replica) { return replica.model == options.model; }));
  options.nodes = arguments.replicas > 0 ? arguments.replicas : std::max(1U, replicas);
  options.owner.limits = config.gateway.request;
  options.owner.limits.requests_max = 10'000'000;  // the trace's clients are not told to go away
  options.gateway_timing = {config.gateway.heartbeat_interval_us, config.gateway.peer_timeout_us};
  options.route = config.scheduler;
  options.surfaces.assign(config.surfaces.begin(), config.surfaces.end());
  options.node_timing = {config.engine.report_interval_us, config.engine.peer_timeout_us};
  SimReplicaOptions& engine = options.engine;
  engine.batch = config.engine.batch;
  engine.vocab_size = 50'000;
  engine.context_tokens = config.engine.context_tokens > 0
                              ? std::min(config.engine.context_tokens, calibration.context_tokens)
                              : calibration.context_tokens;
  const uint64_t kv_tokens = arguments.kv_tokens > 0 ? arguments.kv_tokens : calibration.kv_tokens;
  engine.block_count =
      static_cast<uint32_t>(std::max<uint64_t>(1, kv_tokens / engine.block_tokens));
  engine.cost = calibration.cost;
  engine.checks_cache = false;
  return options;
}

std::vector<SurfaceOptions> Surfaces(const ClusterConfig& config) {
  std::vector<SurfaceOptions> surfaces(config.surfaces.begin(), config.surfaces.end());
  if (surfaces.empty()) surfaces.emplace_back();
  return surfaces;
}

Status Measure(const ClusterConfig& config, const SimulateArguments& arguments, std::ostream& out) {
  ASSIGN_OR_RETURN(const Calibration calibration,
                   MeasureSteps(config.models.front().path, config.engine));
  RETURN_IF_ERROR(WriteCalibration(arguments.measure_to, calibration));
  const StepCost& cost = calibration.cost;
  out << "a step takes " << cost.host_us << " us + max(" << cost.weights_us << " us, rows * "
      << cost.row_us << " us) + sampled rows * " << cost.logits_us << " us + " << cost.context_us
      << " us for every 1024 positions that its rows attend\nwritten to " << arguments.measure_to
      << "\n";
  return OkStatus();
}

Status Simulate(const ClusterConfig& config, const SimulateArguments& arguments,
                std::ostream& out) {
  RETURN_IF_ERROR(CheckArguments(arguments));
  if (config.models.empty()) return InvalidArgument("models: the config names none");
  if (!arguments.measure_to.empty()) return Measure(config, arguments, out);
  Calibration calibration;
  if (!arguments.calibration.empty()) {
    ASSIGN_OR_RETURN(calibration, ReadCalibration(arguments.calibration));
  }
  TraceOptions trace_options;
  trace_options.length_scale = arguments.length_scale;
  if (arguments.requests_max > 0) trace_options.requests_max = arguments.requests_max;
  ASSIGN_OR_RETURN(const std::vector<TraceRequest> trace,
                   ReadTrace(arguments.trace, trace_options));
  CapacityOptions options;
  options.cluster = ClusterOptions(config, arguments, calibration);
  options.surfaces = Surfaces(config);
  options.speed = arguments.speed;
  options.timeout_us = config.gateway.request.timeout_us;
  const CapacityReport report = RunCapacity(options, trace);
  out << (arguments.json ? CapacityJson(report) : CapacityText(report));
  return OkStatus();
}

}  // namespace

int RunSimulateCommand(const ClusterConfig& config, const SimulateArguments& arguments,
                       std::ostream& out, std::ostream& err) {
  const Status status = Simulate(config, arguments, out);
  if (status.ok()) return 0;
  err << "muselet: " << status.message() << "\n";
  return 2;
}

}  // namespace muselet
