// What the surfaces have used and may use: quotas, and who comes next. Part of the Router;
// sans-I/O, one owner.
//
// Shares: inside a class the surface goes first that has had the fewest tokens for its weight
// (virtual token counter, Sheng et al., "Fairness in Serving Large Language Models", OSDI'24).
// Counted are the tokens that all nodes report to have served, so that all schedulers agree, and
// what this scheduler placed and nobody reported yet. A surface that begins to wait is lifted to
// the least of those that wait: idling earns no credit.
//
// Quotas: each of n schedulers grants the n-th part. A request is charged once, with its prompt and
// all that it may generate, and gets back what it did not use when it ends.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/messages.h"
#include "base/status.h"
#include "scheduler/route/replica.h"
#include "scheduler/route/surface_options.h"
#include "scheduler/route/token_bucket.h"

namespace muselet {

class SurfaceLedger {
 public:
  // Empty: any surface may ask, with the default options; of the first 1,000 each has an account.
  explicit SurfaceLedger(const std::vector<SurfaceOptions>& surfaces);

  // None: no such surface.
  std::optional<SurfaceId> Find(std::string_view surface);
  // The config names them.
  bool named() const { return !open_; }
  std::string Names() const;
  size_t size() const { return accounts_.size(); }
  const SurfaceOptions& options(SurfaceId surface) const { return accounts_[surface].options; }

  // --- quotas ---
  void SetSchedulerCount(uint32_t count);
  // kResourceExhausted naming the quota; then nothing is charged, and `retry_us` is the time until
  // it would be.
  Status Charge(SurfaceId surface, uint64_t tokens, int64_t now_us, int64_t* retry_us);
  void Refund(SurfaceId surface, bool request, uint64_t tokens);
  QuotaState Quota(SurfaceId surface, int64_t now_us);
  bool MayRun(SurfaceId surface) const;

  // --- who waits and who runs ---
  void EnterLine(SurfaceId surface, RequestClass request_class, uint64_t prompt_tokens,
                 int64_t now_us);
  void LeaveLine(SurfaceId surface, RequestClass request_class, uint64_t prompt_tokens,
                 int64_t now_us);
  void Place(SurfaceId surface, uint64_t tokens);
  // `unreported`: its replica does not report what it serves, so that the estimate must do.
  void EndPlaced(SurfaceId surface, uint64_t tokens, bool unreported);
  void CountServed(SurfaceId surface, uint64_t tokens);
  double Virtual(SurfaceId surface) const;

  uint64_t waiting(SurfaceId surface, RequestClass request_class) const {
    return accounts_[surface].waiting[static_cast<size_t>(request_class)];
  }
  uint64_t WaitingOf(SurfaceId surface) const;
  // kResourceExhausted naming the bound that those who wait exceed.
  Status CheckLine(SurfaceId surface) const;

  // --- how long the line lasts ---
  // A ticket for one that had waited.
  void CountGrant(SurfaceId surface, int64_t now_us);
  // Until one that comes now has a ticket, by the pace of late; none: not known.
  std::optional<int64_t> WaitUs(SurfaceId surface, int64_t now_us);

 private:
  struct Account {
    SurfaceOptions options;
    double served = 0;  // tokens / share
    uint64_t placed_tokens = 0;
    uint32_t placed = 0;
    std::array<uint64_t, 3> waiting{};  // by class
    uint64_t waiting_tokens = 0;
    TokenBucket requests;
    TokenBucket tokens;
    // Both fade.
    double grants = 0;
    double waited_us = 0;
    int64_t pace_us = 0;
  };

  SurfaceId Add(const SurfaceOptions& options);
  void Resize(Account& account) const;
  static void Fade(Account& account, bool waits, int64_t now_us);

  const bool open_;
  std::deque<Account> accounts_;
  std::map<std::string, SurfaceId, std::less<>> by_name_;
  uint32_t schedulers_ = 1;
  std::array<double, 3> least_{};  // by class: the last known least counter of those that wait
};

}  // namespace muselet
