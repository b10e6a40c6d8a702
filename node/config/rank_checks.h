// What the ranks of replicas need of the config: a device for each, an endpoint to join at, layers
// for each stage. Whether a model can be cut that way is the shard plan's to say, where the model
// is opened.
#pragma once

#include "node/config/config.h"
#include "node/config/value_ledger.h"

namespace muselet {

// Adds the faults of `config`, which is filled in, to `ledger`; values in doubt are passed over.
void CheckRanks(const ClusterConfig& config, ValueLedger& ledger);

}  // namespace muselet
