// The sections of the file that are lists of entries: models, gateways, schedulers, nodes,
// replicas, surfaces. Each is a row of fields, as in option_table.h; reader, schema, reference page
// and `config show` walk over the same rows.
#pragma once

#include <string>
#include <vector>

#include "node/config/config.h"
#include "node/config/field.h"

namespace muselet {

template <typename Entry>
struct Section {
  std::string name;          // the YAML key
  std::string meaning;       // what the entries are
  std::string when_missing;  // what stands in for the section when the file has none
  std::vector<Entry> ClusterConfig::*entries = nullptr;
  std::vector<Field<Entry>> fields;
};

Section<ModelEntry> ModelSection();
Section<GatewayEntry> GatewaySection();
Section<SchedulerEntry> SchedulerSection();
Section<NodeEntry> NodeSection();
Section<ReplicaEntry> ReplicaSection();
Section<SurfaceEntry> SurfaceSection();

// Calls visit(section) for each section, in the order of the reference page.
template <typename Visitor>
void VisitSections(Visitor&& visit) {
  visit(ModelSection());
  visit(GatewaySection());
  visit(SchedulerSection());
  visit(NodeSection());
  visit(ReplicaSection());
  visit(SurfaceSection());
}

}  // namespace muselet
