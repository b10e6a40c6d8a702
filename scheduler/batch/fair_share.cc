#include "scheduler/batch/fair_share.h"

#include <algorithm>
#include <optional>

#include "base/check.h"

namespace muselet {

FairShare::Account* FairShare::Enter(const std::string& surface, double weight) {
  CHECK(weight > 0, "a surface's weight is positive");
  std::optional<double> least;
  for (const auto& [name, account] : accounts_) {
    if (account.sequences == 0) continue;
    least = std::min(least.value_or(account.served), account.served);
  }
  floor_ = std::max(floor_, least.value_or(floor_));
  Account& account = accounts_[surface];
  if (account.sequences++ == 0) account.served = std::max(account.served, floor_);
  if (!account.weighted) account.weight = weight;
  return &account;
}

void FairShare::Leave(const std::string& surface) {
  const auto found = accounts_.find(surface);
  CHECK(found != accounts_.end() && found->second.sequences > 0, "surface left twice: ", surface);
  if (--found->second.sequences > 0) return;
  // Names come off the wire: an idle one must not be remembered for ever.
  if (!found->second.weighted && found->second.served <= floor_) accounts_.erase(found);
  if (accounts_.size() > 1024) {
    std::erase_if(accounts_, [](const auto& entry) {
      return entry.second.sequences == 0 && !entry.second.weighted;
    });
  }
}

void FairShare::Charge(const std::string& surface, uint64_t tokens) {
  const auto found = accounts_.find(surface);
  if (found != accounts_.end()) found->second.Charge(tokens);
}

double FairShare::Served(const std::string& surface) const {
  const auto found = accounts_.find(surface);
  return found == accounts_.end() ? floor_ : found->second.served;
}

void FairShare::SetWeight(const std::string& surface, double weight) {
  CHECK(weight > 0, "a surface's weight is positive");
  accounts_[surface].weight = weight;
  accounts_[surface].weighted = true;
}

}  // namespace muselet
