// The cluster's configuration as immutable values: one YAML file for all roles (DESIGN, section 3),
// overridden by MUSELET_* variables, overridden by flags. Built once in main by
// node/config/config_loader, passed by const reference.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/types.h"
#include "node/engine/engine_options.h"
#include "node/gateway/gateway_options.h"
#include "scheduler/route/route_options.h"
#include "scheduler/route/surface_options.h"

namespace muselet {

struct ModelEntry {
  std::string id;    // what requests call it
  std::string path;  // GGUF file or Hugging Face directory
};

// A process role that gateways' and nodes' configs can name. `rpc` is tcp://HOST:PORT or
// inproc://NAME; port 0 lets the system choose.
struct GatewayEntry {
  std::string name;
  std::string http = "127.0.0.1:8000";
  std::string rpc;         // front-end RPC; empty = none
  std::string public_key;  // as SchedulerEntry's
};
struct SchedulerEntry {
  std::string name;
  std::string rpc;      // where nodes and gateways connect
  std::string metrics;  // HOST:PORT of /metrics, /livez, /readyz in its own process; empty = none
  std::string public_key;  // Z85, of its wire key; empty = the same key as this process has
};
struct NodeEntry {
  std::string name;
  std::string host = "127.0.0.1";  // where its ports are bound and how others reach it
  // cpu, cpu:N or cuda:N; cpu is cpu:0. Each rank of a sharded replica takes one of its own.
  std::vector<std::string> devices = {"cpu"};
  // tcp://HOST:PORT at which the ranks of the replica that this node leads join it. Empty is legal
  // if all of them are on this node.
  std::string ranks;
  std::string metrics;
  std::string public_key;  // as SchedulerEntry's
};
struct ReplicaEntry {
  std::string name;
  std::string model;
  uint32_t tensor = 1;
  uint32_t pipeline = 1;
  std::vector<uint32_t> layers;  // of each stage; empty = balanced by cost
  std::vector<std::string> on;   // node names, the leader's first
};
// A tenant: what schedulers and gateways keep it to, and the keys of its clients.
struct SurfaceEntry : SurfaceOptions {
  SurfaceEntry() { name.clear(); }  // each entry says its own
  std::string key_file;             // one key a line; empty = no key needed
};

// Keys of the wires between processes: ZeroMQ's CURVE, for tcp:// off loopback. Files of `muselet
// keys generate`; comms/wire_keys reads them.
struct SecurityOptions {
  std::string key_file;             // the secret key of this process; empty = plain wires
  std::string known_keys_file;      // public keys of more members of the cluster
  std::string front_end_keys_file;  // public keys that gateways' rpc admits, beside the members'
  // What the gateways of the cluster share (node/gateway/cluster_secret); empty = each its own.
  std::string secret_file;
};

struct ClusterConfig {
  std::string cluster = "muselet";
  std::vector<ModelEntry> models;
  std::vector<GatewayEntry> gateways;
  std::vector<SchedulerEntry> schedulers;
  std::vector<NodeEntry> nodes;
  std::vector<ReplicaEntry> replicas;
  std::vector<SurfaceEntry> surfaces;  // empty = one surface "default" without a key

  GatewayOptions gateway;
  RouteOptions scheduler;
  EngineOptions engine;
  LogLevel log_level = LogLevel::kInfo;
  LogFormat log_format = LogFormat::kAuto;
  int64_t drain_timeout_us = 30'000'000;  // after SIGTERM: what runs may take this long to end
  SecurityOptions security;
  bool insecure = false;  // allow plain wires off loopback
};

}  // namespace muselet
