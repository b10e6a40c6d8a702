#include "node/simulate/calibration.h"

#include <cmath>
#include <fstream>
#include <sstream>

#include "base/json.h"

namespace muselet {
namespace {

Status TakePositive(const Json& json, const char* key, double least, double* value) {
  const auto found = json.find(key);
  if (found == json.end()) return OkStatus();
  if (!found->is_number() || !(found->get<double>() >= least) || found->get<double>() > 1e12)
    return InvalidArgument(std::string(key) + ": expected a number of at least " +
                           std::to_string(static_cast<int64_t>(least)));
  *value = found->get<double>();
  return OkStatus();
}

Status TakeAll(const Json& json, Calibration* calibration) {
  RETURN_IF_ERROR(TakePositive(json, "host_us", 0, &calibration->cost.host_us));
  RETURN_IF_ERROR(TakePositive(json, "weights_us", 0, &calibration->cost.weights_us));
  RETURN_IF_ERROR(TakePositive(json, "row_us", 0, &calibration->cost.row_us));
  RETURN_IF_ERROR(TakePositive(json, "logits_us", 0, &calibration->cost.logits_us));
  RETURN_IF_ERROR(TakePositive(json, "context_us", 0, &calibration->cost.context_us));
  auto kv_tokens = static_cast<double>(calibration->kv_tokens);
  auto context_tokens = static_cast<double>(calibration->context_tokens);
  RETURN_IF_ERROR(TakePositive(json, "kv_tokens", 16, &kv_tokens));
  RETURN_IF_ERROR(TakePositive(json, "context_tokens", 1, &context_tokens));
  if (kv_tokens > 4e9) return InvalidArgument("kv_tokens: at most 4e9");
  if (context_tokens > 1e9) return InvalidArgument("context_tokens: at most 1e9");
  calibration->kv_tokens = static_cast<uint64_t>(kv_tokens);
  calibration->context_tokens = static_cast<uint32_t>(context_tokens);
  if (const auto source = json.find("source"); source != json.end() && source->is_string())
    calibration->source = source->get<std::string>();
  return OkStatus();
}

}  // namespace

Result<Calibration> ReadCalibration(const std::string& path) {
  std::ifstream file(path);
  if (!file) return NotFound(path + ": cannot be read");
  std::stringstream text;
  text << file.rdbuf();
  const Result<Json> json = ParseJson(text.str());
  if (!json.ok()) return json.status().WithContext(path);
  if (!json->is_object()) return InvalidArgument(path + ": expected a JSON object");
  Calibration calibration;
  calibration.source = path;
  const Status taken = TakeAll(*json, &calibration);
  if (!taken.ok()) return taken.WithContext(path);
  return calibration;
}

Status WriteCalibration(const std::string& path, const Calibration& calibration) {
  Json json;
  json["source"] = calibration.source;
  json["host_us"] = calibration.cost.host_us;
  json["weights_us"] = calibration.cost.weights_us;
  json["row_us"] = calibration.cost.row_us;
  json["logits_us"] = calibration.cost.logits_us;
  json["context_us"] = calibration.cost.context_us;
  json["kv_tokens"] = calibration.kv_tokens;
  json["context_tokens"] = calibration.context_tokens;
  std::ofstream file(path);
  file << json.dump(2) << "\n";
  file.close();
  if (!file) return Unavailable(path + ": cannot be written");
  return OkStatus();
}

}  // namespace muselet
