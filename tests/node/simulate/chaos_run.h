// One run of a small cluster through faults, on virtual time: requests come while messages are
// lost, doubled, overtaken and held back, processes crash, stand still, leave and come back, links
// are cut and steps fail. Then it is calm, and everything must come to rest: every request over,
// every block, slot and credit given back, and a few more requests answered at the first attempt.
// The seed decides all of it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "node/simulate/sim_cluster.h"
#include "tests/node/simulate/request_ledger.h"

namespace muselet::testing {

struct ChaosCounts {
  uint64_t requests = 0;
  uint64_t completed = 0;
  uint64_t failed = 0;
  uint64_t tokens = 0;
  uint64_t reattempts = 0;
  uint64_t crashes = 0;
  uint64_t pauses = 0;
  uint64_t cuts = 0;
  uint64_t leaves = 0;
  uint64_t step_faults = 0;
  uint64_t events = 0;
  void Add(const ChaosCounts& other);
};

class ChaosRun {
 public:
  explicit ChaosRun(uint64_t seed);
  ~ChaosRun();
  void Trace(SimNetwork::Trace trace) { cluster_->network().SetTrace(std::move(trace)); }
  // What went wrong first; empty: nothing.
  std::string Run();
  ChaosCounts counts() const;

 private:
  struct Shape {
    bool lossy = false;        // messages are dropped, doubled and overtaken
    bool step_faults = false;  // the engine fails steps: requests may end with that error
    int64_t chaos_us = 0;
    int64_t request_gap_us = 0;  // mean
    int64_t fault_gap_us = 0;    // mean
  };
  SimClusterOptions Draw();
  void Note(const std::string& what);

  void AskSoon();
  void Ask(bool in_calm);
  RequestRecord DrawRecord(bool in_calm);
  void DisturbSoon();
  void Disturb();
  void CrashOne();
  void PauseOne();
  void CutOne();
  void LeaveOne();
  void FailStep();
  void ClientActs();
  void StartAgain(SimProcess process);

  void Calm();
  bool AtRest() const;
  void CheckRest();
  std::string DescribeUnrest() const;

  SimRandom random_;
  Shape shape_;
  std::string failure_;
  bool chaos_ = true;
  uint64_t drawn_ = 0;
  ChaosCounts counts_;
  RequestLedger ledger_;
  std::unique_ptr<SimCluster> cluster_;
};

}  // namespace muselet::testing
