#include "node/model/architectures/rope_fields.h"

#include <fmt/format.h>

#include <cmath>
#include <utility>

#include "base/device/dequantize.h"
#include "node/model/architectures/decoder_config.h"
#include "node/model/file_fault.h"
#include "node/model/json_fields.h"

namespace muselet {
namespace {

constexpr double kThetaMax = 1e12;
constexpr double kFactorMax = 1e6;

Status ReadLlama3(const ConfigFields& fields, uint32_t context_tokens, RopeSpec& rope) {
  rope.scaling = RopeScaling::kLlama3;
  ASSIGN_OR_RETURN(rope.low_freq_factor, fields.NumberOr("low_freq_factor", 1.0, 1e-6, kFactorMax));
  ASSIGN_OR_RETURN(rope.high_freq_factor,
                   fields.NumberOr("high_freq_factor", 4.0, 1e-6, kFactorMax));
  if (rope.high_freq_factor <= rope.low_freq_factor) {
    return fields.Fault("high_freq_factor", "must be greater than low_freq_factor");
  }
  ASSIGN_OR_RETURN(rope.original_context,
                   fields.SizeOr("original_max_position_embeddings", context_tokens, kContextMax));
  return OkStatus();
}

// `rope_type`, or `type` as transformers called it before 4.43; "" if there is neither.
Result<std::string> ReadType(const ConfigFields& fields) {
  ASSIGN_OR_RETURN(const std::string older, fields.StringOr("type", ""));
  ASSIGN_OR_RETURN(const std::string type, fields.StringOr("rope_type", older));
  if (!older.empty() && type != older) {
    return fields.Fault(
        "rope_type", "\"" + Printable(type) + "\" contradicts type \"" + Printable(older) + "\"");
  }
  return type;
}

// The scaling that `fields`, which is rope_parameters or rope_scaling, describes.
Status ReadScaling(const ConfigFields& fields, uint32_t context_tokens, RopeSpec& rope) {
  ASSIGN_OR_RETURN(const std::string type, ReadType(fields));
  ASSIGN_OR_RETURN(const auto factor, fields.FindNumber("factor"));
  if (type.empty() && factor) {
    return fields.Fault("rope_type", "missing, so that the factor has no meaning");
  }
  if (type.empty() || type == "default") return OkStatus();
  if (type != "linear" && type != "llama3") {
    return fields.Fault("rope_type", "\"" + Printable(type) +
                                         "\" is not supported (default, linear and llama3 are)");
  }
  if (!factor) return fields.Fault("factor", "missing");
  ASSIGN_OR_RETURN(rope.factor, fields.NumberOr("factor", 1.0, 1.0, kFactorMax));
  if (type == "llama3") return ReadLlama3(fields, context_tokens, rope);
  rope.scaling = RopeScaling::kLinear;
  return OkStatus();
}

// One of the two objects with all that it says; theta is nothing if it does not say it.
struct RopeObject {
  RopeSpec spec;
  std::optional<double> theta;
  std::optional<double> part;  // of a head that is rotated
};

// One object, which holds no others.
Result<RopeObject> ReadFields(const JsonFields& fields, uint32_t context_tokens) {
  RopeObject object;
  RETURN_IF_ERROR(ReadScaling(fields, context_tokens, object.spec));
  ASSIGN_OR_RETURN(object.theta, fields.FindNumber("rope_theta"));
  RETURN_IF_ERROR(fields.NumberOr("rope_theta", 1.0, 1.0, kThetaMax).status());
  ASSIGN_OR_RETURN(object.part, fields.FindNumber("partial_rotary_factor"));
  RETURN_IF_ERROR(fields.NumberOr("partial_rotary_factor", 1.0, 0.0, 1.0).status());
  return object;
}

Result<std::optional<RopeObject>> ReadObject(const JsonFields& config, std::string_view field,
                                             uint32_t context_tokens) {
  ASSIGN_OR_RETURN(const auto fields, config.FindObject(field));
  if (!fields) return std::optional<RopeObject>();
  for (const auto& [name, value] : fields->json().items()) {
    if (value.is_object()) {
      return fields->Fault(name, "rotations that differ between layers are not supported");
    }
  }
  ASSIGN_OR_RETURN(RopeObject object, ReadFields(*fields, context_tokens));
  return std::optional<RopeObject>(std::move(object));
}

bool SameScaling(const RopeSpec& a, const RopeSpec& b) {
  return a.scaling == b.scaling && a.factor == b.factor && a.low_freq_factor == b.low_freq_factor &&
         a.high_freq_factor == b.high_freq_factor && a.original_context == b.original_context;
}

// Takes theta from wherever it stands; all places must agree.
Status AgreeOnTheta(const JsonFields& config, std::string_view field,
                    const std::optional<double>& said, std::optional<double>& theta) {
  if (said && theta && *said != *theta) {
    return config.Fault(field,
                        fmt::format("rope_theta {} contradicts rope_theta {}", *said, *theta));
  }
  if (said) theta = said;
  return OkStatus();
}

// Only the first `part` of each head turns.
Result<RopeSpec> RotatePart(const JsonFields& config, double part, bool partial, RopeSpec rope) {
  const auto rotated = static_cast<uint32_t>(static_cast<double>(rope.rotary_dim) * part);
  const bool fits = part > 0.0 && part <= 1.0 && rotated > 0 && rotated % 2 == 0;
  if ((part != 1.0 && !partial) || !fits) {
    return config.Fault("partial_rotary_factor", fmt::format("{} is not supported (1 is)", part));
  }
  rope.rotary_dim = rotated;
  return rope;
}

Status ReadGgufScaling(const GgufFields& config, RopeSpec& rope) {
  ASSIGN_OR_RETURN(const double older, config.NumberOr("rope.scale_linear", 1.0, 1.0, kFactorMax));
  ASSIGN_OR_RETURN(const std::string type,
                   config.StringOr("rope.scaling.type", older > 1.0 ? "linear" : "none"));
  if (type != "none" && type != "linear") {
    return config.Fault("rope.scaling.type",
                        "\"" + Printable(type) + "\" is not supported (none and linear are)");
  }
  ASSIGN_OR_RETURN(const double factor,
                   config.NumberOr("rope.scaling.factor", older, 1.0, kFactorMax));
  if (older > 1.0 && (type == "none" || factor != older)) {
    return config.Fault(
        "rope.scale_linear",
        fmt::format("{} contradicts rope.scaling.type {} with factor {}", older, type, factor));
  }
  if (type == "none") return OkStatus();
  rope.scaling = RopeScaling::kLinear;
  rope.factor = factor;
  return OkStatus();
}

Status ReadFrequencyDivisors(const GgufFile& file, RopeSpec& rope) {
  const GgufTensor* tensor = file.FindTensor("rope_freqs.weight");
  if (tensor == nullptr) return OkStatus();
  const uint64_t expected = rope.rotary_dim / 2;
  if (tensor->view.rank != 1 || tensor->view.count() != expected) {
    return LyingFile(file.path(), tensor->name,
                     tensor->view.ToString() + ", must be [" + std::to_string(expected) + "]");
  }
  rope.frequency_divisors.resize(expected);
  RETURN_IF_ERROR(DequantizeRow(tensor->view.dtype, tensor->view.data, expected,
                                rope.frequency_divisors.data()));
  for (const float divisor : rope.frequency_divisors) {
    if (!(divisor > 0.0F) || !std::isfinite(divisor)) {
      return LyingFile(file.path(), tensor->name, "a frequency divisor is not positive");
    }
  }
  return OkStatus();
}

}  // namespace

Result<RopeSpec> HuggingFaceRope(const JsonFields& config, uint32_t head_dim,
                                 uint32_t context_tokens, bool partial) {
  RETURN_IF_ERROR(config.NumberOr("rope_theta", 10000.0, 1.0, kThetaMax).status());
  ASSIGN_OR_RETURN(const auto newer, ReadObject(config, "rope_parameters", context_tokens));
  ASSIGN_OR_RETURN(const auto older, ReadObject(config, "rope_scaling", context_tokens));
  if (newer && older && !SameScaling(newer->spec, older->spec)) {
    return config.Fault("rope_scaling", "contradicts rope_parameters; keep the one that is meant");
  }
  ASSIGN_OR_RETURN(std::optional<double> theta, config.FindNumber("rope_theta"));
  if (newer) RETURN_IF_ERROR(AgreeOnTheta(config, "rope_parameters", newer->theta, theta));
  if (older) RETURN_IF_ERROR(AgreeOnTheta(config, "rope_scaling", older->theta, theta));
  RopeSpec rope = newer ? newer->spec : older ? older->spec : RopeSpec();
  rope.layout = RopeLayout::kHalves;
  rope.rotary_dim = head_dim;
  rope.theta = theta.value_or(10000.0);
  std::optional<double> part = newer ? newer->part : std::nullopt;
  if (!part && older) part = older->part;
  if (!part && partial) {
    ASSIGN_OR_RETURN(part, config.FindNumber("partial_rotary_factor"));
  }
  return RotatePart(config, part.value_or(1.0), partial, std::move(rope));
}

Result<RopeSpec> HuggingFaceRopeObject(const JsonFields& fields, uint32_t head_dim,
                                       uint32_t context_tokens, double theta_default) {
  ASSIGN_OR_RETURN(RopeObject object, ReadFields(fields, context_tokens));
  object.spec.layout = RopeLayout::kHalves;
  object.spec.rotary_dim = head_dim;
  object.spec.theta = object.theta.value_or(theta_default);
  return RotatePart(fields, object.part.value_or(1.0), false, std::move(object.spec));
}

Result<RopeSpec> GgufRope(const GgufFields& config, uint32_t head_dim, RopeLayout layout) {
  RopeSpec rope;
  rope.layout = layout;
  ASSIGN_OR_RETURN(rope.theta, config.NumberOr("rope.freq_base", 10000.0, 1.0, kThetaMax));
  ASSIGN_OR_RETURN(rope.rotary_dim, config.SizeOr("rope.dimension_count", head_dim, kHeadDimMax));
  if (rope.rotary_dim % 2 != 0 || rope.rotary_dim > head_dim) {
    return config.Fault("rope.dimension_count", std::to_string(rope.rotary_dim) +
                                                    ", must be even and at most the head size " +
                                                    std::to_string(head_dim));
  }
  RETURN_IF_ERROR(ReadGgufScaling(config, rope));
  RETURN_IF_ERROR(ReadFrequencyDivisors(config.file(), rope));
  return rope;
}

}  // namespace muselet
