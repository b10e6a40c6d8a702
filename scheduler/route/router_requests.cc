// Requests: admission, quotas, the bounds of the line, and their end.
#include <algorithm>
#include <utility>

#include "scheduler/route/router.h"

namespace muselet {
namespace {

constexpr int64_t kRetryMaxUs = 60'000'000;

std::string JoinNames(const std::vector<ModelState>& models) {
  std::string text;
  for (const ModelState& model : models) text += (text.empty() ? "" : ", ") + model.model;
  return text.empty() ? "none" : text;
}

std::string Milliseconds(int64_t time_us) {
  return std::to_string(time_us / 1000) + " ms";
}

uint64_t TokensOf(const Place& place) {
  return place.prompt_tokens + uint64_t{std::max(place.choices, 1U)} * place.max_tokens;
}

}  // namespace

void Router::OnPlace(const std::string& gateway, const Place& place) {
  if (OpenRequest* open = requests_.Find(place.request)) {
    if (place.attempt > open->place.attempt) return OnLaterAttempt(gateway, place, *open);
    if (place.attempt < open->place.attempt) return;
    open->gateway = gateway;
    if (open->placed()) SendTicket(*open);
    return;
  }
  const RequestTable::Closed* closed = requests_.FindClosed(place.request);
  if (closed != nullptr && closed->attempt >= place.attempt) {
    if (closed->attempt == place.attempt && closed->answer) Send(gateway, *closed->answer);
    return;
  }
  // After an earlier attempt that ended, what still runs under this id is not ours to continue, if
  // it is not asked for.
  Replica* holder = closed == nullptr || IsRepeat(place) ? HolderOf(place) : nullptr;
  if (holder != nullptr) {
    const SurfaceId surface = ledger_.Find(place.surface).value_or(0);
    return Assign(requests_.Open(gateway, place, OwnerOf(place, surface), now_us_), *holder, 0);
  }
  if (closed == nullptr) return Admit(gateway, place, {});
  if (IsRepeat(place)) return Admit(gateway, place, {false, "", closed->charge});
  Admit(gateway, place, {false, closed->replica, closed->charge});
}

// The gateway gave the attempt before up, for a reason that it knows; or another gateway repeats
// the request: then it keeps what it has.
void Router::OnLaterAttempt(const std::string& gateway, const Place& place, OpenRequest& open) {
  if (IsRepeat(place)) {
    open.place.attempt = place.attempt;
    open.gateway = gateway;
    if (open.placed()) SendTicket(open);
    return;
  }
  FreeTicket(open);
  const Earlier earlier{false, open.replica, open.charge};
  requests_.Drop(place.request, now_us_);
  Admit(gateway, place, earlier);
}

WorkOwner Router::OwnerOf(const Place& place, SurfaceId surface) const {
  const SurfaceOptions& options = ledger_.options(surface);
  // A gateway may ask for less than the surface's class (audits), never for more; a surface that no
  // config names has no class of its own.
  const bool named = ledger_.named();
  const RequestClass request_class =
      named ? std::max(place.request_class, options.request_class) : place.request_class;
  return {request_class, surface, options.share};
}

void Router::Admit(const std::string& gateway, const Place& place, Earlier earlier) {
  const std::optional<SurfaceId> surface = ledger_.Find(place.surface);
  std::optional<Refusal> refusal;
  WorkOwner owner;
  if (!surface) {
    refusal = {RefusalReason::kSurface,
               PermissionDenied("surface '" + place.surface +
                                "' is not one of this cluster's: " + ledger_.Names())};
  } else {
    owner = OwnerOf(place, *surface);
    refusal = CheckAdmissible(place, owner, earlier.charge);
  }
  if (!earlier.failed.empty()) {
    Replica* failed = replicas_.Find(earlier.failed);
    if (failed != nullptr && failed->ready() &&
        CountFailure(failed->health, MayEject(*failed), options_, now_us_))
      NoteEjection(*failed, "attempt after attempt is given up there");
  }
  if (refusal) {
    Refuse(gateway, place, surface, *refusal);
    return requests_.RememberClosed(place.request, place.attempt, out_.back().message, now_us_);
  }
  OpenRequest& open = requests_.Open(gateway, place, owner, now_us_);
  open.may_run = earlier.may_run;
  open.failed = std::move(earlier.failed);
  open.charge = earlier.charge;
  const ModelLine& line = *requests_.Line(place.model);
  if (!line.stuck) {
    TryLine(place.model);
  } else if (ledger_.waiting(owner.surface, owner.request_class) == 1 &&
             ledger_.MayRun(owner.surface)) {
    (void)Try(open);  // the others were tried, and nothing became free since
  }
  CheckLine(place.request);
}

std::optional<Refusal> Router::CheckAdmissible(const Place& place, const WorkOwner& owner,
                                               Charge& charge) {
  if (!KnowsModel(place.model)) {
    return Refusal{RefusalReason::kModel,
                   NotFound("model '" + place.model +
                            "' does not exist; this cluster serves: " + JoinNames(table_.models))};
  }
  if (auto refusal = CheckFits(place)) return refusal;
  if (charge.made || HadBegun(place)) return {};
  const uint64_t tokens = TokensOf(place);
  int64_t retry_us = 0;
  const Status charged = ledger_.Charge(owner.surface, tokens, now_us_, &retry_us);
  if (!charged.ok()) return Refusal{RefusalReason::kQuota, charged, retry_us};
  charge = {true, place.prompt_tokens, tokens};
  return {};
}

std::optional<Refusal> Router::CheckFits(const Place& place) const {
  uint32_t context_max = 0;
  bool fits = false;
  bool any = false;
  for (const Replica* replica : replicas_.OfModel(place.model)) {
    any = any || replica->ready();
    fits = fits || replica->Fits(place.prompt_tokens);
    context_max = std::max(context_max, replica->info.context_tokens);
  }
  if (!any || fits) return {};
  return Refusal{RefusalReason::kTooLong,
                 InvalidArgument("the prompt has " + std::to_string(place.prompt_tokens) +
                                 " tokens, model '" + place.model + "' takes " +
                                 std::to_string(context_max) + ", the answer included")};
}

// --- the bounds of the line ---

// Of a request that found no place at once. One that had a ticket before is never refused here.
void Router::CheckLine(const RequestId& request) {
  const OpenRequest* open = requests_.Find(request);
  if (open == nullptr || open->placed() || HadBegun(open->place)) return;
  const Status bounds = ledger_.CheckLine(open->owner.surface);
  if (!bounds.ok()) return RefuseOpen(request, {RefusalReason::kLine, bounds});
  if (const auto refusal = CheckWait(*open)) return RefuseOpen(request, *refusal);
  if (requests_.waiting_count() <= options_.waiting_max) return;
  if (const OpenRequest* victim = requests_.Victim()) {
    RefuseOpen(
        RequestId(victim->place.request),
        {RefusalReason::kLine, ResourceExhausted(std::to_string(options_.waiting_max) +
                                                 " requests wait already: the line is full")});
  }
}

// Whether its turn would come in time, by the pace of late.
std::optional<Refusal> Router::CheckWait(const OpenRequest& open) {
  if (ReplicasReady(open.place.model) == 0) return {};
  const std::optional<int64_t> wait_us = ledger_.WaitUs(open.owner.surface, now_us_);
  if (!wait_us) return {};
  const SurfaceOptions& surface = ledger_.options(open.owner.surface);
  const int64_t left_us = open.deadline_us - now_us_;
  const bool late = open.deadline_us != 0 && *wait_us > left_us;
  const bool slow = surface.ttft_us > 0 && *wait_us > surface.ttft_us;
  if (!late && !slow) return {};
  const int64_t bound_us = late ? left_us : surface.ttft_us;
  return Refusal{RefusalReason::kOverload,
                 ResourceExhausted("the wait for a replica is about " + Milliseconds(*wait_us) +
                                   (late ? ", the request's time " : ", its surface's objective ") +
                                   Milliseconds(bound_us)),
                 *wait_us - bound_us};
}

void Router::Refuse(const std::string& gateway, const Place& place,
                    std::optional<SurfaceId> surface, const Refusal& why) {
  const StatusCode code = why.status.code();
  const bool later = code == StatusCode::kResourceExhausted || code == StatusCode::kUnavailable;
  const int64_t wait_us = std::clamp(why.retry_after_us, options_.retry_after_us,
                                     std::max(kRetryMaxUs, options_.retry_after_us));
  Refused refused{place.request,        place.attempt,       code,
                  why.status.message(), later ? wait_us : 0, {}};
  if (surface) {
    refused.quota = ledger_.Quota(*surface, now_us_);
    surface_counts_.resize(std::max(surface_counts_.size(), ledger_.size()));
    ++surface_counts_[*surface].refusals[static_cast<size_t>(why.reason)];
  }
  Send(gateway, std::move(refused));
  ++counts_.refusals;
  if (!surface) ++counts_.unknown_surfaces;
}

// It has used nothing.
void Router::RefuseOpen(const RequestId& request, const Refusal& why) {
  const OpenRequest& open = *requests_.Find(request);
  if (open.charge.made && !HadBegun(open.place))
    ledger_.Refund(open.owner.surface, true, open.charge.tokens);
  Refuse(open.gateway, open.place, open.owner.surface, why);
  requests_.Close(request, out_.back().message, now_us_);
}

// --- the end ---

void Router::OnRelease(const Release& release) {
  OpenRequest* open = requests_.Find(release.request);
  if (open == nullptr) {
    // It may have overtaken its Place.
    const RequestTable::Closed* closed = requests_.FindClosed(release.request);
    if (closed == nullptr || closed->attempt < release.attempt)
      requests_.RememberClosed(release.request, release.attempt, {}, now_us_);
    return;
  }
  if (open->place.attempt > release.attempt) return;
  open->place.attempt = release.attempt;
  const std::string model = open->place.model;
  if (Replica* replica = open->placed() ? replicas_.Find(open->replica) : nullptr)
    CountEnd(replica->health);
  Settle(*open, release);
  FreeTicket(*open);
  requests_.Close(release.request, {}, now_us_);
  Dispatch(model);
}

// What it was charged beyond what it used goes back to its surface.
void Router::Settle(OpenRequest& open, const Release& release) {
  if (!open.charge.made) return;
  const bool ran = open.placed() || HadBegun(open.place);
  const uint64_t used = ran ? open.charge.prompt_tokens + release.generated_tokens : 0;
  if (open.charge.tokens > used)
    ledger_.Refund(open.owner.surface, false, open.charge.tokens - used);
  open.charge.tokens = std::min(open.charge.tokens, used);
}

void Router::FreeTicket(const OpenRequest& open) {
  if (Replica* replica = open.placed() ? replicas_.Find(open.replica) : nullptr)
    replica->RemoveTicket(open.place.request);
}

void Router::ExpireWaiting() {
  std::vector<std::pair<RequestId, Refusal>> over;
  for (const auto& [request, open] : requests_.open()) {
    if (open.placed()) continue;
    if (auto refusal = Expired(open)) over.emplace_back(request, std::move(*refusal));
  }
  for (const auto& [request, why] : over) RefuseOpen(request, why);
}

std::optional<Refusal> Router::Expired(const OpenRequest& open) const {
  if (open.deadline_us != 0 && now_us_ >= open.deadline_us) {
    return Refusal{RefusalReason::kDeadline,
                   DeadlineExceeded("the request's time was over before a replica of model '" +
                                    open.place.model + "' was free")};
  }
  const auto ready = last_ready_us_.find(open.place.model);
  const int64_t since =
      std::max(open.arrived_us, ready == last_ready_us_.end() ? 0 : ready->second);
  if (now_us_ - since >= options_.place_timeout_us) {
    return Refusal{RefusalReason::kReplica,
                   Unavailable("no replica of model '" + open.place.model + "' is ready")};
  }
  // What waited twice its objective is no good to its client any more, and in the way of others.
  const int64_t ttft_us = ledger_.options(open.owner.surface).ttft_us;
  const bool shed = ttft_us > 0 && !HadBegun(open.place) && ReplicasReady(open.place.model) > 0 &&
                    now_us_ - open.arrived_us > std::max(2 * ttft_us, options_.retry_after_us);
  if (!shed) return {};
  return Refusal{
      RefusalReason::kOverload,
      ResourceExhausted("no replica was free for " + Milliseconds(now_us_ - open.arrived_us) +
                        ", far beyond its surface's objective")};
}

void Router::ExpireLeases() {
  std::vector<RequestId> over;
  for (const auto& [request, open] : requests_.open())
    if (open.placed() && now_us_ - open.seen_us > options_.ticket_lease_us) over.push_back(request);
  for (const RequestId& request : over) {
    OpenRequest& open = *requests_.Find(request);
    // A gateway that still waits for tokens of this attempt waits for nothing.
    const Lost lost{request, open.place.attempt,
                    "replica " + open.replica + " does not hold the request", false};
    Send(open.gateway, lost);
    FreeTicket(open);
    requests_.Close(request, lost, now_us_);
    ++counts_.losses;
  }
}

}  // namespace muselet
