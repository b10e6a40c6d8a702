#include "node/model/load_model.h"

#include "base/log.h"
#include "node/cpu/cpu_ops.h"
#include "node/model/memory_plan.h"
#include "node/model/model_info.h"
#include "node/model/rank_model.h"
#include "node/model/transformer.h"

namespace muselet {
namespace {

// A rank that takes embeddings from the mapped file keeps it open.
class CheckpointedRank final : public RankModel {
 public:
  CheckpointedRank(std::shared_ptr<const Checkpoint> checkpoint,
                   std::unique_ptr<Transformer> transformer)
      : checkpoint_(std::move(checkpoint)), transformer_(std::move(transformer)) {}

  const ModelInfo& info() const override { return transformer_->info(); }
  Result<std::span<const float>> Forward(const StepPlan& plan) override {
    return transformer_->Forward(plan);
  }
  void Connect(const RankLinks& links) override { transformer_->Connect(links); }
  void SetDeadline(int64_t deadline_us) override { transformer_->SetDeadline(deadline_us); }
  int64_t waited_us() const override { return transformer_->waited_us(); }
  const RankShard& shard() const override { return transformer_->shard(); }

 private:
  const std::shared_ptr<const Checkpoint> checkpoint_;
  const std::unique_ptr<Transformer> transformer_;
};

void LogNotices(const Checkpoint& checkpoint) {
  for (const std::string& notice : checkpoint.notices())
    LogInfo("model loaded in part", {{"path", checkpoint.path()}, {"notice", notice}});
}

}  // namespace

Result<std::unique_ptr<Model>> LoadModel(std::shared_ptr<const Checkpoint> checkpoint,
                                         const EngineOptions& options,
                                         const LoadProgress& progress) {
  ASSIGN_OR_RETURN(std::unique_ptr<Ops> ops, cpu::MakeCpuOps(options.cpu));
  ASSIGN_OR_RETURN(std::unique_ptr<Transformer> model,
                   Transformer::Create(*checkpoint, options, std::move(ops), progress));
  LogNotices(*checkpoint);
  return std::unique_ptr<Model>(std::move(model));
}

Result<std::unique_ptr<RankModel>> LoadRankModel(std::shared_ptr<const Checkpoint> checkpoint,
                                                 const EngineOptions& options,
                                                 const ShardPlan& plan, uint32_t rank,
                                                 const LoadProgress& progress) {
  ASSIGN_OR_RETURN(std::unique_ptr<Ops> ops, cpu::MakeCpuOps(options.cpu));
  ASSIGN_OR_RETURN(
      std::unique_ptr<Transformer> model,
      Transformer::CreateRank(*checkpoint, options, std::move(ops), plan, rank, progress));
  if (rank == 0) LogNotices(*checkpoint);
  return std::unique_ptr<RankModel>(
      std::make_unique<CheckpointedRank>(std::move(checkpoint), std::move(model)));
}

Result<ModelInfo> DescribeShardedModel(const Checkpoint& checkpoint, const EngineOptions& options,
                                       const ShardPlan& plan) {
  const ModelConfig& config = checkpoint.config();
  RETURN_IF_ERROR(CheckComputable(config));
  // Nothing is computed here: any level's names are the same.
  CpuOptions names = options.cpu;
  names.isa = IsaLevel::kScalar;
  names.threads = 1;
  ASSIGN_OR_RETURN(const std::unique_ptr<Ops> ops, cpu::MakeCpuOps(names));
  const DType dtype = KvDType(options);
  ASSIGN_OR_RETURN(const std::vector<KvGroupInfo> groups, KvGroups(config, plan, options, *ops));
  ModelInfo info = DescribeModel(checkpoint, options, groups, *ops);
  for (const RankShard& shard : plan.ranks) {
    info.kv_bytes += KvBlockBytes(config, shard, groups, dtype, *ops);
    info.weight_bytes += WeightBytes(config, FormatsOf(checkpoint), plan, shard.rank);
  }
  return info;
}

}  // namespace muselet
