#include "scheduler/route/request_table.h"

#include <algorithm>

#include "base/check.h"

namespace muselet {
namespace {

constexpr size_t kClosedMax = 65'536;

}  // namespace

TicketCost OpenRequest::cost() const {
  const uint32_t sequences = std::max(place.choices, 1U);
  return {sequences, place.prompt_tokens + uint64_t{sequences} * place.max_tokens};
}

OpenRequest* RequestTable::Find(const RequestId& request) {
  const auto found = open_.find(request);
  return found == open_.end() ? nullptr : &found->second;
}

OpenRequest& RequestTable::Open(const std::string& gateway, const Place& place, int64_t now_us) {
  const auto [entry, added] = open_.try_emplace(place.request);
  CHECK(added, "request ", place.request.ToString(), " is open already");
  OpenRequest& open = entry->second;
  open.place = place;
  open.gateway = gateway;
  open.arrived_us = now_us;
  constexpr int64_t kFarUs = int64_t{1} << 60;
  open.deadline_us = place.timeout_us > 0 ? now_us + std::min(place.timeout_us, kFarUs) : 0;
  open.arrival = ++arrivals_;
  lines_[place.model][{place.request_class, open.arrival}] = place.request;
  ++waiting_count_;
  return open;
}

void RequestTable::LeaveLine(const OpenRequest& open) {
  const auto line = lines_.find(open.place.model);
  line->second.erase({open.place.request_class, open.arrival});
  if (line->second.empty()) lines_.erase(line);
  --waiting_count_;
}

void RequestTable::MarkPlaced(OpenRequest& open, const Replica& replica, int64_t now_us) {
  if (!open.placed()) LeaveLine(open);
  open.replica = replica.info.replica;
  open.epoch = replica.info.epoch;
  open.seen_us = now_us;
}

void RequestTable::Drop(const RequestId& request) {
  const auto found = open_.find(request);
  if (found == open_.end()) return;
  if (!found->second.placed()) LeaveLine(found->second);
  open_.erase(found);
}

void RequestTable::Close(const RequestId& request, std::optional<Message> answer, int64_t now_us) {
  const auto found = open_.find(request);
  if (found == open_.end()) return;
  const uint32_t attempt = found->second.place.attempt;
  std::string replica = found->second.replica;
  Drop(request);
  RememberClosed(request, attempt, std::move(answer), now_us);
  closed_[request].replica = std::move(replica);
}

void RequestTable::RememberClosed(const RequestId& request, uint32_t attempt,
                                  std::optional<Message> answer, int64_t now_us) {
  closed_order_.emplace_back(now_us, request);
  closed_[request] = {attempt, std::move(answer), now_us, {}};
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

OpenRequest* RequestTable::FirstWaiting(const std::string& model) {
  const auto line = lines_.find(model);
  return line == lines_.end() ? nullptr : Find(line->second.begin()->second);
}

std::vector<std::string> RequestTable::WaitingModels() const {
  std::vector<std::string> models;
  for (const auto& [model, line] : lines_) models.push_back(model);
  return models;
}

}  // namespace muselet
