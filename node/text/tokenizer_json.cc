// Reads Hugging Face's tokenizer.json (tokenizers 0.23) for byte-level BPE.
//
// The vocabulary and the merges, a million values in some files, go straight into vectors; only the
// small rest becomes a Json value.
#include <limits>

#include "base/json.h"
#include "node/text/bpe_tokenizer.h"
#include "node/text/tokenizer.h"
#include "node/text/utf8.h"

namespace muselet {
namespace {

constexpr size_t kDepthMax = 64;
constexpr size_t kMembersMax = 16'384;        // of one object outside the vocabulary
constexpr size_t kRestValuesMax = 2'000'000;  // outside of the vocabulary and the merges

struct TokenizerFile {
  Json rest;                                                // without model.vocab and model.merges
  std::vector<std::pair<std::string, int64_t>> vocab;       // in file order
  std::vector<std::pair<std::string, std::string>> merges;  // by rank
  bool vocab_is_object = false;
};

// Builds a TokenizerFile from parse events; false with a problem() at the first fault.
class TokenizerFileBuilder : public nlohmann::json_sax<Json> {
 public:
  explicit TokenizerFileBuilder(TokenizerFile& file) : file_(file) {}
  const std::string& problem() const { return problem_; }

  bool null() override { return Scalar(nullptr); }
  bool boolean(bool value) override { return Scalar(value); }
  bool number_integer(number_integer_t value) override { return Number(value, value); }
  bool number_unsigned(number_unsigned_t value) override {
    const bool fits = value <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    return Number(value, fits ? static_cast<int64_t>(value) : -1);
  }
  bool number_float(number_float_t value, const string_t&) override { return Scalar(value); }
  bool binary(binary_t&) override { return Fail("binary value"); }
  bool string(string_t& value) override {
    if (mode_ == Mode::kMerges) return MergeString(value);
    return Scalar(value);
  }
  bool start_object(std::size_t) override {
    if (mode_ == Mode::kMerges) return Fail("model.merges" + Index() + ": expected a pair");
    if (mode_ == Mode::kVocab) return Fail("model.vocab: " + Quoted(key_) + ": expected an id");
    if (mode_ == Mode::kRest && AtModel("vocab")) {
      mode_ = Mode::kVocab;
      file_.vocab_is_object = true;
      return true;
    }
    return Open(Json::object());
  }
  bool end_object() override {
    if (mode_ != Mode::kVocab) return Close();
    mode_ = Mode::kRest;
    return true;
  }
  bool start_array(std::size_t) override {
    if (mode_ == Mode::kVocab) return Fail("model.vocab: " + Quoted(key_) + ": expected an id");
    if (mode_ == Mode::kMerges) {
      if (in_pair_) return Fail("model.merges" + Index() + ": expected a pair of strings");
      in_pair_ = true;
      pair_parts_ = 0;
      return true;
    }
    if (mode_ == Mode::kRest && AtModel("merges")) {
      mode_ = Mode::kMerges;
      return true;
    }
    // Unigram's vocabulary is a list: read over it, so that the model type can be named.
    if (mode_ == Mode::kRest && AtModel("vocab")) mode_ = Mode::kSkip;
    return Open(Json::array());
  }
  bool end_array() override {
    if (mode_ != Mode::kMerges) return Close();
    if (!in_pair_) {
      mode_ = Mode::kRest;
      return true;
    }
    in_pair_ = false;
    if (pair_parts_ != 2) return Fail("model.merges" + Index() + ": expected two strings");
    return true;
  }
  bool key(string_t& name) override {
    key_ = name;
    if (mode_ != Mode::kRest) return true;
    Json& object = *stack_.back();
    if (object.size() >= kMembersMax) return Fail("an object has too many members");
    if (object.contains(name)) return Fail("duplicate key " + Quoted(name));
    return true;
  }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    return Fail("not valid JSON at byte " + std::to_string(position));
  }

 private:
  enum class Mode { kRest, kVocab, kMerges, kSkip };

  bool Fail(std::string problem) {
    problem_ = std::move(problem);
    return false;
  }
  std::string Index() const { return "[" + std::to_string(file_.merges.size()) + "]"; }
  // Whether the value that begins now is `name` of the top-level object "model".
  bool AtModel(std::string_view name) const {
    return stack_.size() == 2 && model_ == stack_.back() && key_ == name;
  }
  Json* Add(Json value) {
    ++rest_values_;
    if (stack_.empty()) {
      file_.rest = std::move(value);
      return &file_.rest;
    }
    Json& parent = *stack_.back();
    if (parent.is_array()) return &parent.emplace_back(std::move(value));
    return &(parent[key_] = std::move(value));
  }
  bool Open(Json container) {
    if (++depth_ > kDepthMax) return Fail("nested deeper than " + std::to_string(kDepthMax));
    if (mode_ == Mode::kSkip) {
      ++skip_depth_;
      return true;
    }
    if (rest_values_ == kRestValuesMax) return Fail("too many values");
    const bool is_model = stack_.size() == 1 && key_ == "model" && container.is_object();
    Json* added = Add(std::move(container));
    // Members of the top-level object move when it grows, but only between values, when the
    // stack holds nothing below it.
    stack_.push_back(added);
    if (is_model) model_ = added;
    return true;
  }
  bool Close() {
    --depth_;
    if (mode_ == Mode::kSkip) {
      if (--skip_depth_ == 0) mode_ = Mode::kRest;
      return true;
    }
    if (stack_.back() == model_) model_ = nullptr;
    stack_.pop_back();
    return true;
  }
  template <typename T>
  bool Scalar(const T& value) {
    if (mode_ == Mode::kSkip) return true;
    if (mode_ == Mode::kMerges) return Fail("model.merges" + Index() + ": expected a string");
    if (mode_ == Mode::kVocab)
      return Fail("model.vocab: " + Quoted(key_) + ": expected an integer id");
    if (rest_values_ == kRestValuesMax) return Fail("too many values");
    Add(Json(value));
    return true;
  }
  template <typename T>
  bool Number(T value, int64_t id) {
    if (mode_ != Mode::kVocab) return Scalar(value);
    if (id < 0 || id > std::numeric_limits<TokenId>::max()) {
      return Fail("model.vocab: " + Quoted(key_) + ": id out of range");
    }
    file_.vocab.emplace_back(key_, id);
    return true;
  }
  bool MergeString(const std::string& text) {
    if (in_pair_) {
      if (++pair_parts_ > 2) return Fail("model.merges" + Index() + ": expected two strings");
      if (pair_parts_ == 1) {
        first_part_ = text;
      } else {
        file_.merges.emplace_back(first_part_, text);
      }
      return true;
    }
    const size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
      return Fail("model.merges" + Index() + ": expected two tokens with one space between");
    }
    file_.merges.emplace_back(text.substr(0, space), text.substr(space + 1));
    return true;
  }

  TokenizerFile& file_;
  Mode mode_ = Mode::kRest;
  std::vector<Json*> stack_;  // open containers of `rest`
  const Json* model_ = nullptr;
  std::string key_;
  size_t depth_ = 0;
  size_t skip_depth_ = 0;
  size_t rest_values_ = 0;
  bool in_pair_ = false;
  int pair_parts_ = 0;
  std::string first_part_;
  std::string problem_;
};

// The string "type" of a component, "" for null.
Result<std::string> TypeOf(const Json* component, std::string_view where) {
  if (component == nullptr) return std::string();
  if (!component->is_object()) return InvalidArgument(std::string(where) + ": expected an object");
  return GetString(*component, "type", "", where);
}

// The members of a Sequence component under `key`, or the component itself.
Result<std::vector<const Json*>> Steps(const Json* component, std::string_view key,
                                       std::string_view where) {
  std::vector<const Json*> steps;
  ASSIGN_OR_RETURN(const std::string type, TypeOf(component, where));
  if (component == nullptr) return steps;
  if (type != "Sequence") return std::vector<const Json*>{component};
  const Json* list = FindMember(*component, key);
  if (list == nullptr || !list->is_array()) {
    return InvalidArgument(std::string(where) + ": " + std::string(key) + ": expected a list");
  }
  for (const Json& step : *list) steps.push_back(&step);
  return steps;
}

Status ReadNormalizer(const Json& file, BpeSpec& spec) {
  ASSIGN_OR_RETURN(const auto steps,
                   Steps(FindMember(file, "normalizer"), "normalizers", "normalizer"));
  for (const Json* step : steps) {
    ASSIGN_OR_RETURN(const std::string type, TypeOf(step, "normalizer"));
    if (type != "NFC")
      return InvalidArgument("normalizer: type " + Quoted(type) + " is not supported");
    spec.nfc = true;
  }
  return OkStatus();
}

Result<SplitBehavior> ReadBehavior(const std::string& name) {
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return InvalidArgument("pre_tokenizer: behavior " + Quoted(name) + " is not known");
}

Status ReadSplit(const Json& step, BpeSpec& spec) {
  constexpr std::string_view kWhere = "pre_tokenizer";
  SplitSpec split;
  const Json* pattern = FindMember(step, "pattern");
  if (pattern == nullptr || !pattern->is_object()) {
    return InvalidArgument("pre_tokenizer: pattern: expected an object");
  }
  split.is_literal = FindMember(*pattern, "String") != nullptr;
  ASSIGN_OR_RETURN(split.pattern,
                   GetString(*pattern, split.is_literal ? "String" : "Regex", "", kWhere));
  ASSIGN_OR_RETURN(const std::string behavior, GetString(step, "behavior", "Isolated", kWhere));
  ASSIGN_OR_RETURN(split.behavior, ReadBehavior(behavior));
  ASSIGN_OR_RETURN(split.invert, GetBool(step, "invert", false, kWhere));
  auto made = MakeSplit(split);
  if (!made.ok()) return made.status().WithContext(kWhere);
  spec.pre_tokenizers.push_back(std::move(*made));
  return OkStatus();
}

Status ReadByteLevel(const Json& step, BpeSpec& spec) {
  ASSIGN_OR_RETURN(const bool prefix, GetBool(step, "add_prefix_space", true, "pre_tokenizer"));
  ASSIGN_OR_RETURN(const bool use_regex, GetBool(step, "use_regex", true, "pre_tokenizer"));
  if (prefix) spec.pre_tokenizers.push_back(MakePrefixSpace());
  if (!use_regex) return OkStatus();
  ASSIGN_OR_RETURN(auto split, MakeSplit({.pattern = std::string(kGpt2Pattern)}));
  spec.pre_tokenizers.push_back(std::move(split));
  return OkStatus();
}

Status ReadPreTokenizer(const Json& file, BpeSpec& spec) {
  ASSIGN_OR_RETURN(const auto steps,
                   Steps(FindMember(file, "pre_tokenizer"), "pretokenizers", "pre_tokenizer"));
  bool byte_level = false;
  for (const Json* step : steps) {
    ASSIGN_OR_RETURN(const std::string type, TypeOf(step, "pre_tokenizer"));
    if (type == "ByteLevel") {
      RETURN_IF_ERROR(ReadByteLevel(*step, spec));
      byte_level = true;
    } else if (type == "Split" && !byte_level) {
      RETURN_IF_ERROR(ReadSplit(*step, spec));
    } else if (type == "Digits" && !byte_level) {
      ASSIGN_OR_RETURN(const bool individual,
                       GetBool(*step, "individual_digits", false, "pre_tokenizer"));
      spec.pre_tokenizers.push_back(MakeDigitSplit(individual));
    } else {
      return InvalidArgument("pre_tokenizer: type " + Quoted(type) +
                             (byte_level ? " after ByteLevel" : "") + " is not supported");
    }
  }
  if (!byte_level) {
    return InvalidArgument(
        "pre_tokenizer: only byte-level BPE is supported, and there is no ByteLevel step");
  }
  return OkStatus();
}

Status ReadPostProcessor(const Json& file, BpeSpec& spec) {
  ASSIGN_OR_RETURN(const auto steps,
                   Steps(FindMember(file, "post_processor"), "processors", "post_processor"));
  for (const Json* step : steps) {
    ASSIGN_OR_RETURN(const std::string type, TypeOf(step, "post_processor"));
    if (type == "ByteLevel") continue;
    if (type != "TemplateProcessing") {
      return InvalidArgument("post_processor: type " + Quoted(type) + " is not supported");
    }
    const Json* single = FindMember(*step, "single");
    if (single == nullptr || !single->is_array() || single->empty()) continue;
    const Json* first = FindMember(single->front(), "SpecialToken");
    if (first == nullptr) continue;
    ASSIGN_OR_RETURN(const std::string name, GetString(*first, "id", "", "post_processor.single"));
    const Json* tokens = FindMember(*step, "special_tokens");
    const Json* token = tokens == nullptr ? nullptr : FindMember(*tokens, name);
    const Json* ids = token == nullptr ? nullptr : FindMember(*token, "ids");
    if (ids == nullptr || !ids->is_array() || ids->size() != 1 ||
        !ids->front().is_number_unsigned() ||
        ids->front().get<uint64_t>() > std::numeric_limits<TokenId>::max()) {
      return InvalidArgument("post_processor.special_tokens: " + Quoted(name) +
                             ": ids: expected one id");
    }
    spec.bos = ids->front().get<TokenId>();
    spec.adds_bos = true;
  }
  return OkStatus();
}

Status ReadAddedTokens(const Json& file, BpeSpec& spec) {
  const Json* list = FindMember(file, "added_tokens");
  if (list == nullptr) return OkStatus();
  if (!list->is_array()) return InvalidArgument("added_tokens: expected a list");
  for (size_t i = 0; i < list->size(); ++i) {
    const Json& item = (*list)[i];
    const std::string where = "added_tokens[" + std::to_string(i) + "]";
    if (!item.is_object()) return InvalidArgument(where + ": expected an object");
    AddedToken token;
    ASSIGN_OR_RETURN(const int64_t id, GetInt(item, "id", -1, where));
    if (id < 0 || id > std::numeric_limits<TokenId>::max()) {
      return InvalidArgument(where + ": id: missing or out of range");
    }
    token.id = static_cast<TokenId>(id);
    ASSIGN_OR_RETURN(token.content, GetString(item, "content", "", where));
    ASSIGN_OR_RETURN(token.special, GetBool(item, "special", false, where));
    ASSIGN_OR_RETURN(token.normalized, GetBool(item, "normalized", !token.special, where));
    ASSIGN_OR_RETURN(token.lstrip, GetBool(item, "lstrip", false, where));
    ASSIGN_OR_RETURN(token.rstrip, GetBool(item, "rstrip", false, where));
    ASSIGN_OR_RETURN(token.single_word, GetBool(item, "single_word", false, where));
    spec.added.push_back(std::move(token));
  }
  return OkStatus();
}

Status ReadModel(const Json& model, BpeSpec& spec) {
  ASSIGN_OR_RETURN(const double dropout, GetDouble(model, "dropout", 0.0, "model"));
  if (dropout != 0.0) return InvalidArgument("model.dropout: merges at random are not supported");
  for (const std::string_view key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    ASSIGN_OR_RETURN(const std::string affix, GetString(model, key, "", "model"));
    if (!affix.empty()) return InvalidArgument("model." + std::string(key) + ": is not supported");
  }
  ASSIGN_OR_RETURN(spec.ignore_merges, GetBool(model, "ignore_merges", false, "model"));
  ASSIGN_OR_RETURN(spec.fuse_unk, GetBool(model, "fuse_unk", false, "model"));
  ASSIGN_OR_RETURN(spec.unk_piece, GetString(model, "unk_token", "", "model"));
  return OkStatus();
}

// The text of a token in tokenizer_config.json: a string, or an object with "content".
std::string ConfigToken(const Json& config, std::string_view key) {
  const Json* value = FindMember(config, key);
  if (value == nullptr) return "";
  if (value->is_string()) return value->get<std::string>();
  const Json* content = FindMember(*value, "content");
  return content != nullptr && content->is_string() ? content->get<std::string>() : "";
}

Result<BpeSpec> ReadSpec(const TokenizerFile& file) {
  if (!file.rest.is_object()) return InvalidArgument("expected an object");
  const Json* model = FindMember(file.rest, "model");
  if (model == nullptr || !model->is_object()) {
    return InvalidArgument("model: missing or not an object");
  }
  ASSIGN_OR_RETURN(const std::string type, GetString(*model, "type", "BPE", "model"));
  if (type != "BPE") {
    return InvalidArgument("model.type: " + Quoted(type) + " is not supported; only BPE is");
  }
  if (!file.vocab_is_object) return InvalidArgument("model.vocab: missing or not an object");
  BpeSpec spec;
  RETURN_IF_ERROR(ReadModel(*model, spec));
  RETURN_IF_ERROR(ReadNormalizer(file.rest, spec));
  RETURN_IF_ERROR(ReadPreTokenizer(file.rest, spec));
  RETURN_IF_ERROR(ReadPostProcessor(file.rest, spec));
  RETURN_IF_ERROR(ReadAddedTokens(file.rest, spec));
  spec.pieces.reserve(file.vocab.size() + spec.added.size());
  for (const auto& [text, id] : file.vocab) spec.pieces.push_back({static_cast<TokenId>(id), text});
  spec.merges.assign(file.merges.begin(), file.merges.end());
  return spec;
}

// The BOS that tokenizer_config.json names, if it is a token.
Status ReadConfigBos(std::string_view config_json, BpeSpec& spec) {
  ASSIGN_OR_RETURN(const Json config, ParseJson(config_json));
  const std::string bos = ConfigToken(config, "bos_token");
  if (bos.empty()) return OkStatus();
  for (const AddedToken& token : spec.added) {
    if (token.content == bos) spec.bos = token.id;
  }
  for (const Vocabulary::Entry& piece : spec.pieces) {
    if (!spec.bos && piece.text == bos) spec.bos = piece.id;
  }
  return OkStatus();
}

// Views `file`.
Result<BpeSpec> ParseSpec(std::string_view tokenizer_json, TokenizerFile& file) {
  // The library takes a NUL byte for the end of its input.
  if (tokenizer_json.find('\0') != std::string_view::npos) {
    return InvalidArgument("not valid JSON: NUL byte");
  }
  TokenizerFileBuilder builder(file);
  if (!Json::sax_parse(tokenizer_json.begin(), tokenizer_json.end(), &builder)) {
    return InvalidArgument(builder.problem().empty() ? "not valid JSON" : builder.problem());
  }
  return ReadSpec(file);
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> LoadHuggingFaceTokenizer(std::string_view tokenizer_json,
                                                            std::string_view tokenizer_config_json,
                                                            std::string_view directory) {
  const std::string folder = directory.empty() ? "" : std::string(directory) + "/";
  TokenizerFile file;
  auto spec = ParseSpec(tokenizer_json, file);
  if (!spec.ok()) return spec.status().WithContext(folder + "tokenizer.json");
  if (!tokenizer_config_json.empty() && !spec->bos) {
    const Status status = ReadConfigBos(tokenizer_config_json, *spec);
    if (!status.ok()) return status.WithContext(folder + "tokenizer_config.json");
  }
  auto tokenizer = BuildBpeTokenizer(std::move(spec).value());
  if (!tokenizer.ok()) return tokenizer.status().WithContext(folder + "tokenizer.json");
  return tokenizer;
}

}  // namespace muselet
