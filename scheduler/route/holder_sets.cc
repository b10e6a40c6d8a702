#include "scheduler/route/holder_sets.h"

#include <algorithm>

namespace muselet {

uint64_t HolderSets::HashOf(std::span<const Holder> members) {
  uint64_t hash = 0xCBF29CE484222325ULL;
  for (const Holder member : members) hash = (hash ^ member) * 0x100000001B3ULL;
  return hash;
}

void HolderSets::Members(SetId set, std::vector<Holder>* members) const {
  if (set == kEmpty) return;
  if (IsSingle(set)) return members->push_back(static_cast<Holder>(set - 1));
  const std::vector<Holder>& list = shared_[set - kSingles - 1].members;
  members->insert(members->end(), list.begin(), list.end());
}

uint32_t HolderSets::Size(SetId set) const {
  if (IsSingle(set)) return set == kEmpty ? 0 : 1;
  return static_cast<uint32_t>(shared_[set - kSingles - 1].members.size());
}

bool HolderSets::Contains(SetId set, Holder holder) const {
  if (IsSingle(set)) return set == SingleOf(holder);
  const std::vector<Holder>& members = shared_[set - kSingles - 1].members;
  return std::binary_search(members.begin(), members.end(), holder);
}

HolderSets::SetId HolderSets::Reference(SetId set) {
  if (!IsSingle(set)) ++shared_[set - kSingles - 1].references;
  return set;
}

HolderSets::SetId HolderSets::Intern(const std::vector<Holder>& members) {
  if (members.empty()) return kEmpty;
  if (members.size() == 1) return SingleOf(members.front());
  const uint64_t hash = HashOf(members);
  const auto [first, last] = by_content_.equal_range(hash);
  for (auto it = first; it != last; ++it)
    if (shared_[it->second].members == members) return Reference(it->second + kSingles + 1);
  if (free_.empty()) {
    free_.push_back(static_cast<uint32_t>(shared_.size()));
    shared_.emplace_back();
  }
  const uint32_t place = free_.back();
  free_.pop_back();
  shared_[place] = {members, 1};
  member_bytes_ += members.size() * sizeof(Holder);
  by_content_.emplace(hash, place);
  return place + kSingles + 1;
}

void HolderSets::Drop(SetId set) {
  if (IsSingle(set)) return;
  const uint32_t place = set - kSingles - 1;
  Shared& shared = shared_[place];
  if (--shared.references > 0) return;
  const auto [first, last] = by_content_.equal_range(HashOf(shared.members));
  for (auto it = first; it != last; ++it) {
    if (it->second != place) continue;
    by_content_.erase(it);
    break;
  }
  member_bytes_ -= shared.members.size() * sizeof(Holder);
  shared = {};
  free_.push_back(place);
  // The id may come to mean another set.
  for (Transition* last_step : {&last_with_, &last_without_})
    if (last_step->from == set || last_step->to == set) *last_step = {};
}

HolderSets::SetId HolderSets::With(SetId set, Holder holder) {
  if (Contains(set, holder)) return set;
  if (set == kEmpty) return SingleOf(holder);
  SetId to = kEmpty;
  if (last_with_.from == set && last_with_.holder == holder) {
    to = Reference(last_with_.to);
  } else {
    scratch_.clear();
    Members(set, &scratch_);
    scratch_.insert(std::upper_bound(scratch_.begin(), scratch_.end(), holder), holder);
    to = Intern(scratch_);
    last_with_ = {set, holder, to};
  }
  Drop(set);
  return to;
}

HolderSets::SetId HolderSets::Without(SetId set, Holder holder) {
  if (!Contains(set, holder)) return set;
  if (IsSingle(set)) return kEmpty;
  SetId to = kEmpty;
  if (last_without_.from == set && last_without_.holder == holder) {
    to = Reference(last_without_.to);
  } else {
    scratch_.clear();
    Members(set, &scratch_);
    scratch_.erase(std::lower_bound(scratch_.begin(), scratch_.end(), holder));
    to = Intern(scratch_);
    last_without_ = {set, holder, to};
  }
  Drop(set);
  return to;
}

uint64_t HolderSets::MemoryBytes() const {
  constexpr uint64_t kNodeBytes = 40;  // of the index by content
  return shared_.capacity() * sizeof(Shared) + free_.capacity() * sizeof(uint32_t) +
         by_content_.size() * kNodeBytes + by_content_.bucket_count() * sizeof(void*) +
         member_bytes_;
}

}  // namespace muselet
