#include "node/gateway/prompt_text.h"

#include <utility>

#include "node/text/detokenizer.h"
#include "node/text/text_model.h"

namespace muselet {
namespace {

size_t StringBytes(const Json& value) {
  if (value.is_string()) return value.get_ref<const std::string&>().size();
  size_t bytes = 0;
  if (value.is_structured()) {
    for (const Json& item : value) bytes += 1 + StringBytes(item);
  }
  return bytes;
}

Result<PreparedPrompt> PrepareChat(const TextModel& text, const ChatPrompt& prompt,
                                   int64_t now_unix_us) {
  if (text.chat_template == nullptr) return InvalidArgument("the model has no chat template");
  ChatTemplateInput input;
  input.messages = prompt.messages;
  input.tools = prompt.tools;
  input.documents = prompt.documents;
  input.kwargs = prompt.template_kwargs;
  input.add_generation_prompt = prompt.add_generation_prompt;
  input.bos_token = text.bos_token;
  input.eos_token = text.eos_token;
  input.now_unix_us = now_unix_us;
  ASSIGN_OR_RETURN(RenderedPrompt rendered, text.chat_template->Render(input));
  PreparedPrompt prepared;
  ASSIGN_OR_RETURN(prepared.ids, text.tokenizer->Encode(rendered.text, SpecialTokens::kParse,
                                                        rendered.untrusted));
  prepared.text = std::move(rendered.text);
  return prepared;
}

// A plain prompt is written by the application, which may mean its control tokens.
Result<PreparedPrompt> PrepareText(const TextModel& text, const TextPrompt& prompt) {
  const Tokenizer& tokenizer = *text.tokenizer;
  PreparedPrompt prepared;
  ASSIGN_OR_RETURN(prepared.ids, tokenizer.Encode(prompt.text, SpecialTokens::kParse));
  const std::optional<TokenId> bos = tokenizer.bos();
  const bool has_bos = bos && !prepared.ids.empty() && prepared.ids.front() == *bos;
  if (prompt.add_special_tokens && bos && tokenizer.adds_bos() && !has_bos)
    prepared.ids.insert(prepared.ids.begin(), *bos);
  prepared.text = prompt.text;
  return prepared;
}

}  // namespace

const Tokenizer* TokenizerOf(const TextModel* text) {
  return text == nullptr ? nullptr : text->tokenizer.get();
}

bool HasChatTemplate(const TextModel* text) {
  return text != nullptr && text->tokenizer != nullptr && text->chat_template != nullptr;
}

size_t PromptBytes(const PromptVariant& prompt) {
  if (const auto* chat = std::get_if<ChatPrompt>(&prompt)) {
    return StringBytes(chat->messages) + StringBytes(chat->tools) + StringBytes(chat->documents) +
           StringBytes(chat->template_kwargs);
  }
  if (const auto* text = std::get_if<TextPrompt>(&prompt)) return text->text.size();
  return std::get<TokenPrompt>(prompt).ids.size();
}

std::string PromptParam(const PromptVariant& prompt) {
  return std::holds_alternative<ChatPrompt>(prompt) ? "messages" : "prompt";
}

Result<PreparedPrompt> PreparePrompt(const TextModel* text, const PromptVariant& prompt,
                                     int64_t now_unix_us) {
  const Tokenizer* tokenizer = TokenizerOf(text);
  if (const auto* tokens = std::get_if<TokenPrompt>(&prompt)) {
    PreparedPrompt prepared;
    prepared.ids = tokens->ids;
    if (tokenizer != nullptr) prepared.text = TextOf(*tokenizer, tokens->ids, true);
    return prepared;
  }
  if (tokenizer == nullptr)
    return InvalidArgument("the model has no tokenizer: send token ids as a completion prompt");
  if (const auto* chat = std::get_if<ChatPrompt>(&prompt))
    return PrepareChat(*text, *chat, now_unix_us);
  return PrepareText(*text, std::get<TextPrompt>(prompt));
}

std::string TextOf(const Tokenizer& tokenizer, const std::vector<TokenId>& ids,
                   bool show_control_tokens) {
  Detokenizer detokenizer(tokenizer, show_control_tokens);
  std::string text;
  for (const TokenId id : ids) text += detokenizer.Push(id);
  return text + detokenizer.Finish();
}

}  // namespace muselet
