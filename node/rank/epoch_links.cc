#include "node/rank/epoch_links.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/clock.h"

namespace muselet {

Status EpochLinks::Make(const RankForm& form, const RankPosition& position, int64_t deadline_us) {
  const uint32_t stage = position.stage();
  const uint32_t column = position.tensor_rank();
  const auto edge = [&](uint32_t from_stage) {
    return "edge-" + std::to_string(from_stage) + "-" + std::to_string(column);
  };
  // All ranks in this order, so that none waits for one that waits for it.
  if (position.tensor > 1) {
    std::vector<uint32_t> members;
    for (uint32_t t = 0; t < position.tensor; ++t) members.push_back(stage * position.tensor + t);
    RETURN_IF_ERROR(
        MakeGroup("tensor-" + std::to_string(stage), members, column, form, deadline_us, tensor_));
  }
  if (stage > 0) {
    RETURN_IF_ERROR(MakeGroup(edge(stage - 1), {position.rank - position.tensor, position.rank}, 1,
                              form, deadline_us, previous_));
  }
  if (stage + 1 < position.pipeline) {
    RETURN_IF_ERROR(MakeGroup(edge(stage), {position.rank, position.rank + position.tensor}, 0,
                              form, deadline_us, next_));
  }
  return OkStatus();
}

Status EpochLinks::MakeGroup(const std::string& name, const std::vector<uint32_t>& members,
                             uint32_t own, const RankForm& form, int64_t deadline_us,
                             GroupPointer& group) {
  RankGroupSpec spec;
  spec.name = name;
  spec.rank = own;
  spec.size = static_cast<uint32_t>(members.size());
  spec.message_bytes_max = RankModel::kMessageBytesMax;
  spec.deadline_us = deadline_us;
  const RankPlace& here = form.places[members[own]];
  const bool one_node = std::all_of(members.begin(), members.end(),
                                    [&](uint32_t member) { return form.places[member] == here; });
  ASSIGN_OR_RETURN(std::unique_ptr<RankGroup> made, one_node
                                                        ? MakeSharedMemoryGroup(spec, *this)
                                                        : MakeGlooGroup(spec, here.host, *this));
  const std::lock_guard lock(mutex_);
  group = std::move(made);
  if (!aborted_.ok()) group->Abort(aborted_);
  return aborted_;
}

RankLinks EpochLinks::links() const {
  const std::lock_guard lock(mutex_);
  return {tensor_.get(), previous_.get(), next_.get()};
}

void EpochLinks::OnValue(const std::string& key, std::string value) {
  const std::lock_guard lock(mutex_);
  values_.emplace(key, std::move(value));
  changed_.notify_all();
}

void EpochLinks::Abort(const std::string& reason, bool on_purpose) {
  std::vector<GroupPointer> groups;
  {
    const std::lock_guard lock(mutex_);
    if (!aborted_.ok()) return;
    aborted_ = Unavailable(reason);
    for (const GroupPointer& group : {tensor_, previous_, next_}) {
      if (group) groups.push_back(group);
    }
    changed_.notify_all();
  }
  const Status told = on_purpose ? Cancelled(reason) : Unavailable(reason);
  for (const GroupPointer& group : groups) group->Abort(told);
}

Status EpochLinks::Put(const std::string& key, std::string value) {
  {
    const std::lock_guard lock(mutex_);
    RETURN_IF_ERROR(aborted_);
  }
  put_(key, std::move(value));
  return OkStatus();
}

Status EpochLinks::ended() {
  const std::lock_guard lock(mutex_);
  return aborted_;
}

Result<std::string> EpochLinks::Get(const std::string& key, int64_t deadline_us) {
  std::unique_lock lock(mutex_);
  while (true) {
    if (!aborted_.ok()) return aborted_;
    if (const auto found = values_.find(key); found != values_.end()) return found->second;
    const int64_t left_us = deadline_us - Clock::Real().NowUs();
    if (left_us <= 0) return DeadlineExceeded("no other rank has told \"" + key + "\" in time");
    changed_.wait_for(lock, std::chrono::microseconds(left_us));
  }
}

}  // namespace muselet
