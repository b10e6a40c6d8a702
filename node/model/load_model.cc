#include "node/model/load_model.h"

#include "node/cpu/cpu_ops.h"
#include "node/model/transformer.h"

namespace muselet {

Result<std::unique_ptr<Model>> LoadModel(std::shared_ptr<const Checkpoint> checkpoint,
                                         const EngineOptions& options,
                                         const LoadProgress& progress) {
  ASSIGN_OR_RETURN(std::unique_ptr<Ops> ops, cpu::MakeCpuOps(options.cpu));
  ASSIGN_OR_RETURN(std::unique_ptr<Transformer> model,
                   Transformer::Create(*checkpoint, options, std::move(ops), progress));
  return std::unique_ptr<Model>(std::move(model));
}

}  // namespace muselet
