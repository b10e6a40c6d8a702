// What one value alone does not show: names given twice, references to nothing, addresses that
// collide or need keys, files that are missing. And the entries that a short file leaves out.
#pragma once

#include <map>
#include <string>

#include "node/config/config_fault.h"
#include "node/config/config_loader.h"

namespace muselet {

// Where each value that was given came from; key: its path, e.g. "nodes[0]", "nodes[0].host".
using Provenance = std::map<std::string, ValueSource>;

// Adds the gateway, scheduler, node, replicas and surface that are missing, and names and
// references that follow from the rest.
void FillInCluster(ClusterConfig& config);

// Appends the faults of `config`, which is filled in. `file` is named where no value is to blame.
void CheckCluster(const ClusterConfig& config, const ConfigRequest& request,
                  const Provenance& provenance, ConfigFaults& faults);

// The model ids whose files the process of this entry needs: all for a gateway, those of its
// replicas for a node, none for a scheduler.
std::vector<std::string> ModelsNeededBy(const ClusterConfig& config, const std::string& entry);

}  // namespace muselet
