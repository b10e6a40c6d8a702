#include "scheduler/route/request_table.h"

#include <algorithm>
#include <tuple>

#include "base/check.h"

namespace muselet {
namespace {

constexpr size_t kClosedMax = 65'536;
// Of an answer, as far as shares are concerned before it is served.
constexpr uint64_t kAnswerTokens = 256;

size_t ClassIndex(const OpenRequest& open) {
  return static_cast<size_t>(open.owner.request_class);
}

}  // namespace

TicketCost OpenRequest::cost(uint32_t cached) const {
  const uint32_t sequences = std::max(place.choices, 1U);
  return {sequences, place.prompt_tokens + uint64_t{sequences} * place.max_tokens,
          place.prompt_tokens - std::min(cached, place.prompt_tokens), owner};
}

OpenRequest* RequestTable::Find(const RequestId& request) {
  const auto found = open_.find(request);
  return found == open_.end() ? nullptr : &found->second;
}

OpenRequest& RequestTable::Open(const std::string& gateway, const Place& place,
                                const WorkOwner& owner, int64_t now_us) {
  const auto [entry, added] = open_.try_emplace(place.request);
  CHECK(added, "request ", place.request.ToString(), " is open already");
  OpenRequest& open = entry->second;
  open.place = place;
  open.owner = owner;
  open.gateway = gateway;
  open.arrived_us = now_us;
  constexpr int64_t kFarUs = int64_t{1} << 60;
  open.deadline_us = place.timeout_us > 0 ? now_us + std::min(place.timeout_us, kFarUs) : 0;
  open.arrival = ++arrivals_;
  lines_[place.model].classes[ClassIndex(open)][owner.surface][open.arrival] = place.request;
  ++waiting_count_;
  ledger_.EnterLine(owner.surface, owner.request_class, place.prompt_tokens, now_us);
  return open;
}

void RequestTable::LeaveLine(const OpenRequest& open, int64_t now_us) {
  const auto line = lines_.find(open.place.model);
  auto& surfaces = line->second.classes[ClassIndex(open)];
  const auto surface = surfaces.find(open.owner.surface);
  surface->second.erase(open.arrival);
  if (surface->second.empty()) surfaces.erase(surface);
  if (line->second.empty()) lines_.erase(line);
  --waiting_count_;
  ledger_.LeaveLine(open.owner.surface, open.owner.request_class, open.place.prompt_tokens, now_us);
}

void RequestTable::MarkPlaced(OpenRequest& open, const Replica& replica, uint32_t cached,
                              int64_t now_us) {
  if (!open.placed()) {
    LeaveLine(open, now_us);
    const TicketCost cost = open.cost(cached);
    const uint64_t answer = std::min<uint64_t>(open.place.max_tokens, kAnswerTokens);
    open.placed_tokens = cost.prefill + cost.sequences * answer;
    open.served_unreported = replica.served.empty();
    ledger_.Place(open.owner.surface, open.placed_tokens);
  }
  open.replica = replica.info.replica;
  open.epoch = replica.info.epoch;
  open.seen_us = now_us;
}

void RequestTable::Drop(const RequestId& request, int64_t now_us) {
  const auto found = open_.find(request);
  if (found == open_.end()) return;
  const OpenRequest& open = found->second;
  if (open.placed()) {
    ledger_.EndPlaced(open.owner.surface, open.placed_tokens, open.served_unreported);
  } else {
    LeaveLine(open, now_us);
  }
  open_.erase(found);
}

void RequestTable::Close(const RequestId& request, std::optional<Message> answer, int64_t now_us) {
  const auto found = open_.find(request);
  if (found == open_.end()) return;
  const uint32_t attempt = found->second.place.attempt;
  std::string replica = found->second.replica;
  const Charge charge = found->second.charge;
  Drop(request, now_us);
  RememberClosed(request, attempt, std::move(answer), now_us);
  Closed& closed = closed_[request];
  closed.replica = std::move(replica);
  closed.charge = charge;
}

void RequestTable::RememberClosed(const RequestId& request, uint32_t attempt,
                                  std::optional<Message> answer, int64_t now_us) {
  closed_order_.emplace_back(now_us, request);
  closed_[request] = {attempt, std::move(answer), now_us, {}, {}};
  while (closed_order_.size() > kClosedMax) ForgetClosedBefore(closed_order_.front().first + 1);
}

const RequestTable::Closed* RequestTable::FindClosed(const RequestId& request) const {
  const auto found = closed_.find(request);
  return found == closed_.end() ? nullptr : &found->second;
}

void RequestTable::ForgetClosedBefore(int64_t then_us) {
  while (!closed_order_.empty() && closed_order_.front().first < then_us) {
    const auto found = closed_.find(closed_order_.front().second);
    // A later closing of the same request has its own entry in the order.
    if (found != closed_.end() && found->second.closed_us < then_us) closed_.erase(found);
    closed_order_.pop_front();
  }
}

ModelLine* RequestTable::Line(const std::string& model) {
  const auto line = lines_.find(model);
  return line == lines_.end() ? nullptr : &line->second;
}

std::vector<std::string> RequestTable::WaitingModels() const {
  std::vector<std::string> models;
  for (const auto& [model, line] : lines_) models.push_back(model);
  return models;
}

OpenRequest* RequestTable::Victim() {
  using Rank = std::tuple<size_t, double, uint64_t>;
  std::optional<Rank> worst;
  OpenRequest* victim = nullptr;
  for (const auto& [model, line] : lines_) {
    for (size_t i = 0; i < line.classes.size(); ++i) {
      for (const auto& [surface, requests] : line.classes[i]) {
        const double load =
            static_cast<double>(ledger_.WaitingOf(surface)) / ledger_.options(surface).share;
        for (auto last = requests.rbegin(); last != requests.rend(); ++last) {
          OpenRequest* open = Find(last->second);
          if (HadBegun(open->place)) continue;
          const Rank rank{i, load, last->first};
          if (!worst || rank > *worst) {
            worst = rank;
            victim = open;
          }
          break;
        }
      }
    }
  }
  return victim;
}

}  // namespace muselet
