// Audits under way: requests that ended well and are computed again on another replica, token by
// token compared. Generation is a pure function, so any difference is a fault of one of the two.
//
// Owned by a gateway's loop.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "node/gateway/request_owner.h"

namespace muselet {

class AuditTable {
 public:
  // At most `audits_max` at once.
  explicit AuditTable(size_t audits_max) : audits_max_(audits_max) {}

  // The record to compute, of the lowest class and on another replica; nothing if as many as may be
  // are under way, or nothing was generated. `timeout_us` for all of it.
  std::optional<RequestRecord> Begin(AuditCase audit, int64_t timeout_us);
  size_t size() const { return audits_.size(); }
  bool Has(const RequestId& request) const { return audits_.contains(request); }
  // The choices that have been compared to their end: no more tokens of them are wanted.
  std::vector<uint32_t> Take(const Delivered& delivered);

  enum class Outcome { kMatch, kMismatch, kSkipped };
  struct Report {
    Outcome outcome = Outcome::kSkipped;
    std::string model;
    std::string replica;  // whose tokens were checked
    RequestId checked;    // the request that they were of
    // kMismatch: where the two differ first.
    uint32_t choice = 0;
    size_t index = 0;
  };
  // REQUIRES: Has(ended.request). It is gone then.
  Report End(const Ended& ended);

 private:
  struct Audit {
    Report report;
    std::vector<std::vector<TokenId>> expected;
    std::vector<size_t> compared;  // tokens, by choice
  };
  static void Differ(Audit& audit, uint32_t choice);

  const size_t audits_max_;
  std::unordered_map<RequestId, Audit> audits_;
};

}  // namespace muselet
