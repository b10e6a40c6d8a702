#include "node/gateway/audit_table.h"

#include <algorithm>
#include <utility>

namespace muselet {

std::optional<RequestRecord> AuditTable::Begin(AuditCase audit, int64_t timeout_us) {
  size_t most = 0;
  for (const auto& choice : audit.generated) most = std::max(most, choice.size());
  if (audits_.size() >= audits_max_ || most == 0) return std::nullopt;
  RequestRecord record = std::move(audit.record);
  Audit entry;
  entry.report = {Outcome::kMatch, record.model, audit.replica, record.request};
  entry.compared.assign(audit.generated.size(), 0);
  entry.expected = std::move(audit.generated);
  record.request = RequestId::Random();
  record.join = RequestId();
  record.request_class = RequestClass::kBatch;
  record.timeout_us = timeout_us;
  record.waited_us = 0;
  record.avoid = audit.replica;
  record.sampling.logprobs = -1;
  record.sampling.prompt_logprobs = -1;
  // Where the text ended it, the answer was longer than what is to be compared.
  record.stop.max_tokens = std::max(static_cast<uint32_t>(most), record.stop.min_tokens);
  audits_.emplace(record.request, std::move(entry));
  return record;
}

void AuditTable::Differ(Audit& audit, uint32_t choice) {
  if (audit.report.outcome == Outcome::kMismatch) return;
  audit.report.outcome = Outcome::kMismatch;
  audit.report.choice = choice;
  audit.report.index = audit.compared[choice];
}

std::vector<uint32_t> AuditTable::Take(const Delivered& delivered) {
  Audit& audit = audits_.at(delivered.sequence.request);
  const uint32_t choice = delivered.sequence.choice;
  const std::vector<TokenId>& expected = audit.expected[choice];
  size_t& compared = audit.compared[choice];
  for (const SampledToken& token : delivered.tokens) {
    if (compared == expected.size()) break;
    if (token.id != expected[compared]) {
      Differ(audit, choice);
      // All that follows differs too.
      compared = expected.size();
      break;
    }
    ++compared;
  }
  const bool ended = delivered.finish != FinishReason::kNone;
  if (compared < expected.size()) {
    if (ended) Differ(audit, choice);
    return {};
  }
  return ended ? std::vector<uint32_t>() : std::vector<uint32_t>{choice};
}

AuditTable::Report AuditTable::End(const Ended& ended) {
  const auto found = audits_.find(ended.request);
  Report report = std::move(found->second.report);
  audits_.erase(found);
  if (!ended.status.ok() && report.outcome == Outcome::kMatch) report.outcome = Outcome::kSkipped;
  return report;
}

}  // namespace muselet
