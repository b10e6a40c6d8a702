#include "node/config/cluster_sections.h"

#include <utility>

namespace muselet {
namespace {

FieldSpec Spec(std::string key, ValueKind kind, std::string meaning,
               std::string default_text = "") {
  FieldSpec spec;
  spec.key = std::move(key);
  spec.kind = kind;
  spec.meaning = std::move(meaning);
  spec.default_text = std::move(default_text);
  return spec;
}

FieldSpec Required(FieldSpec spec) {
  spec.required = true;
  return spec;
}

FieldSpec Ranged(FieldSpec spec, double min, double max) {
  spec.min = min;
  spec.max = max;
  return spec;
}

FieldSpec Choices(FieldSpec spec, std::vector<std::string> choices) {
  spec.choices = std::move(choices);
  return spec;
}

FieldSpec PublicKey() {
  return Spec("public_key", ValueKind::kKey, "Public key of its wires, with security.key_file",
              "that of the process that reads this: one key for all");
}

// A number of which 0 is no limit.
template <typename Access>
void AddLimit(std::vector<Field<SurfaceEntry>>& fields, const char* key, const char* meaning,
              double max, Access access) {
  fields.push_back(MakeField<SurfaceEntry>(
      Ranged(Spec(key, ValueKind::kInteger, meaning, "0, no limit"), 0, max), access));
}

void AddSurfaceQuotas(std::vector<Field<SurfaceEntry>>& fields) {
  AddLimit(
      fields, "running_max", "Requests that run at once, in the whole cluster", 1e6,
      [](auto& e) -> auto& { return e.running_max; });
  AddLimit(
      fields, "requests_per_minute", "Requests that begin in a minute, in the whole cluster", 1e9,
      [](auto& e) -> auto& { return e.requests_per_minute; });
  AddLimit(
      fields, "tokens_per_minute",
      "Tokens of prompts and answers in a minute, in the whole cluster", 1e12,
      [](auto& e) -> auto& { return e.tokens_per_minute; });
  AddLimit(
      fields, "waiting_requests_max", "Requests that wait for a replica; more are refused", 1e6,
      [](auto& e) -> auto& { return e.waiting_requests_max; });
  AddLimit(
      fields, "waiting_tokens_max", "Prompt tokens of the requests that wait; more are refused",
      1e12, [](auto& e) -> auto& { return e.waiting_tokens_max; });
}

// A duration of which 0 is none.
template <typename Access>
void AddTime(std::vector<Field<SurfaceEntry>>& fields, const char* key, const char* meaning,
             const char* when_zero, Access access) {
  fields.push_back(MakeField<SurfaceEntry>(
      Ranged(Spec(key, ValueKind::kDuration, meaning, when_zero), 0, 86400e6), access));
}

void AddSurfaceObjectives(std::vector<Field<SurfaceEntry>>& fields) {
  AddTime(
      fields, "ttft", "Objective: time to the first token", "0, none",
      [](auto& e) -> auto& { return e.ttft_us; });
  AddTime(
      fields, "tpot", "Objective: time for each token after the first", "0, none",
      [](auto& e) -> auto& { return e.tpot_us; });
  AddTime(
      fields, "timeout", "Time for a whole request that names none",
      "0, which is gateway.request.timeout", [](auto& e) -> auto& { return e.timeout_us; });
  FieldSpec salt = Spec("prefix_salt", ValueKind::kText,
                        "Surfaces of one salt find each other's prompts in the prefix cache",
                        "its name: it shares with none");
  salt.may_be_empty = true;
  fields.push_back(MakeField<SurfaceEntry>(
      std::move(salt), [](auto& e) -> auto& { return e.prefix_salt; }));
  AddLimit(
      fields, "reasoning_tokens_default",
      "Tokens of thought of a request that names no thinking_budget, for chat templates that know "
      "this variable",
      1e6, [](auto& e) -> auto& { return e.reasoning_tokens_default; });
  AddLimit(
      fields, "reasoning_tokens_max", "Largest thinking_budget that a chat template is given", 1e6,
      [](auto& e) -> auto& { return e.reasoning_tokens_max; });
}

}  // namespace

Section<ModelEntry> ModelSection() {
  Section<ModelEntry> section{"models", "What is served", "", &ClusterConfig::models, {}};
  section.fields = {
      MakeField<ModelEntry>(
          Spec("id", ValueKind::kModelId, "What requests call the model",
               "the name of the file or directory"),
          [](auto& e) -> auto& { return e.id; }),
      MakeField<ModelEntry>(
          Required(Spec("path", ValueKind::kPath, "GGUF file or Hugging Face directory")),
          [](auto& e) -> auto& { return e.path; })};
  return section;
}

Section<GatewayEntry> GatewaySection() {
  Section<GatewayEntry> section{
      "gateways", "Where clients connect", "one gateway, gateway-0", &ClusterConfig::gateways, {}};
  section.fields = {
      MakeField<GatewayEntry>(
          Spec("name", ValueKind::kName, "Name for run --name, logs and metrics", "gateway-N"),
          [](auto& e) -> auto& { return e.name; }),
      MakeField<GatewayEntry>(
          Spec("http", ValueKind::kListen,
               "Address of the OpenAI HTTP API, of /metrics, /livez and /readyz; port 0 lets the "
               "system choose"),
          [](auto& e) -> auto& { return e.http; }),
      MakeField<GatewayEntry>(
          Spec("rpc", ValueKind::kEndpoint, "Endpoint of the protobuf API for front ends", "none"),
          [](auto& e) -> auto& { return e.rpc; }),
      MakeField<GatewayEntry>(
          PublicKey(), [](auto& e) -> auto& { return e.public_key; })};
  return section;
}

Section<SchedulerEntry> SchedulerSection() {
  Section<SchedulerEntry> section{"schedulers",
                                  "Who places requests on replicas",
                                  "one scheduler, scheduler-0",
                                  &ClusterConfig::schedulers,
                                  {}};
  section.fields = {
      MakeField<SchedulerEntry>(
          Spec("name", ValueKind::kName, "Name for run --name, logs and metrics", "scheduler-N"),
          [](auto& e) -> auto& { return e.name; }),
      MakeField<SchedulerEntry>(
          Spec("rpc", ValueKind::kEndpoint, "Endpoint where nodes and gateways connect",
               "inproc://NAME, which only serve can use"),
          [](auto& e) -> auto& { return e.rpc; }),
      MakeField<SchedulerEntry>(
          Spec("metrics", ValueKind::kListen,
               "Address of /metrics, /livez and /readyz in a process of its own", "none"),
          [](auto& e) -> auto& { return e.metrics; }),
      MakeField<SchedulerEntry>(
          PublicKey(), [](auto& e) -> auto& { return e.public_key; })};
  return section;
}

Section<NodeEntry> NodeSection() {
  Section<NodeEntry> section{
      "nodes", "Who computes", "one node, node-0, on the CPU", &ClusterConfig::nodes, {}};
  section.fields = {
      MakeField<NodeEntry>(
          Spec("name", ValueKind::kName, "Name for run --name, logs and metrics", "node-N"),
          [](auto& e) -> auto& { return e.name; }),
      MakeField<NodeEntry>(
          Spec("host", ValueKind::kHost, "Where its ports are bound and how gateways reach it"),
          [](auto& e) -> auto& { return e.host; }),
      MakeField<NodeEntry>(
          Spec("devices", ValueKind::kDevices,
               "What it computes on: cpu, or cpu:0, cpu:1, ... where several ranks of sharded "
               "replicas run, one on each"),
          [](auto& e) -> auto& { return e.devices; }),
      MakeField<NodeEntry>(
          Spec("ranks", ValueKind::kEndpoint,
               "Endpoint where the ranks of the replica that it leads join it; needed if some of "
               "them run on other nodes",
               "a loopback port that the system chooses"),
          [](auto& e) -> auto& { return e.ranks; }),
      MakeField<NodeEntry>(
          Spec("metrics", ValueKind::kListen,
               "Address of /metrics, /livez and /readyz in a process of its own", "none"),
          [](auto& e) -> auto& { return e.metrics; }),
      MakeField<NodeEntry>(
          PublicKey(), [](auto& e) -> auto& { return e.public_key; })};
  return section;
}

Section<ReplicaEntry> ReplicaSection() {
  Section<ReplicaEntry> section{"replicas",
                                "Which node serves which model",
                                "every model on every node",
                                &ClusterConfig::replicas,
                                {}};
  section.fields = {
      MakeField<ReplicaEntry>(
          Spec("name", ValueKind::kName, "Name in logs and metrics", "replica-N"),
          [](auto& e) -> auto& { return e.name; }),
      MakeField<ReplicaEntry>(
          Spec("model", ValueKind::kModelId, "Id of the model", "the model, if there is only one"),
          [](auto& e) -> auto& { return e.model; }),
      MakeField<ReplicaEntry>(
          Ranged(Spec("tensor", ValueKind::kInteger, "Ranks that share each layer"), 1, 1024),
          [](auto& e) -> auto& { return e.tensor; }),
      MakeField<ReplicaEntry>(
          Ranged(Spec("pipeline", ValueKind::kInteger, "Stages that the layers are cut into"), 1,
                 1024),
          [](auto& e) -> auto& { return e.pipeline; }),
      MakeField<ReplicaEntry>(
          Ranged(Spec("layers", ValueKind::kCounts, "Layers of each stage, by hand",
                      "balanced by their cost"),
                 1, 100'000),
          [](auto& e) -> auto& { return e.layers; }),
      MakeField<ReplicaEntry>(
          Spec("on", ValueKind::kNames,
               "The nodes, the leader first; tensor x pipeline ranks take their devices in order",
               "the node, if there is only one"),
          [](auto& e) -> auto& { return e.on; })};
  return section;
}

Section<SurfaceEntry> SurfaceSection() {
  Section<SurfaceEntry> section{"surfaces",
                                "The front ends, as tenants",
                                "one surface, default, without a key",
                                &ClusterConfig::surfaces,
                                {}};
  section.fields = {
      MakeField<SurfaceEntry>(
          Required(Spec("name", ValueKind::kName, "Name in logs and metrics")),
          [](auto& e) -> auto& { return e.name; }),
      MakeField<SurfaceEntry>(
          Spec("key_file", ValueKind::kPath, "File with its API keys, one a line",
               "none: requests without a key are of this surface"),
          [](auto& e) -> auto& { return e.key_file; }),
      MakeField<SurfaceEntry>(
          Choices(Spec("class", ValueKind::kChoice, "What its requests are worth, dearest first"),
                  {"realtime", "interactive", "batch"}),
          [](auto& e) -> auto& { return e.request_class; }),
      MakeField<SurfaceEntry>(
          Ranged(
              Spec("share", ValueKind::kNumber,
                   "Its weight among the surfaces of its class when there is not enough for all"),
              0.001, 1'000'000),
          [](auto& e) -> auto& { return e.share; })};
  AddSurfaceQuotas(section.fields);
  AddSurfaceObjectives(section.fields);
  return section;
}

}  // namespace muselet
