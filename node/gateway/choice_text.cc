#include "node/gateway/choice_text.h"

#include <algorithm>
#include <utility>

namespace muselet {

GeneratedToken Describe(const Tokenizer* tokenizer, SampledToken token) {
  const auto own = [&](TokenId id) {
    return tokenizer == nullptr ? std::string() : std::string(tokenizer->TokenText(id));
  };
  GeneratedToken described;
  described.text = own(token.id);
  for (const TokenLogprob& other : token.top) described.top_texts.push_back(own(other.id));
  described.sampled = std::move(token);
  return described;
}

ChoiceText::ChoiceText(const Tokenizer* tokenizer, const TextRules& rules, uint32_t choice)
    : rules_(rules), tokenizer_(tokenizer), matcher_(rules.stop_strings), choice_(choice) {
  if (tokenizer != nullptr) detokenizer_.emplace(*tokenizer, rules.show_control_tokens);
}

ChoiceText::Outcome ChoiceText::Push(std::vector<SampledToken> tokens, FinishReason finish) {
  Outcome outcome;
  for (size_t i = 0; i < tokens.size() && !outcome.stopped; ++i) {
    const bool last = i + 1 == tokens.size();
    outcome.stopped = PushToken(std::move(tokens[i]), last && finish == FinishReason::kStop);
  }
  if (outcome.stopped) {
    update_.finish = FinishReason::kStop;
  } else if (finish != FinishReason::kNone) {
    Flush();
    update_.finish = update_.stop_string.empty() ? finish : FinishReason::kStop;
  }
  finished_ = update_.finish != FinishReason::kNone;
  update_.choice = choice_;
  outcome.update = std::exchange(update_, ChoiceUpdate());
  return outcome;
}

bool ChoiceText::PushToken(SampledToken token, bool ends) {
  const TokenId id = token.id;
  ++token_count_;
  const auto& stop_ids = rules_.stop_token_ids;
  const bool named = ends && std::count(stop_ids.begin(), stop_ids.end(), id) > 0;
  if (named) update_.stop_token = id;
  const bool shown = !ends || (named && rules_.include_stop);
  update_.tokens.push_back(Describe(tokenizer_, std::move(token)));
  if (!shown || !detokenizer_) return false;
  PushText(detokenizer_->Push(id));
  return !update_.stop_string.empty();
}

void ChoiceText::PushText(const std::string& text) {
  if (token_count_ <= rules_.min_tokens) {
    update_.text += text;
    return;
  }
  StopMatcher::Output out = matcher_.Push(text, rules_.include_stop);
  update_.text += out.text;
  if (out.stopped) update_.stop_string = std::move(out.stop_string);
}

void ChoiceText::Flush() {
  if (!detokenizer_) return;
  PushText(detokenizer_->Finish());
  if (update_.stop_string.empty()) update_.text += matcher_.Finish();
}

}  // namespace muselet
