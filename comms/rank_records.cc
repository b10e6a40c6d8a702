#include "comms/rank_records.h"

#include <utility>

#include "base/log.h"

namespace muselet {

RankRecords::RankRecords(std::string group, std::string_view transport, uint32_t rank)
    : group_(std::move(group)),
      transport_(transport),
      rank_(rank),
      ring_(RankGroup::kRecordsKept) {}

RankTicket RankRecords::Enqueued(RankOperation operation, uint32_t peer, size_t bytes) {
  const std::lock_guard lock(mutex_);
  const RankTicket ticket = enqueued_.load(std::memory_order_relaxed) + 1;
  ring_[ticket % ring_.size()] = {
      .ticket = ticket, .operation = operation, .peer = peer, .bytes = bytes, .completed = false};
  enqueued_.store(ticket, std::memory_order_release);
  return ticket;
}

void RankRecords::Completed(RankTicket ticket) {
  completed_.store(ticket, std::memory_order_release);
}

bool RankRecords::Fault(const Status& fault) {
  std::vector<RankOperationRecord> records;
  {
    const std::lock_guard lock(mutex_);
    if (faulted_.load(std::memory_order_relaxed) || fault.ok()) return false;
    const bool on_purpose = fault.code() == StatusCode::kCancelled;
    fault_ = on_purpose ? Unavailable(fault.message()) : fault;
    faulted_.store(true, std::memory_order_release);
    records = RecordsLocked();
  }
  const RankProgress now = progress();
  const auto tell = fault.code() == StatusCode::kCancelled ? LogDebug : LogWarn;
  tell("rank group ended", {{"group", group_},
                            {"transport", transport_},
                            {"rank", rank_},
                            {"reason", fault.ToString()},
                            {"enqueued", now.enqueued},
                            {"completed", now.completed},
                            {"operations", DescribeRankRecords(records)}});
  return true;
}

Status RankRecords::fault() const {
  const std::lock_guard lock(mutex_);
  return fault_;
}

RankProgress RankRecords::progress() const {
  // `completed` first: it can then never be ahead of `enqueued`.
  const RankTicket done = completed();
  return {.enqueued = enqueued_.load(std::memory_order_acquire), .completed = done};
}

std::vector<RankOperationRecord> RankRecords::records() const {
  const std::lock_guard lock(mutex_);
  return RecordsLocked();
}

std::vector<RankOperationRecord> RankRecords::RecordsLocked() const {
  const RankTicket last = enqueued_.load(std::memory_order_relaxed);
  const RankTicket done = completed();
  std::vector<RankOperationRecord> records;
  for (RankTicket t = last < ring_.size() ? 1 : last - ring_.size() + 1; t <= last; ++t) {
    records.push_back(ring_[t % ring_.size()]);
    records.back().completed = t <= done;
  }
  return records;
}

std::string DescribeRankRecords(const std::vector<RankOperationRecord>& records) {
  std::string text;
  for (const RankOperationRecord& record : records) {
    if (!text.empty()) text += ", ";
    text += std::to_string(record.ticket) + " ";
    text += RankOperationName(record.operation);
    if (record.operation == RankOperation::kSend) text += " to " + std::to_string(record.peer);
    if (record.operation == RankOperation::kRecv) text += " from " + std::to_string(record.peer);
    if (record.operation == RankOperation::kBroadcast) {
      text += " of " + std::to_string(record.peer);
    }
    text += " " + std::to_string(record.bytes) + " bytes";
    if (!record.completed) text += " (open)";
  }
  return text;
}

}  // namespace muselet
