// What a model's directory or file may hold.
#include "node/model/checkpoint.h"
#include "node/model/gguf.h"
#include "node/model/safetensors.h"
#include "node/model/safetensors_json.h"
#include "node/text/chat_template.h"
#include "node/text/text_model.h"
#include "node/text/tokenizer.h"
#include "node/text/utf8.h"
#include "tests/fuzz/targets.h"
#include "tests/node/model/memory_file.h"
#include "tests/node/model/model_files.h"

namespace muselet::testing {
namespace {

// Reads the first and the last byte of every tensor, so that a sanitizer sees a view past the end.
uint64_t Touch(const TensorView& view) {
  if (view.bytes() == 0) return 0;
  return static_cast<uint64_t>(view.data[0]) + static_cast<uint64_t>(view.data[view.bytes() - 1]);
}

// Ids are below the vocabulary's size, whatever the text.
std::string BrokenTokenizer(const Tokenizer& tokenizer) {
  const std::string_view text = "Hello <|end|>, na\u00EFve  world 1234\n\t\U0001F600!";
  for (const SpecialTokens special : {SpecialTokens::kAsText, SpecialTokens::kParse}) {
    const auto ids = tokenizer.Encode(text, special);
    if (!ids.ok()) return BrokenMessage(ids.status().message(), "");
    for (const TokenId id : *ids) {
      if (id < 0 || static_cast<uint32_t>(id) >= tokenizer.vocab_size()) return "an unknown id";
      if (special == SpecialTokens::kAsText && tokenizer.IsControl(id)) return "a control token";
    }
  }
  return "";
}

}  // namespace

FuzzOutcome RunGguf(std::string_view bytes) {
  const MemoryFile file;
  file.Write(bytes);
  const auto checkpoint = Checkpoint::Open(file.path());
  if (!checkpoint.ok()) {
    return {false, BrokenMessage(checkpoint.status().message(), file.path() + ": ")};
  }
  uint64_t sum = (*checkpoint)->Digest().size();
  for (const std::string& name : (*checkpoint)->TensorNames()) {
    sum += Touch(*(*checkpoint)->Tensor(name));
  }
  for (const GgufEntry& entry : (*checkpoint)->gguf()->entries()) {
    sum += (*checkpoint)->gguf()->StringArray(entry.key).ok();
    sum += (*checkpoint)->gguf()->IntArray(entry.key).ok();
  }
  if (sum == 0) return {true, "a checkpoint without a digest"};
  const auto text = LoadTextModel(**checkpoint);
  if (!text.ok()) return {true, BrokenMessage(text.status().message(), file.path() + ": ")};
  return {true, (*text)->tokenizer == nullptr ? "" : BrokenTokenizer(*(*text)->tokenizer)};
}

FuzzOutcome RunSafetensors(std::string_view bytes) {
  const auto index = ParseSafetensorsIndex(bytes);
  if (index.ok()) {
    for (const ShardClaim& claim : *index) {
      if (claim.tensor.size() > 512 || claim.file.size() > 512) return {true, "a name too long"};
    }
  } else if (const auto broken = BrokenMessage(index.status().message(), ""); !broken.empty()) {
    return {false, broken};
  }
  const MemoryFile file;
  file.Write(bytes);
  const auto weights = Safetensors::OpenFile(file.path());
  if (!weights.ok()) {
    return {index.ok(), BrokenMessage(weights.status().message(), file.path() + ": ")};
  }
  uint64_t sum = 0;
  for (const SafetensorsTensor& tensor : weights->tensors()) sum += Touch(tensor.view);
  return {true, sum > weights->tensors().size() * 510 ? "bytes that are no bytes" : ""};
}

FuzzOutcome RunTokenizer(std::string_view bytes) {
  const auto tokenizer = LoadHuggingFaceTokenizer(bytes, "");
  if (!tokenizer.ok()) {
    return {false, BrokenMessage(tokenizer.status().message(), "tokenizer.json: ")};
  }
  return {true, BrokenTokenizer(**tokenizer)};
}

FuzzOutcome RunTemplate(std::string_view bytes) {
  const auto parsed = ChatTemplate::Parse(bytes);
  if (!parsed.ok()) return {false, BrokenMessage(parsed.status().message(), "")};
  ChatTemplateInput input;
  input.messages = Json::array({{{"role", "system"}, {"content", "Be brief."}},
                                {{"role", "user"}, {"content", " na\u00EFve <|end|> "}},
                                {{"role", "assistant"}, {"content", nullptr}}});
  input.tools = Json::array({{{"type", "function"}, {"function", {{"name", "f"}}}}});
  input.kwargs = {{"depth", 3}, {"ratio", -0.5}, {"flag", true}};
  input.bos_token = "<s>";
  const auto prompt = (*parsed)->Render(input);
  if (!prompt.ok()) return {false, ""};  // raise_exception may say what it likes
  if (!IsValidUtf8(prompt->text)) return {true, "a prompt that is not UTF-8"};
  size_t end = 0;
  for (const TextRange& range : prompt->untrusted) {
    if (range.begin < end || range.end <= range.begin || range.end > prompt->text.size()) {
      return {true, "untrusted ranges that overlap or leave the prompt"};
    }
    end = range.end;
  }
  return {true, ""};
}

std::vector<std::string> GgufSeeds() {
  GgufWriter with_tokenizer = TinyLlama();
  with_tokenizer.String("tokenizer.ggml.model", "gpt2");
  with_tokenizer.String("tokenizer.ggml.pre", "smollm");
  with_tokenizer.Strings("tokenizer.ggml.merges", {});
  with_tokenizer.String("tokenizer.chat_template", "{{ messages[0].content }}");
  with_tokenizer.U32("general.alignment", 32);
  return {TinyLlama().Finish(), TinyLlama().Finish(2), with_tokenizer.Finish()};
}

std::vector<std::string> SafetensorsSeeds() {
  std::string header = R"({"__metadata__":{"format":"pt"},)"
                       R"("a":{"dtype":"F32","shape":[2,4],"data_offsets":[0,32]},)"
                       R"("b":{"dtype":"BF16","shape":[2],"data_offsets":[32,36]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  std::string bytes;
  AppendNumber<uint64_t>(header.size(), bytes);
  return {bytes + header + std::string(36, '\1')};
}

}  // namespace muselet::testing
