#include "scheduler/route/replica.h"

#include <algorithm>
#include <utility>

namespace muselet {
namespace {

// What a sequence that we know nothing about counts for.
constexpr uint64_t kForeignSequenceTokens = 512;

bool SameOwner(const WorkOwner& a, const WorkOwner& b) {
  return a.surface == b.surface && a.request_class == b.request_class;
}

}  // namespace

void Replica::SumPending() {
  pending_tokens = 0;
  pending_of_many = false;
  for (const PendingPrefill& prefill : pending) {
    pending_tokens += prefill.tokens;
    pending_of_many |= !SameOwner(prefill.owner, pending.front().owner);
  }
  if (!pending.empty()) pending_owner = pending.front().owner;
}

bool Replica::Fits(uint32_t prompt_tokens) const {
  return info.context_tokens == 0 || prompt_tokens < info.context_tokens;
}

uint64_t Replica::HeldFor(RequestClass request_class) const {
  uint64_t sequences = foreign_sequences;
  for (size_t i = 0; i <= static_cast<size_t>(request_class); ++i) sequences += class_sequences[i];
  return sequences;
}

bool Replica::HasCredit(uint32_t sequences, RequestClass request_class) const {
  const uint64_t slots = std::max<uint64_t>(info.sequences_max, 1);
  const uint64_t credit = slots + (slots + 3) / 4;
  return held() == 0 ||
         (HeldFor(request_class) + sequences <= credit && held() + sequences <= 2 * credit);
}

bool Replica::HasMemory(uint32_t prompt_tokens) const {
  if (held() == 0 || !kv_free_tokens) return true;
  if (prompt_tokens + pending_tokens <= *kv_free_tokens) return true;
  uint64_t promised = prompt_tokens;
  for (const PendingPrefill& prefill : pending)
    if (!prefill.reported) promised += prefill.tokens;
  return promised <= *kv_free_tokens;
}

uint64_t Replica::LoadTokens() const {
  return ticket_tokens + foreign_sequences * kForeignSequenceTokens;
}

double Replica::QueueAhead(const WorkOwner& owner, uint64_t own_tokens) const {
  auto ahead = static_cast<double>(foreign_prefill);
  if (pending.empty()) return ahead;
  if (!pending_of_many && SameOwner(pending_owner, owner))
    return ahead + static_cast<double>(pending_tokens);
  double own_surface = 0;
  bool others = false;
  for (const PendingPrefill& prefill : pending) {
    const bool same_class = prefill.owner.request_class == owner.request_class;
    const bool own = same_class && prefill.owner.surface == owner.surface;
    if (own) own_surface += static_cast<double>(prefill.tokens);
    others |= same_class && !own;
    if (prefill.owner.request_class < owner.request_class)
      ahead += static_cast<double>(prefill.tokens);
  }
  ahead += own_surface;
  if (!others) return ahead;
  // Of another surface of the class no more is computed meanwhile than its share of the time.
  for (size_t i = 0; i < pending.size(); ++i) {
    const WorkOwner& other = pending[i].owner;
    if (other.request_class != owner.request_class || other.surface == owner.surface) continue;
    const auto same = [&](const PendingPrefill& p) { return SameOwner(p.owner, other); };
    if (std::any_of(pending.begin(), pending.begin() + static_cast<ptrdiff_t>(i), same)) continue;
    double tokens = 0;
    for (size_t j = i; j < pending.size(); ++j)
      if (same(pending[j])) tokens += static_cast<double>(pending[j].tokens);
    const double fair = other.share / owner.share * (own_surface + static_cast<double>(own_tokens));
    ahead += std::min(tokens, fair);
  }
  return ahead;
}

void Replica::AddTicket(const RequestId& request, const TicketCost& cost) {
  RemoveTicket(request);
  tickets[request] = cost;
  ticket_sequences += cost.sequences;
  class_sequences[static_cast<size_t>(cost.owner.request_class)] += cost.sequences;
  ticket_tokens += cost.tokens;
  // A request that it is known to hold already was counted in its report.
  if (cost.prefill > 0 && !active.contains(request))
    pending.push_back({request, cost.prefill, false, cost.owner});
  SumPending();
  if (const auto held = active.find(request); held != active.end())
    foreign_sequences -= held->second;
}

void Replica::RemoveTicket(const RequestId& request) {
  const auto found = tickets.find(request);
  if (found == tickets.end()) return;
  const TicketCost& cost = found->second;
  ticket_sequences -= cost.sequences;
  class_sequences[static_cast<size_t>(cost.owner.request_class)] -= cost.sequences;
  ticket_tokens -= cost.tokens;
  tickets.erase(found);
  std::erase_if(pending, [&](const PendingPrefill& p) { return p.request == request; });
  SumPending();
  if (alone == request) alone.reset();
  // What the last report said of it is over; the next one tells whether something of it still runs.
  active.erase(request);
}

std::map<RequestId, TicketCost> Replica::TakeTickets() {
  ticket_sequences = 0;
  ticket_tokens = 0;
  class_sequences = {};
  pending.clear();
  SumPending();
  alone.reset();
  reserved_for.reset();
  return std::exchange(tickets, {});
}

void Replica::CountForeign() {
  foreign_sequences = 0;
  for (const auto& [request, sequences] : active)
    if (!tickets.contains(request)) foreign_sequences += sequences;
}

void Replica::Take(const Report& report, int64_t now_us) {
  reported = true;
  nonsense = false;
  draining = report.draining;
  report_sequence = report.sequence;
  last_report_us = now_us;
  steps = report.steps;
  step_us = report.step_us;
  prefill_token_us = report.prefill_token_us;
  schedulers = std::max(report.schedulers, 1U);
  kv_free_tokens.reset();
  if (report.kv_blocks_total > 0 && info.kv_tokens > 0) {
    const double free = 1.0 - static_cast<double>(report.kv_blocks_used) /
                                  static_cast<double>(report.kv_blocks_total);
    kv_free_tokens = static_cast<uint64_t>(free * static_cast<double>(info.kv_tokens));
  }
  active.clear();
  for (const SequenceId& sequence : report.active) ++active[sequence.request];
  CountForeign();
  TakePrefill(report.prefill_tokens);
}

// Prompts are computed about in the order in which they came: what is left is of the last ones.
void Replica::TakePrefill(uint64_t tokens) {
  for (auto prefill = pending.rbegin(); prefill != pending.rend(); ++prefill) {
    if (!active.contains(prefill->request)) continue;  // on its way
    prefill->reported = true;
    prefill->tokens = std::min(prefill->tokens, tokens);
    tokens -= prefill->tokens;
  }
  std::erase_if(pending, [](const PendingPrefill& p) { return p.tokens == 0; });
  SumPending();
  foreign_prefill = foreign_sequences > 0 ? tokens : 0;
}

}  // namespace muselet
