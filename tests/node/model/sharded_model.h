// A sharded model whose ranks are threads of the test, seen as one Model.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/check.h"
#include "node/cpu/cpu_ops.h"
#include "node/model/rank_model.h"
#include "node/model/transformer.h"
#include "tests/node/model/thread_rank_group.h"

namespace muselet::testing {

// Makes all members of a group of so many.
using GroupMaker =
    std::function<std::vector<std::unique_ptr<RankGroup>>(const std::string& name, uint32_t size)>;

inline std::vector<std::unique_ptr<RankGroup>> ThreadGroups(const std::string&, uint32_t size) {
  return MakeThreadGroup(size);
}

class ShardedModel final : public Model {
 public:
  // What a rank computes with, for planted faults; null = as it should be.
  using OpsWrapper = std::function<std::unique_ptr<Ops>(std::unique_ptr<Ops>, uint32_t rank)>;

  ShardedModel(std::shared_ptr<const Checkpoint> checkpoint, const EngineOptions& options,
               const ShardSpec& spec, const OpsWrapper& wrap = nullptr,
               size_t message_bytes_max = RankModel::kMessageBytesMax)
      : checkpoint_(std::move(checkpoint)), message_bytes_max_(message_bytes_max) {
    auto plan = MakeShardPlan(*checkpoint_, spec);
    CHECK(plan.ok(), plan.status().message());
    plan_ = std::move(plan).value();
    auto info = DescribeShardedModel(*checkpoint_, options, plan_);
    CHECK(info.ok(), info.status().message());
    info_ = std::move(info).value();
    for (uint32_t rank = 0; rank < plan_.rank_count(); ++rank)
      ranks_.push_back(LoadRank(options, rank, wrap));
    Connect(ThreadGroups);
  }

  // New links, as in a new epoch.
  void Connect(const GroupMaker& make) {
    groups_.clear();
    links_.assign(ranks_.size(), {});
    for (uint32_t stage = 0; stage < plan_.pipeline && plan_.tensor > 1; ++stage) {
      auto members = make("tensor-" + std::to_string(stage), plan_.tensor);
      for (uint32_t t = 0; t < plan_.tensor; ++t)
        links_[stage * plan_.tensor + t].tensor = Keep(std::move(members[t]));
    }
    for (uint32_t rank = 0; rank + plan_.tensor < ranks_.size(); ++rank) {
      auto members = make("edge-" + std::to_string(rank), 2);
      links_[rank].next = Keep(std::move(members[0]));
      links_[rank + plan_.tensor].previous = Keep(std::move(members[1]));
    }
    for (size_t rank = 0; rank < ranks_.size(); ++rank) ranks_[rank]->Connect(links_[rank]);
  }

  const ModelInfo& info() const override { return info_; }
  const ShardPlan& plan() const { return plan_; }
  RankModel& rank(size_t number) { return *ranks_[number]; }

  // Every rank computes all plans at its own pace. Logits of each plan, or the first fault.
  Result<std::vector<std::vector<float>>> Run(const std::vector<StepPlan>& plans) {
    std::vector<std::vector<float>> logits(plans.size());
    std::vector<Status> faults(ranks_.size());
    std::vector<std::thread> threads;
    for (size_t rank = 0; rank < ranks_.size(); ++rank) {
      threads.emplace_back([&, rank] {
        const bool samples =
            ranks_[rank]->shard().last_stage && ranks_[rank]->shard().tensor_rank == 0;
        for (size_t i = 0; i < plans.size() && faults[rank].ok(); ++i) {
          const auto result = ranks_[rank]->Forward(plans[i]);
          if (!result.ok()) {
            faults[rank] = result.status();
          } else if (samples) {
            logits[i].assign(result->begin(), result->end());
          } else {
            CHECK(result->empty(), "a rank that does not sample gave logits");
          }
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const Status& fault : faults) RETURN_IF_ERROR(fault);
    return logits;
  }

  Result<std::span<const float>> Forward(const StepPlan& plan) override {
    ASSIGN_OR_RETURN(auto logits, Run({plan}));
    logits_ = std::move(logits.front());
    return std::span<const float>(logits_);
  }

 private:
  std::unique_ptr<RankModel> LoadRank(const EngineOptions& options, uint32_t rank,
                                      const OpsWrapper& wrap) {
    if (wrap == nullptr && message_bytes_max_ == RankModel::kMessageBytesMax) {
      auto model = LoadRankModel(checkpoint_, options, plan_, rank, {});
      CHECK(model.ok(), model.status().message());
      return std::move(model).value();
    }
    auto ops = cpu::MakeCpuOps(options.cpu);
    CHECK(ops.ok(), ops.status().message());
    std::unique_ptr<Ops> used = std::move(ops).value();
    if (wrap != nullptr) used = wrap(std::move(used), rank);
    auto model = Transformer::CreateRank(*checkpoint_, options, std::move(used), plan_, rank, {},
                                         message_bytes_max_);
    CHECK(model.ok(), model.status().message());
    return std::move(model).value();
  }
  RankGroup* Keep(std::unique_ptr<RankGroup> group) {
    groups_.push_back(std::move(group));
    return groups_.back().get();
  }

  const std::shared_ptr<const Checkpoint> checkpoint_;
  const size_t message_bytes_max_;
  ShardPlan plan_;
  ModelInfo info_;
  std::vector<std::unique_ptr<RankModel>> ranks_;
  std::vector<std::unique_ptr<RankGroup>> groups_;
  std::vector<RankLinks> links_;
  std::vector<float> logits_;
};

}  // namespace muselet::testing
