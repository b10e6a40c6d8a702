// The process_* metrics that Prometheus users expect of every program, read from /proc/self when
// scraped (names and meanings:
// https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics).
#pragma once

#include <prometheus/collectable.h>

#include <vector>

namespace muselet {

// Any thread may collect. A value that /proc does not give is left out.
class ProcessCollector final : public prometheus::Collectable {
 public:
  std::vector<prometheus::MetricFamily> Collect() const override;
};

}  // namespace muselet
