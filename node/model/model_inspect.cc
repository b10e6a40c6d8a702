#include "node/model/model_inspect.h"

#include <fmt/format.h>

#include <map>

#include "base/json.h"
#include "node/model/file_fault.h"
#include "node/model/gguf.h"

namespace muselet {
namespace {

struct WeightTotals {
  uint64_t tensors = 0;
  uint64_t parameters = 0;
  uint64_t bytes = 0;
};

// Finds "model": {"type": ...} in a tokenizer.json without building it.
class TokenizerTypeReader : public nlohmann::json_sax<Json> {
 public:
  std::string type;
  bool malformed = false;

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool string(string_t& text) override {
    if (depth_ != 2 || !in_model_ || key_ != "type") return true;
    type = text;
    return false;  // found: stop reading
  }
  bool start_object(std::size_t) override { return Open(); }
  bool end_object() override { return Close(); }
  bool start_array(std::size_t) override { return Open(); }
  bool end_array() override { return Close(); }
  bool key(string_t& name) override {
    key_ = name;
    if (depth_ == 1) in_model_ = name == "model";
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override {
    malformed = true;
    return false;
  }

 private:
  bool Open() {
    ++depth_;
    return true;
  }
  bool Close() {
    --depth_;
    return true;
  }

  size_t depth_ = 0;
  bool in_model_ = false;
  std::string key_;
};

std::string GgufTokenizerKind(const GgufFile& file) {
  const auto model = file.StringOr("tokenizer.ggml.model", "");
  const auto pre = file.StringOr("tokenizer.ggml.pre", "");
  if (!model.ok() || model->empty()) return "none";
  if (!pre.ok() || pre->empty()) return Printable(*model);
  return Printable(*model) + " (" + Printable(*pre) + ")";
}

std::string TokenizerKind(const Checkpoint& checkpoint) {
  if (checkpoint.gguf() != nullptr) return GgufTokenizerKind(*checkpoint.gguf());
  const std::string& text = checkpoint.tokenizer_json();
  if (text.empty()) return "none";
  TokenizerTypeReader reader;
  nlohmann::json_sax<Json>& sax = reader;
  Json::sax_parse(text.begin(), text.end(), &sax);
  if (reader.malformed) return "malformed: tokenizer.json is not JSON";
  return reader.type.empty() ? "unknown" : Printable(reader.type);
}

std::string Format(const Checkpoint& checkpoint) {
  if (checkpoint.gguf() == nullptr) return "Hugging Face";
  return fmt::format("GGUF v{}", checkpoint.gguf()->version());
}

std::string RopeText(const RopeSpec& rope) {
  std::string text = fmt::format("theta {:g}, {} dimensions", rope.theta, rope.rotary_dim);
  if (rope.scaling == RopeScaling::kLinear) text += fmt::format(", linear x{:g}", rope.factor);
  if (rope.scaling == RopeScaling::kLlama3) {
    text += fmt::format(", llama3 x{:g} from {}", rope.factor, rope.original_context);
  }
  if (!rope.frequency_divisors.empty()) text += ", with frequency divisors";
  return text;
}

std::string_view ScalingName(RopeScaling scaling) {
  switch (scaling) {
    case RopeScaling::kNone:
      return "none";
    case RopeScaling::kLinear:
      return "linear";
    case RopeScaling::kLlama3:
      return "llama3";
  }
  return "none";
}

// Keyed by dtype name, so that the order is fixed.
std::map<std::string, WeightTotals> TotalsByDType(const Checkpoint& checkpoint) {
  std::map<std::string, WeightTotals> totals;
  for (const std::string& name : checkpoint.TensorNames()) {
    const TensorView view = checkpoint.Tensor(name).value();
    WeightTotals& total = totals[std::string(Traits(view.dtype).name)];
    total.tensors += 1;
    total.parameters += view.count();
    total.bytes += view.bytes();
  }
  return totals;
}

WeightTotals Sum(const std::map<std::string, WeightTotals>& totals) {
  WeightTotals sum;
  for (const auto& [name, total] : totals) {
    sum.tensors += total.tensors;
    sum.parameters += total.parameters;
    sum.bytes += total.bytes;
  }
  return sum;
}

// "2 of 4, 64 columns each", or "" for a dense layer.
std::string ExpertText(const LayerSpec& layer) {
  if (layer.experts == 0) return "";
  return fmt::format("{} of {} a token, {} columns each", layer.experts_active, layer.experts,
                     layer.ffn_dim);
}

// "4 of 8 layers, 2048 tokens", or "none".
std::string WindowText(const ModelConfig& config) {
  uint32_t layers = 0, window = 0;
  for (const LayerSpec& layer : config.layers) {
    if (layer.window_tokens == 0) continue;
    ++layers;
    window = layer.window_tokens;
  }
  if (layers == 0) return "none";
  return fmt::format("{} of {} layers, {} tokens", layers, config.layers.size(), window);
}

// The window of every layer, 0 where it has none.
std::vector<uint32_t> Windows(const ModelConfig& config) {
  std::vector<uint32_t> windows;
  for (const LayerSpec& layer : config.layers) windows.push_back(layer.window_tokens);
  return windows;
}

// 134515008 as "134.5 M"; thousands are 1000.
std::string Rounded(uint64_t value) {
  constexpr std::string_view kUnits[] = {"", " K", " M", " G", " T", " P", " E"};
  auto scaled = static_cast<double>(value);
  size_t unit = 0;
  while (scaled >= 1000.0) {
    scaled /= 1000.0;
    ++unit;
  }
  return unit == 0 ? std::to_string(value) : fmt::format("{:.1f}{}", scaled, kUnits[unit]);
}

std::string Line(std::string_view field, std::string_view value) {
  return fmt::format("{:<16}{}\n", field, value);
}

}  // namespace

std::string InspectText(const Checkpoint& checkpoint) {
  const ModelConfig& config = checkpoint.config();
  const LayerSpec& layer = config.layers.front();
  const auto totals = TotalsByDType(checkpoint);
  const WeightTotals sum = Sum(totals);
  std::string mix;
  for (const auto& [name, total] : totals) {
    mix += fmt::format("{}{} {:.1f} %", mix.empty() ? "" : ", ", name,
                       100.0 * static_cast<double>(total.bytes) / static_cast<double>(sum.bytes));
  }
  std::string text;
  text += Line("name", config.name.empty() ? "-" : Printable(config.name));
  text += Line("format", Format(checkpoint));
  text += Line("architecture", config.architecture);
  text += Line("parameters", fmt::format("{} ({})", Rounded(sum.parameters), sum.parameters));
  text += Line("weights", fmt::format("{}B in {} tensors", Rounded(sum.bytes), sum.tensors));
  text += Line("dtypes by size", mix);
  text += Line("layers", fmt::format("{}, hidden {}, ffn {}", config.layers.size(),
                                     config.hidden_dim, layer.ffn_dim));
  text += Line("heads", fmt::format("{} query, {} key/value, {} wide", layer.query_heads,
                                    layer.kv_heads, layer.head_dim));
  text += Line("context", fmt::format("{} tokens", config.context_tokens));
  text += Line("vocabulary", fmt::format("{}, {} head", config.vocab_size,
                                         config.tied_embeddings ? "tied" : "untied"));
  if (layer.experts > 0) text += Line("experts", ExpertText(layer));
  text += Line("windows", WindowText(config));
  text += Line("rope", RopeText(layer.rope));
  text += Line("tokenizer", TokenizerKind(checkpoint));
  text += Line("chat template", checkpoint.chat_template().empty() ? "no" : "yes");
  text += Line("end tokens", fmt::format("{}", fmt::join(config.end_tokens, ", ")));
  text += Line("digest", checkpoint.Digest());
  for (const std::string& notice : checkpoint.notices()) text += Line("notice", notice);
  return text;
}

std::string InspectJson(const Checkpoint& checkpoint) {
  const ModelConfig& config = checkpoint.config();
  const LayerSpec& layer = config.layers.front();
  const auto totals = TotalsByDType(checkpoint);
  const WeightTotals sum = Sum(totals);
  Json formats = Json::object();
  for (const auto& [name, total] : totals) {
    formats[name] = {
        {"tensors", total.tensors}, {"parameters", total.parameters}, {"bytes", total.bytes}};
  }
  const Json out = {
      {"name", config.name},
      {"format", Format(checkpoint)},
      {"architecture", config.architecture},
      {"parameters", sum.parameters},
      {"weight_bytes", sum.bytes},
      {"tensors", sum.tensors},
      {"dtypes", formats},
      {"layers", config.layers.size()},
      {"hidden_size", config.hidden_dim},
      {"ffn_size", layer.ffn_dim},
      {"query_heads", layer.query_heads},
      {"kv_heads", layer.kv_heads},
      {"head_size", layer.head_dim},
      {"experts", layer.experts},
      {"experts_active", layer.experts_active},
      {"windows", Windows(config)},
      {"context_tokens", config.context_tokens},
      {"vocab_size", config.vocab_size},
      {"tied_head", config.tied_embeddings},
      {"rope",
       {{"theta", layer.rope.theta},
        {"dimensions", layer.rope.rotary_dim},
        {"scaling", ScalingName(layer.rope.scaling)},
        {"factor", layer.rope.factor},
        {"frequency_divisors", !layer.rope.frequency_divisors.empty()}}},
      {"tokenizer", TokenizerKind(checkpoint)},
      {"chat_template", !checkpoint.chat_template().empty()},
      {"end_tokens", config.end_tokens},
      {"digest", checkpoint.Digest()},
      {"notices", checkpoint.notices()},
  };
  return WriteJson(out);
}

}  // namespace muselet
