#include "node/text/bpe_tokenizer.h"

#include <algorithm>
#include <array>
#include <atomic>

#include "node/text/bpe_merges.h"
#include "node/text/byte_level.h"
#include "node/text/utf8.h"

namespace muselet {
namespace {

constexpr size_t kTextBytesMax = size_t{1} << 30;
constexpr size_t kAddedTokenBytesMax = 4096;  // bounds the cost of looking for them

// "model.merges[7]: ".
std::string Entry(std::string_view field, size_t index) {
  return std::string(field) + "[" + std::to_string(index) + "]: ";
}

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return (c & 0x80) == 0; });
}

// The parts of `ranges` within [begin, end), counted from begin.
std::vector<TextRange> Within(std::span<const TextRange> ranges, size_t begin, size_t end) {
  std::vector<TextRange> out;
  for (const TextRange& range : ranges) {
    const size_t low = std::max(range.begin, begin);
    const size_t high = std::min(range.end, end);
    if (low < high) out.push_back({low - begin, high - begin});
  }
  return out;
}

class BpeTokenizer : public Tokenizer {
 public:
  BpeTokenizer(BpeSpec spec, Vocabulary pieces, Vocabulary words,
               const std::vector<BpeMerges::Merge>& merges);

  Result<std::vector<TokenId>> Encode(std::string_view text, SpecialTokens special,
                                      std::span<const TextRange> untrusted) const override;
  std::string_view TokenBytes(TokenId id) const override {
    return IsControl(id) ? std::string_view() : words_.Text(id);
  }
  std::string_view TokenText(TokenId id) const override {
    return IsControl(id) ? pieces_.Text(id) : words_.Text(id);
  }
  bool IsControl(TokenId id) const override {
    return id >= 0 && static_cast<size_t>(id) < control_.size() &&
           control_[static_cast<size_t>(id)];
  }
  uint32_t vocab_size() const override { return pieces_.size(); }
  std::optional<TokenId> bos() const override { return spec_.bos; }
  bool adds_bos() const override { return spec_.adds_bos; }
  std::optional<TokenId> FindToken(std::string_view text) const override {
    return pieces_.Find(text);
  }

 private:
  enum Canonical : uint8_t { kUnknown, kYes, kNo };

  Status EncodeSection(std::string_view text, SpecialTokens special,
                       std::span<const TextRange> untrusted, std::vector<TokenId>& ids) const;
  Status EncodePlain(std::string_view text, std::vector<TokenId>& ids) const;
  void EncodeWord(std::string_view word, std::vector<TokenId>& symbols,
                  std::vector<TokenId>& ids) const;
  void Spell(std::string_view word, std::vector<TokenId>& symbols) const;
  // Whether merging the bytes of piece `id` gives that piece.
  bool IsCanonical(TokenId id, std::string_view word, std::vector<TokenId>& symbols) const;

  BpeSpec spec_;       // pieces, merges and added are moved out
  Vocabulary pieces_;  // as spelled in the file
  Vocabulary words_;   // as bytes
  BpeMerges merges_;
  std::vector<bool> control_;
  std::array<TokenId, 256> byte_pieces_{};  // -1 = none
  TokenId unk_ = -1;
  size_t word_bytes_max_ = 0;  // of the longest piece
  AddedTokenMatcher raw_matcher_;
  std::optional<AddedTokenMatcher> normalized_matcher_;
  // Learnt as words come; every thread would learn the same, so relaxed order will do.
  std::unique_ptr<std::atomic<uint8_t>[]> canonical_;
};

std::vector<AddedToken> TokensByForm(const std::vector<AddedToken>& tokens, bool normalized,
                                     bool nfc) {
  std::vector<AddedToken> out;
  for (const AddedToken& token : tokens) {
    if (token.normalized != normalized) continue;
    out.push_back(token);
    if (normalized && nfc) out.back().content = NormalizeNfc(token.content);
  }
  return out;
}

BpeTokenizer::BpeTokenizer(BpeSpec spec, Vocabulary pieces, Vocabulary words,
                           const std::vector<BpeMerges::Merge>& merges)
    : spec_(std::move(spec)),
      pieces_(std::move(pieces)),
      words_(std::move(words)),
      merges_(merges),
      control_(pieces_.size()),
      raw_matcher_(TokensByForm(spec_.added, false, spec_.nfc)),
      canonical_(new std::atomic<uint8_t>[pieces_.size()]) {
  for (uint32_t id = 0; id < pieces_.size(); ++id) {
    canonical_[id].store(kUnknown, std::memory_order_relaxed);
    word_bytes_max_ = std::max(word_bytes_max_, words_.Text(static_cast<TokenId>(id)).size());
  }
  for (const AddedToken& token : spec_.added) {
    if (token.special) control_[static_cast<size_t>(token.id)] = true;
  }
  const std::array<char32_t, 256> alphabet = ByteLevelAlphabet();
  for (size_t byte = 0; byte < 256; ++byte) {
    std::string spelled;
    AppendUtf8(alphabet[byte], spelled);
    byte_pieces_[byte] = pieces_.Find(spelled).value_or(-1);
  }
  if (!spec_.unk_piece.empty()) unk_ = pieces_.Find(spec_.unk_piece).value_or(-1);
  std::vector<AddedToken> normalized = TokensByForm(spec_.added, true, spec_.nfc);
  if (!normalized.empty()) normalized_matcher_.emplace(std::move(normalized));
}

Result<std::vector<TokenId>> BpeTokenizer::Encode(std::string_view text, SpecialTokens special,
                                                  std::span<const TextRange> untrusted) const {
  if (text.size() > kTextBytesMax) return InvalidArgument("text is longer than 1 GiB");
  if (!IsValidUtf8(text)) return InvalidArgument("text is not valid UTF-8");
  std::vector<TokenId> ids;
  ids.reserve(text.size() / 4 + 1);
  for (const TextSection& section : raw_matcher_.Find(text, special, untrusted)) {
    if (section.id >= 0) {
      ids.push_back(section.id);
      continue;
    }
    const std::string_view part = text.substr(section.begin, section.end - section.begin);
    std::vector<TextRange> ranges;
    if (normalized_matcher_) ranges = Within(untrusted, section.begin, section.end);
    RETURN_IF_ERROR(EncodeSection(part, special, ranges, ids));
  }
  return ids;
}

Status BpeTokenizer::EncodeSection(std::string_view text, SpecialTokens special,
                                   std::span<const TextRange> untrusted,
                                   std::vector<TokenId>& ids) const {
  std::string normalized;
  if (spec_.nfc && !IsAscii(text)) {
    normalized = NormalizeNfc(text);
    // Offsets are lost if the text changed; then all of it counts as untrusted if any of it is.
    if (normalized != text && !untrusted.empty()) special = SpecialTokens::kAsText;
    text = normalized;
  }
  if (!normalized_matcher_) return EncodePlain(text, ids);
  for (const TextSection& section : normalized_matcher_->Find(text, special, untrusted)) {
    if (section.id >= 0) {
      ids.push_back(section.id);
    } else {
      RETURN_IF_ERROR(EncodePlain(text.substr(section.begin, section.end - section.begin), ids));
    }
  }
  return OkStatus();
}

Status BpeTokenizer::EncodePlain(std::string_view text, std::vector<TokenId>& ids) const {
  if (text.empty()) return OkStatus();
  Pieces words;
  words.views.push_back(text);
  for (const auto& step : spec_.pre_tokenizers) {
    std::vector<std::string_view> before;
    before.swap(words.views);
    words.views.reserve(before.size() + text.size() / 5);
    for (const std::string_view piece : before) RETURN_IF_ERROR(step->Split(piece, words));
  }
  std::vector<TokenId> symbols;
  for (const std::string_view word : words.views) EncodeWord(word, symbols, ids);
  return OkStatus();
}

void BpeTokenizer::EncodeWord(std::string_view word, std::vector<TokenId>& symbols,
                              std::vector<TokenId>& ids) const {
  if (word.size() <= word_bytes_max_) {
    const std::optional<TokenId> id = words_.Find(word);
    if (id && (spec_.ignore_merges || IsCanonical(*id, word, symbols))) {
      ids.push_back(*id);
      return;
    }
  }
  Spell(word, symbols);
  merges_.Apply(symbols);
  ids.insert(ids.end(), symbols.begin(), symbols.end());
}

void BpeTokenizer::Spell(std::string_view word, std::vector<TokenId>& symbols) const {
  symbols.clear();
  bool after_unk = false;
  for (const char c : word) {
    const TokenId id = byte_pieces_[static_cast<unsigned char>(c)];
    if (id >= 0) {
      symbols.push_back(id);
    } else if (unk_ >= 0 && !(after_unk && spec_.fuse_unk)) {
      symbols.push_back(unk_);
    }
    after_unk = id < 0;
  }
}

bool BpeTokenizer::IsCanonical(TokenId id, std::string_view word,
                               std::vector<TokenId>& symbols) const {
  std::atomic<uint8_t>& known = canonical_[static_cast<size_t>(id)];
  const uint8_t value = known.load(std::memory_order_relaxed);
  if (value != kUnknown) return value == kYes;
  Spell(word, symbols);
  merges_.Apply(symbols);
  const bool canonical = symbols.size() == 1 && symbols[0] == id;
  known.store(canonical ? kYes : kNo, std::memory_order_relaxed);
  return canonical;
}

// An added token as the file lists it: apart from the vocabulary, or as one of its entries.
std::string AddedEntry(const BpeSpec& spec, size_t i) {
  const bool apart = spec.names.added != spec.names.vocab;
  return Entry(spec.names.added, apart ? i : static_cast<size_t>(spec.added[i].id));
}

// Adds the added tokens that are no pieces to the pieces, and checks those that are.
Result<Vocabulary> BuildPieces(BpeSpec& spec) {
  auto built = Vocabulary::Build(spec.pieces);
  if (!built.ok()) return built.status().WithContext(spec.names.vocab);
  Vocabulary pieces = std::move(built).value();
  bool grown = false;
  for (size_t i = 0; i < spec.added.size(); ++i) {
    const AddedToken& token = spec.added[i];
    const std::string where = AddedEntry(spec, i);
    if (token.content.empty()) return InvalidArgument(where + "content is empty");
    if (token.content.size() > kAddedTokenBytesMax) {
      return InvalidArgument(where + "content is longer than " +
                             std::to_string(kAddedTokenBytesMax) + " bytes");
    }
    const std::optional<TokenId> known = pieces.Find(token.content);
    if (known && *known != token.id) {
      return InvalidArgument(where + Quoted(token.content) + " has id " + std::to_string(token.id) +
                             ", but the vocabulary has it as " + std::to_string(*known));
    }
    if (!known) {
      spec.pieces.push_back({token.id, token.content});
      grown = true;
    }
  }
  if (!grown) return pieces;
  auto all = Vocabulary::Build(spec.pieces);
  if (!all.ok()) return all.status().WithContext(spec.names.added);
  return all;
}

// The pieces as bytes. What is an added token is found by AddedTokenMatcher, never as a word.
Result<Vocabulary> BuildWords(const BpeSpec& spec, const Vocabulary& pieces) {
  std::vector<bool> added(pieces.size());
  for (const AddedToken& token : spec.added) added[static_cast<size_t>(token.id)] = true;
  std::vector<std::string> decoded(spec.pieces.size());
  std::vector<Vocabulary::Entry> entries;
  entries.reserve(spec.pieces.size());
  for (size_t i = 0; i < spec.pieces.size(); ++i) {
    const Vocabulary::Entry& piece = spec.pieces[i];
    const bool spelled = AppendByteLevelDecoded(piece.text, decoded[i]);
    entries.push_back({piece.id, decoded[i], spelled && !added[static_cast<size_t>(piece.id)]});
  }
  return Vocabulary::Build(entries);
}

Result<std::vector<BpeMerges::Merge>> BuildMerges(const BpeSpec& spec, const Vocabulary& pieces) {
  std::vector<BpeMerges::Merge> merges;
  merges.reserve(spec.merges.size());
  std::string joined;
  for (size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const auto& [left, right] = spec.merges[rank];
    joined.assign(left);
    joined += right;
    for (const std::string_view piece : {left, right, std::string_view(joined)}) {
      if (pieces.Find(piece)) continue;
      return InvalidArgument(Entry(spec.names.merges, rank) + Quoted(piece) +
                             " is not in the vocabulary");
    }
    merges.push_back({*pieces.Find(left), *pieces.Find(right), *pieces.Find(joined)});
  }
  return merges;
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> BuildBpeTokenizer(BpeSpec spec) {
  const std::string vocab(spec.names.vocab);
  if (spec.pieces.empty()) return InvalidArgument(vocab + ": is empty");
  for (const Vocabulary::Entry& piece : spec.pieces) {
    if (!IsValidUtf8(piece.text)) {
      return InvalidArgument(vocab + ": token " + std::to_string(piece.id) + " is not valid UTF-8");
    }
  }
  ASSIGN_OR_RETURN(Vocabulary pieces, BuildPieces(spec));
  auto words = BuildWords(spec, pieces);
  if (!words.ok()) return words.status().WithContext(vocab);
  ASSIGN_OR_RETURN(const std::vector<BpeMerges::Merge> merges, BuildMerges(spec, pieces));
  if (!spec.unk_piece.empty() && !pieces.Find(spec.unk_piece)) {
    return InvalidArgument(std::string(spec.names.unk) + ": " + Quoted(spec.unk_piece) +
                           " is not in the vocabulary");
  }
  if (spec.bos && static_cast<uint32_t>(*spec.bos) >= pieces.size()) {
    return InvalidArgument(std::string(spec.names.bos) + ": id " + std::to_string(*spec.bos) +
                           " is not in the vocabulary");
  }
  spec.pieces.clear();
  spec.merges.clear();
  return {std::make_unique<BpeTokenizer>(std::move(spec), std::move(pieces), std::move(*words),
                                         merges)};
}

}  // namespace muselet
