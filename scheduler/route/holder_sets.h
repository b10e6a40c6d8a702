// Sets of holders (replicas, as small numbers) that share memory when they are equal: blocks of one
// prefix are mostly held by the same replicas, so that a set costs 4 bytes a block that has it, and
// two sets are equal if their ids are. Part of the PrefixIndex; one owner.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace muselet {

class HolderSets {
 public:
  using Holder = uint16_t;
  using SetId = uint32_t;  // < 2^31
  static constexpr SetId kEmpty = 0;

  // The set with or without one holder more. The caller's reference to `set` is taken over by the
  // answer.
  SetId With(SetId set, Holder holder);
  SetId Without(SetId set, Holder holder);
  void Drop(SetId set);

  bool Contains(SetId set, Holder holder) const;
  uint32_t Size(SetId set) const;
  // Appends the members, in order.
  void Members(SetId set, std::vector<Holder>* members) const;
  uint64_t MemoryBytes() const;

 private:
  // Ids of up to 65,536 are sets of one; what is above is a place in shared_.
  static constexpr SetId kSingles = 65'536;
  struct Shared {
    std::vector<Holder> members;  // >= 2, sorted
    uint32_t references = 0;
  };
  struct Transition {
    SetId from = kEmpty;
    Holder holder = 0;
    SetId to = kEmpty;
  };

  static bool IsSingle(SetId set) { return set <= kSingles; }
  static SetId SingleOf(Holder holder) { return SetId{holder} + 1; }
  static uint64_t HashOf(std::span<const Holder> members);
  // A new reference to the set of these members.
  SetId Intern(const std::vector<Holder>& members);
  SetId Reference(SetId set);

  std::vector<Shared> shared_;
  std::vector<uint32_t> free_;
  std::unordered_multimap<uint64_t, uint32_t> by_content_;
  uint64_t member_bytes_ = 0;
  // The last step of each kind: the blocks of a message mostly take the same one.
  Transition last_with_;
  Transition last_without_;
  std::vector<Holder> scratch_;
};

}  // namespace muselet
