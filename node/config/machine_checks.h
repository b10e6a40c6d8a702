// What a configuration needs of this machine: model files, key files, memory, instruction set.
#pragma once

#include "node/config/config_loader.h"
#include "node/config/value_ledger.h"

namespace muselet {

// Adds the faults of `config`, which is filled in, to `ledger`; values in doubt are passed over.
// Looks for what the process of `request.entry` needs, or at everything; at nothing for kNone.
void CheckMachine(const ClusterConfig& config, const ConfigRequest& request, ValueLedger& ledger);

}  // namespace muselet
