#include "tests/node/simulate/request_ledger.h"

#include <algorithm>

namespace muselet::testing {
namespace {

constexpr int64_t kLateUsMax = 200'000;

bool IsEnd(const StopRules& stop, TokenId token) {
  return std::find(stop.end_tokens.begin(), stop.end_tokens.end(), token) != stop.end_tokens.end();
}

}  // namespace

void RequestLedger::Begin(const RequestRecord& record, uint32_t gateway, int64_t now_us,
                          bool must_complete) {
  Entry entry;
  entry.record = record;
  entry.gateway = gateway;
  entry.deadline_us = now_us + record.timeout_us;
  entry.must_complete = must_complete;
  for (uint32_t i = 0; i < record.choices; ++i) {
    entry.choices.push_back(
        {ChainAnswer(record.prompt, record.sampling.seed, i, vocab_), 0, -1, {}, false});
  }
  open_[record.request] = std::move(entry);
}

RequestLedger::Entry* RequestLedger::Find(uint32_t gateway, const RequestId& request,
                                          const char* what) {
  const auto found = open_.find(request);
  if (found == open_.end() || found->second.gateway != gateway) {
    fail_("request " + request.ToString() + " is over, and yet it has " + what);
    return nullptr;
  }
  return &found->second;
}

void RequestLedger::OnEvent(uint32_t gateway, const OwnerEvent& event, int64_t now_us) {
  if (const auto* delivered = std::get_if<Delivered>(&event)) On(gateway, *delivered);
  if (const auto* ended = std::get_if<Ended>(&event)) On(gateway, *ended, now_us);
  if (const auto* again = std::get_if<Reattempted>(&event)) {
    ++reattempts_;
    Find(gateway, again->request, "another attempt");
  }
}

void RequestLedger::On(uint32_t gateway, const Delivered& event) {
  Entry* entry = Find(gateway, event.sequence.request, "tokens");
  if (entry == nullptr) return;
  Choice& choice = entry->choices.at(event.sequence.choice);
  const std::string name =
      event.sequence.request.ToString() + "/" + std::to_string(event.sequence.choice);
  if (choice.finish != FinishReason::kNone) fail_(name + " has tokens after its end");
  if (choice.stopped) fail_(name + " has tokens after its client stopped it");
  for (const SampledToken& token : event.tokens) {
    const TokenId expected = choice.answer.Next();
    if (token.id != expected) {
      fail_(name + " token " + std::to_string(choice.count) + " is " + std::to_string(token.id) +
            ", undisturbed it is " + std::to_string(expected));
    }
    ++choice.count;
    ++tokens_;
    choice.last = token.id;
  }
  choice.finish = event.finish;
  if (event.finish != FinishReason::kNone) CheckFinish(*entry, choice);
}

void RequestLedger::CheckFinish(const Entry& entry, const Choice& choice) {
  const StopRules& stop = entry.record.stop;
  const bool at_end = choice.count > stop.min_tokens && IsEnd(stop, choice.last);
  const FinishReason expected = at_end ? FinishReason::kStop : FinishReason::kLength;
  if (choice.finish != expected || (!at_end && choice.count != stop.max_tokens)) {
    fail_(entry.record.request.ToString() + " finished with " +
          std::string(FinishReasonName(choice.finish)) + " after " + std::to_string(choice.count) +
          " of at most " + std::to_string(stop.max_tokens) + " tokens");
  }
}

void RequestLedger::On(uint32_t gateway, const Ended& event, int64_t now_us) {
  Entry* entry = Find(gateway, event.request, "an end");
  if (entry == nullptr) return;
  const bool complete = std::all_of(
      entry->choices.begin(), entry->choices.end(),
      [](const Choice& choice) { return choice.stopped || choice.finish != FinishReason::kNone; });
  if (event.status.ok() && !complete)
    fail_(event.request.ToString() + " ended well without all of its choices");
  if (!event.status.ok() && entry->must_complete)
    fail_(event.request.ToString() + " ended with " + event.status.ToString());
  if (now_us > std::max(entry->deadline_us, paused_until_us_[gateway]) + kLateUsMax)
    fail_(event.request.ToString() + " ended long after its time");
  ++(event.status.ok() ? completed_ : failed_);
  open_.erase(event.request);
}

void RequestLedger::Cancelled(const RequestId& request) {
  open_.erase(request);
}

void RequestLedger::Stopped(const SequenceId& sequence) {
  const auto found = open_.find(sequence.request);
  if (found != open_.end()) found->second.choices.at(sequence.choice).stopped = true;
}

size_t RequestLedger::GatewayDied(uint32_t gateway) {
  return std::erase_if(open_, [&](const auto& entry) { return entry.second.gateway == gateway; });
}

std::vector<RequestId> RequestLedger::OpenOf(uint32_t gateway) const {
  std::vector<RequestId> list;
  for (const auto& [request, entry] : open_)
    if (entry.gateway == gateway) list.push_back(request);
  return list;
}

std::optional<uint32_t> RequestLedger::RunningChoice(const RequestId& request) const {
  const Entry& entry = open_.at(request);
  for (uint32_t i = 0; i < entry.choices.size(); ++i) {
    const Choice& choice = entry.choices[i];
    if (choice.count > 0 && choice.finish == FinishReason::kNone && !choice.stopped) return i;
  }
  return std::nullopt;
}

std::string RequestLedger::DescribeOpen() const {
  std::string text;
  for (const auto& [request, entry] : open_) {
    text += " " + request.ToString() + " at g" + std::to_string(entry.gateway) + " with";
    for (const Choice& choice : entry.choices) text += " " + std::to_string(choice.count);
    text += " of " + std::to_string(entry.record.stop.max_tokens) + " tokens;";
  }
  return text;
}

}  // namespace muselet::testing
