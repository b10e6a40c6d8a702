#include "scheduler/route/surface_ledger.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace muselet {
namespace {

constexpr size_t kOpenSurfacesMax = 1000;
constexpr double kPaceFadesUs = 5e6;

size_t IndexOf(RequestClass request_class) {
  return static_cast<size_t>(request_class);
}

}  // namespace

SurfaceLedger::SurfaceLedger(const std::vector<SurfaceOptions>& surfaces)
    : open_(surfaces.empty()) {
  for (const SurfaceOptions& surface : surfaces) Add(surface);
}

SurfaceId SurfaceLedger::Add(const SurfaceOptions& options) {
  const auto id = static_cast<SurfaceId>(accounts_.size());
  Account& account = accounts_.emplace_back();
  account.options = options;
  account.options.share = std::max(options.share, 1e-6);
  account.requests = TokenBucket(options.requests_per_minute);
  account.tokens = TokenBucket(options.tokens_per_minute);
  by_name_[options.name] = id;
  Resize(account);
  return id;
}

std::optional<SurfaceId> SurfaceLedger::Find(std::string_view surface) {
  const auto found = by_name_.find(surface);
  if (found != by_name_.end()) return found->second;
  if (!open_) return {};
  SurfaceOptions options;
  options.name = accounts_.size() < kOpenSurfacesMax ? std::string(surface) : "others";
  const auto others = by_name_.find(options.name);
  return others != by_name_.end() ? others->second : Add(options);
}

std::string SurfaceLedger::Names() const {
  std::string names;
  for (const auto& [name, id] : by_name_) names += (names.empty() ? "" : ", ") + name;
  return names;
}

// --- quotas ---

void SurfaceLedger::Resize(Account& account) const {
  const auto share = [&](uint64_t limit) { return static_cast<double>(limit) / schedulers_; };
  account.requests.Resize(share(account.options.requests_per_minute));
  account.tokens.Resize(share(account.options.tokens_per_minute));
}

void SurfaceLedger::SetSchedulerCount(uint32_t count) {
  if (std::max(count, 1U) == schedulers_) return;
  schedulers_ = std::max(count, 1U);
  for (Account& account : accounts_) Resize(account);
}

Status SurfaceLedger::Charge(SurfaceId surface, uint64_t tokens, int64_t now_us,
                             int64_t* retry_us) {
  Account& account = accounts_[surface];
  account.requests.Fill(now_us);
  account.tokens.Fill(now_us);
  const auto amount = static_cast<double>(tokens);
  const std::string who = "surface '" + account.options.name + "' ";
  if (!account.requests.Has(1)) {
    *retry_us = account.requests.TimeUntilUs(1);
    return ResourceExhausted(who + "has used its " +
                             std::to_string(account.options.requests_per_minute) +
                             " requests a minute");
  }
  if (!account.tokens.Has(amount)) {
    *retry_us = account.tokens.TimeUntilUs(amount);
    return ResourceExhausted(who + "has used its " +
                             std::to_string(account.options.tokens_per_minute) +
                             " tokens a minute; this request may take " + std::to_string(tokens));
  }
  account.requests.Take(1);
  account.tokens.Take(amount);
  return OkStatus();
}

void SurfaceLedger::Refund(SurfaceId surface, bool request, uint64_t tokens) {
  if (request) accounts_[surface].requests.Return(1);
  accounts_[surface].tokens.Return(static_cast<double>(tokens));
}

QuotaState SurfaceLedger::Quota(SurfaceId surface, int64_t now_us) {
  Account& account = accounts_[surface];
  account.requests.Fill(now_us);
  account.tokens.Fill(now_us);
  const auto remaining = [&](const TokenBucket& bucket, uint64_t limit) {
    const auto left = static_cast<uint64_t>(bucket.level() * schedulers_ + 1e-6);
    return std::min(left, limit);
  };
  QuotaState quota;
  quota.requests_limit = account.options.requests_per_minute;
  quota.requests_remaining = remaining(account.requests, quota.requests_limit);
  quota.requests_reset_us = account.requests.TimeUntilFullUs();
  quota.tokens_limit = account.options.tokens_per_minute;
  quota.tokens_remaining = remaining(account.tokens, quota.tokens_limit);
  quota.tokens_reset_us = account.tokens.TimeUntilFullUs();
  return quota;
}

bool SurfaceLedger::MayRun(SurfaceId surface) const {
  const Account& account = accounts_[surface];
  if (account.options.running_max == 0) return true;
  return account.placed < (account.options.running_max + schedulers_ - 1) / schedulers_;
}

// --- who waits and who runs ---

double SurfaceLedger::Virtual(SurfaceId surface) const {
  const Account& account = accounts_[surface];
  return account.served + static_cast<double>(account.placed_tokens) / account.options.share;
}

uint64_t SurfaceLedger::WaitingOf(SurfaceId surface) const {
  const Account& account = accounts_[surface];
  return account.waiting[0] + account.waiting[1] + account.waiting[2];
}

void SurfaceLedger::EnterLine(SurfaceId surface, RequestClass request_class, uint64_t prompt_tokens,
                              int64_t now_us) {
  Account& account = accounts_[surface];
  Fade(account, WaitingOf(surface) > 0, now_us);
  if (account.waiting[IndexOf(request_class)] == 0) {
    double least = std::numeric_limits<double>::infinity();
    for (SurfaceId other = 0; other < accounts_.size(); ++other)
      if (other != surface && accounts_[other].waiting[IndexOf(request_class)] > 0)
        least = std::min(least, Virtual(other));
    if (std::isinf(least)) least = least_[IndexOf(request_class)];
    account.served += std::max(0.0, least - Virtual(surface));
  }
  ++account.waiting[IndexOf(request_class)];
  account.waiting_tokens += prompt_tokens;
}

void SurfaceLedger::LeaveLine(SurfaceId surface, RequestClass request_class, uint64_t prompt_tokens,
                              int64_t now_us) {
  Account& account = accounts_[surface];
  Fade(account, true, now_us);
  --account.waiting[IndexOf(request_class)];
  account.waiting_tokens -= prompt_tokens;
  least_[IndexOf(request_class)] = Virtual(surface);
}

void SurfaceLedger::Place(SurfaceId surface, uint64_t tokens) {
  accounts_[surface].placed_tokens += tokens;
  ++accounts_[surface].placed;
}

void SurfaceLedger::EndPlaced(SurfaceId surface, uint64_t tokens, bool unreported) {
  accounts_[surface].placed_tokens -= tokens;
  --accounts_[surface].placed;
  if (unreported) CountServed(surface, tokens);
}

void SurfaceLedger::CountServed(SurfaceId surface, uint64_t tokens) {
  Account& account = accounts_[surface];
  account.served += static_cast<double>(tokens) / account.options.share;
}

Status SurfaceLedger::CheckLine(SurfaceId surface) const {
  const Account& account = accounts_[surface];
  const SurfaceOptions& options = account.options;
  const std::string who = " of surface '" + options.name + "' wait already";
  if (options.waiting_requests_max > 0 && WaitingOf(surface) > options.waiting_requests_max)
    return ResourceExhausted(std::to_string(options.waiting_requests_max) + " requests" + who);
  if (options.waiting_tokens_max > 0 && account.waiting_tokens > options.waiting_tokens_max &&
      WaitingOf(surface) > 1)
    return ResourceExhausted("requests of " + std::to_string(options.waiting_tokens_max) +
                             " prompt tokens" + who);
  return OkStatus();
}

// --- how long the line lasts ---

void SurfaceLedger::Fade(Account& account, bool waits, int64_t now_us) {
  const auto passed = static_cast<double>(std::max<int64_t>(now_us - account.pace_us, 0));
  const double keep = account.pace_us == 0 ? 0 : std::exp(-passed / kPaceFadesUs);
  account.grants *= keep;
  account.waited_us = account.waited_us * keep + (waits && account.pace_us != 0 ? passed : 0);
  account.pace_us = now_us;
}

void SurfaceLedger::CountGrant(SurfaceId surface, int64_t now_us) {
  Fade(accounts_[surface], true, now_us);
  accounts_[surface].grants += 1;
}

std::optional<int64_t> SurfaceLedger::WaitUs(SurfaceId surface, int64_t now_us) {
  Account& account = accounts_[surface];
  const uint64_t waiting = WaitingOf(surface);
  if (waiting == 0) return 0;
  Fade(account, true, now_us);
  constexpr double kLeastSeenUs = 200e3;
  if (account.waited_us < kLeastSeenUs) return {};
  const double pace = std::max(account.grants, 0.1) / account.waited_us;
  return static_cast<int64_t>(static_cast<double>(waiting) / pace);
}

}  // namespace muselet
