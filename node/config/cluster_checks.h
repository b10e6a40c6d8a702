// What one value alone does not show: names given twice, references to nothing, addresses that
// collide or need keys. And the entries that a short file leaves out.
#pragma once

#include <string>
#include <vector>

#include "node/config/config_loader.h"
#include "node/config/value_ledger.h"

namespace muselet {

// Adds the gateway, scheduler, node, replicas and surface that are missing, and names and
// references that follow from the rest.
void FillInCluster(ClusterConfig& config);

// Adds the faults of `config`, which is filled in, to `ledger`. Checks in which a value in doubt
// has a part are left out: the rest can still be told.
void CheckCluster(const ClusterConfig& config, const ConfigRequest& request, ValueLedger& ledger);

// The model ids whose files the process of this entry needs: all for a gateway, those of its
// replicas for a node, none for a scheduler.
std::vector<std::string> ModelsNeededBy(const ClusterConfig& config, const std::string& entry);

}  // namespace muselet
