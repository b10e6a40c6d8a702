// Reads a byte-level BPE tokenizer from a GGUF's tokenizer.ggml.* metadata. The file names its
// pre-tokenizer only ("tokenizer.ggml.pre"); which patterns that means is llama.cpp's convention
// (llama-vocab.cpp), and the result is what Hugging Face's tokenizer of that model does.
#include <array>

#include "node/model/gguf.h"
#include "node/text/bpe_tokenizer.h"
#include "node/text/tokenizer.h"
#include "node/text/utf8.h"

namespace muselet {
namespace {

struct PreTokenizerKind {
  std::string_view name;
  std::string_view pattern;
  bool individual_digits;  // before the pattern
  bool nfc;
  bool ignore_merges;
  bool adds_bos;  // unless the file says otherwise
};

const auto& Kinds() {
  static const std::array<PreTokenizerKind, 14> kKinds = {{
      {"gpt-2", kGpt2Pattern, false, false, false, false},
      {"phi-2", kGpt2Pattern, false, false, false, false},
      {"mpt", kGpt2Pattern, false, false, false, false},
      {"olmo", kGpt2Pattern, false, false, false, false},
      {"smollm", kGpt2Pattern, true, false, false, false},
      {"starcoder", kGpt2Pattern, true, false, false, false},
      {"refact", kGpt2Pattern, true, false, false, false},
      {"command-r", kGpt2Pattern, true, true, false, true},
      {"llama-bpe", kLlama3Pattern, false, false, true, true},
      {"llama3", kLlama3Pattern, false, false, true, true},
      {"llama-v3", kLlama3Pattern, false, false, true, true},
      {"qwen2", kQwen2Pattern, false, true, false, false},
      {"stablelm2", kQwen2Pattern, false, false, false, false},
      {"deepseek-r1-qwen", kQwen2Pattern, false, false, false, true},
  }};
  return kKinds;
}

Result<PreTokenizerKind> FindKind(std::string_view name) {
  // Files without the key are older than it; "default" is what converters write who do not know.
  if (name.empty() || name == "default") name = "gpt-2";
  std::string known;
  for (const PreTokenizerKind& kind : Kinds()) {
    if (kind.name == name) return kind;
    known += (known.empty() ? "" : ", ") + std::string(kind.name);
  }
  return InvalidArgument("tokenizer.ggml.pre: " + Quoted(name) + " is not supported; known are " +
                         known);
}

constexpr BpeFieldNames kFieldNames = {.vocab = "tokenizer.ggml.tokens",
                                       .merges = "tokenizer.ggml.merges",
                                       .added = "tokenizer.ggml.tokens",
                                       .unk = "tokenizer.ggml.unknown_token_id",
                                       .bos = "tokenizer.ggml.bos_token_id"};

constexpr int32_t kTypeControl = 3;
constexpr int32_t kTypeUserDefined = 4;

Status ReadPieces(const std::vector<std::string_view>& tokens, const std::vector<int32_t>& types,
                  BpeSpec& spec) {
  if (!types.empty() && types.size() != tokens.size()) {
    return InvalidArgument("tokenizer.ggml.token_type: has " + std::to_string(types.size()) +
                           " entries, tokenizer.ggml.tokens has " + std::to_string(tokens.size()));
  }
  spec.pieces.reserve(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    spec.pieces.push_back({id, tokens[i]});
    const int32_t type = types.empty() ? 1 : types[i];
    if ((type != kTypeControl && type != kTypeUserDefined) || tokens[i].empty()) continue;
    AddedToken token;
    token.id = id;
    token.content = tokens[i];
    token.special = type == kTypeControl;
    spec.added.push_back(std::move(token));
  }
  return OkStatus();
}

Status ReadMerges(const std::vector<std::string_view>& merges, BpeSpec& spec) {
  spec.merges.reserve(merges.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    // The left token is never empty, so a space at the front belongs to it.
    const size_t space = merges[rank].find(' ', 1);
    if (merges[rank].empty() || space == std::string_view::npos) {
      return InvalidArgument("tokenizer.ggml.merges[" + std::to_string(rank) +
                             "]: expected two tokens with a space between");
    }
    spec.merges.emplace_back(merges[rank].substr(0, space), merges[rank].substr(space + 1));
  }
  return OkStatus();
}

Status ReadBos(const GgufFile& file, bool adds_bos, BpeSpec& spec) {
  if (file.Has("tokenizer.ggml.bos_token_id")) {
    ASSIGN_OR_RETURN(const uint64_t bos, file.Uint("tokenizer.ggml.bos_token_id"));
    if (bos >= spec.pieces.size()) {
      return InvalidArgument("tokenizer.ggml.bos_token_id: " + std::to_string(bos) +
                             " is not in the vocabulary");
    }
    spec.bos = static_cast<TokenId>(bos);
  }
  ASSIGN_OR_RETURN(const bool add, file.BoolOr("tokenizer.ggml.add_bos_token", adds_bos));
  spec.adds_bos = add && spec.bos;
  return OkStatus();
}

Result<std::unique_ptr<Tokenizer>> Load(const GgufFile& file) {
  ASSIGN_OR_RETURN(const std::string_view model, file.String("tokenizer.ggml.model"));
  if (model != "gpt2") {
    return InvalidArgument("tokenizer.ggml.model: " + Quoted(model) +
                           " is not supported; only gpt2 (byte-level BPE) is");
  }
  ASSIGN_OR_RETURN(const std::string_view pre, file.StringOr("tokenizer.ggml.pre", ""));
  ASSIGN_OR_RETURN(const PreTokenizerKind kind, FindKind(pre));
  BpeSpec spec;
  spec.names = kFieldNames;
  ASSIGN_OR_RETURN(const auto tokens, file.StringArray("tokenizer.ggml.tokens"));
  std::vector<int32_t> types;
  if (file.Has("tokenizer.ggml.token_type")) {
    ASSIGN_OR_RETURN(types, file.IntArray("tokenizer.ggml.token_type"));
  }
  ASSIGN_OR_RETURN(const auto merges, file.StringArray("tokenizer.ggml.merges"));
  RETURN_IF_ERROR(ReadPieces(tokens, types, spec));
  RETURN_IF_ERROR(ReadMerges(merges, spec));
  RETURN_IF_ERROR(ReadBos(file, kind.adds_bos, spec));
  spec.nfc = kind.nfc;
  spec.ignore_merges = kind.ignore_merges;
  if (kind.individual_digits) spec.pre_tokenizers.push_back(MakeDigitSplit(true));
  ASSIGN_OR_RETURN(auto split, MakeSplit({.pattern = std::string(kind.pattern)}));
  spec.pre_tokenizers.push_back(std::move(split));
  return BuildBpeTokenizer(std::move(spec));
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> LoadGgufTokenizer(const GgufFile& file) {
  auto tokenizer = Load(file);
  if (tokenizer.ok() || tokenizer.status().message().starts_with(file.path() + ": ")) {
    return tokenizer;  // GgufFile names the path itself
  }
  return tokenizer.status().WithContext(file.path());
}

}  // namespace muselet
