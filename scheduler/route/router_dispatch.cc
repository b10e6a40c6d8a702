// The line: who comes next, and where to.
#include <algorithm>
#include <utility>

#include "scheduler/route/router.h"

namespace muselet {
namespace {

constexpr double kBatchFloor = 0.02;  // of the tokens placed while batch work waits
constexpr size_t kBatch = static_cast<size_t>(RequestClass::kBatch);
// How many behind the first of a surface are tried when that one has wishes of its own.
constexpr int kLookahead = 4;
constexpr size_t kObservationsMax = 100'000;

}  // namespace

void Router::Dispatch(const std::string& model) {
  ModelLine* line = requests_.Line(model);
  if (line == nullptr) return;
  line->stuck = false;
  TryLine(model);
}

void Router::DispatchAll() {
  for (const std::string& model : requests_.WaitingModels()) Dispatch(model);
}

std::vector<size_t> Router::ClassOrder(const ModelLine& line) const {
  bool floor = false;
  if (!line.classes[kBatch].empty()) {
    const RequestId& first = line.classes[kBatch].begin()->second.begin()->second;
    const double due = kBatchFloor * line.floor_all - line.floor_batch;
    floor = due >= static_cast<double>(requests_.open().at(first).cost(0).tokens);
  }
  return floor ? std::vector<size_t>{kBatch, 0, 1} : std::vector<size_t>{0, 1, kBatch};
}

std::vector<SurfaceId> Router::SurfaceOrder(const ModelLine& line, size_t class_index) const {
  std::vector<std::pair<double, SurfaceId>> order;
  for (const auto& [surface, requests] : line.classes[class_index])
    if (ledger_.MayRun(surface)) order.emplace_back(ledger_.Virtual(surface), surface);
  std::sort(order.begin(), order.end());
  std::vector<SurfaceId> surfaces;
  for (const auto& [served, surface] : order) surfaces.push_back(surface);
  return surfaces;
}

// Whoever a replica is kept free for is not kept waiting by those before it in the line, who wait
// for that replica as well.
void Router::TryReserved(const std::string& model) {
  for (const Replica* replica : replicas_.OfModel(model)) {
    if (!replica->reserved_for || replica->held() > 0) continue;
    OpenRequest* open = requests_.Find(*replica->reserved_for);
    if (open != nullptr && !open->placed()) (void)Try(*open);
  }
}

// Places the first that finds room, in the order of the line, until none does.
void Router::TryLine(const std::string& model) {
  TryReserved(model);
  while (ModelLine* line = requests_.Line(model)) {
    Tried result = Tried::kNoRoom;
    for (const size_t class_index : ClassOrder(*line)) {
      for (const SurfaceId surface : SurfaceOrder(*line, class_index)) {
        const Tried tried = TrySurface(model, class_index, surface);
        if (tried != Tried::kNoRoom) result = tried;
        if (tried == Tried::kGone) break;
      }
      if (result == Tried::kGone) break;
    }
    if (result == Tried::kGone) continue;
    line->stuck = result == Tried::kNoRoom;
    return;
  }
}

Router::Tried Router::TrySurface(const std::string& model, size_t class_index, SurfaceId surface) {
  const auto& requests = requests_.Line(model)->classes[class_index].at(surface);
  int tried = 0;
  for (const auto& [arrival, request] : requests) {
    const Tried result = Try(*requests_.Find(request));
    if (result != Tried::kNoRoomForIt || ++tried > kLookahead) return result;
  }
  return Tried::kNoRoomForIt;
}

Router::Tried Router::Try(OpenRequest& open) {
  const std::string& model = open.place.model;
  const std::vector<Replica*>& replicas = replicas_.OfModel(model);
  PlacementQuery query{.place = &open.place, .owner = open.owner, .failed = open.failed};
  query.prefixes = replicas_.FindPrefix(model, open.place.block_hashes);
  query.block_tokens = replicas_.BlockTokensOf(model);
  query.speed = speeds_[model];
  const Placement placement = chooser_.Choose(replicas, query);
  if (placement.replica == nullptr) {
    if (const auto fits = CheckFits(open.place)) {
      RefuseOpen(RequestId(open.place.request), *fits);
      return Tried::kGone;
    }
  }
  const int64_t left_us = open.deadline_us - now_us_;
  if (open.deadline_us != 0 && placement.predicted_us > left_us) {
    RefuseOpen(
        RequestId(open.place.request),
        {RefusalReason::kDeadline, DeadlineExceeded("the first token would take about " +
                                                    std::to_string(placement.predicted_us / 1000) +
                                                    " ms, the request's time is over in " +
                                                    std::to_string(left_us / 1000) + " ms")});
    return Tried::kGone;
  }
  if (placement.replica == nullptr)
    return placement.room_for_others ? Tried::kNoRoomForIt : Tried::kNoRoom;
  counts_.prompt_tokens += open.place.prompt_tokens;
  counts_.cached_prompt_tokens += placement.cached_tokens;
  Assign(open, *placement.replica, placement.cached_tokens);
  return Tried::kGone;
}

void Router::Assign(OpenRequest& open, Replica& replica, uint32_t cached_tokens) {
  if (open.placed()) {
    FreeTicket(open);
  } else {
    ++counts_.tickets;
    const int64_t waited_us = now_us_ - open.arrived_us;
    if (queue_times_us_.size() < kObservationsMax) queue_times_us_.push_back(waited_us);
    if (waited_us > 0) ledger_.CountGrant(open.owner.surface, now_us_);
    CountFloor(open, open.cost(cached_tokens));
  }
  requests_.MarkPlaced(open, replica, cached_tokens, now_us_);
  replica.AddTicket(open.place.request, open.cost(cached_tokens));
  if (replica.reserved_for == open.place.request) replica.reserved_for.reset();
  if (open.place.alone) replica.alone = open.place.request;
  SendTicket(open);
}

void Router::CountFloor(const OpenRequest& open, const TicketCost& cost) {
  ModelLine* line = requests_.Line(open.place.model);
  if (line == nullptr) return;
  if (line->classes[kBatch].empty()) {
    line->floor_all = line->floor_batch = 0;
    return;
  }
  const auto tokens = static_cast<double>(cost.tokens);
  line->floor_all += tokens;
  if (open.owner.request_class == RequestClass::kBatch) line->floor_batch += tokens;
}

void Router::SendTicket(const OpenRequest& open) {
  const Replica* replica = replicas_.Find(open.replica);
  if (replica == nullptr) return;
  Ticket ticket;
  ticket.request = open.place.request;
  ticket.attempt = open.place.attempt;
  ticket.replica = open.replica;
  ticket.endpoint = replica->info.endpoint;
  ticket.epoch = open.epoch;
  ticket.quota = ledger_.Quota(open.owner.surface, now_us_);
  ticket.numerics_id = replica->info.numerics_id;
  Send(open.gateway, std::move(ticket));
}

// A suspect that waits no more needs no empty replica.
void Router::FreeReservations() {
  for (auto& [name, replica] : replicas_.all()) {
    if (!replica.reserved_for) continue;
    const OpenRequest* open = requests_.Find(*replica.reserved_for);
    if (open == nullptr || open->placed()) replica.reserved_for.reset();
  }
}

}  // namespace muselet
