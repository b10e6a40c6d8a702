// The choice of a replica for a request. Part of the Router; sans-I/O, one owner.
//
// Predicted time to the first token on a replica = (prompt tokens that are computed before it +
// its own that are not cached there) x time of a prompt token + a step + the wait for a slot.
// Replicas that differ by less than a tenth and a millisecond count as equal; then the least loaded
// for its size is taken, ties by name.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/messages.h"
#include "scheduler/route/prefix_index.h"
#include "scheduler/route/replica.h"
#include "scheduler/route/route_options.h"

namespace muselet {

// What a replica without reports of its own is taken for: the mean of its model.
struct ModelSpeed {
  double prefill_token_us = 0;  // 0 = nobody reported one
  double step_us = 0;
  void Learn(const Replica& replica);
};

struct PlacementQuery {
  const Place* place = nullptr;
  WorkOwner owner;
  std::string_view failed;  // held the attempt before; taken only where no other could ever be
  std::span<const PrefixIndex::Match> prefixes = {};
  uint32_t block_tokens = kHashBlockTokens;  // of a block of `prefixes`
  ModelSpeed speed = {};
};

struct Placement {
  Replica* replica = nullptr;  // null: none has room now
  uint32_t cached_tokens = 0;  // of the prompt, there
  // To the first token there; where no replica has room: the least of all that could take it. 0 =
  // no speed is known.
  int64_t predicted_us = 0;
  // Some replica has room for an ordinary request: it is this one that finds none.
  bool room_for_others = false;
};

class PlacementChooser {
 public:
  explicit PlacementChooser(const RouteOptions& options) : options_(options) {}

  // `replicas`: of the model, in the order of names. A suspect (Place.alone) that finds no empty
  // replica reserves one: nothing more is placed there until it is empty.
  Placement Choose(const std::vector<Replica*>& replicas, const PlacementQuery& query);

 private:
  struct Candidate {
    Replica* replica = nullptr;
    uint32_t cached_tokens = 0;
    double queue_us = 0;  // prompts computed before it
    double ttft_us = 0;
    bool room = false;    // slots and memory
    bool credit = false;  // and little enough to compute before
  };

  void Collect(const std::vector<Replica*>& replicas, const PlacementQuery& query);
  Candidate Weigh(Replica& replica, const PlacementQuery& query) const;
  uint32_t CachedTokens(const Replica& replica, const PlacementQuery& query) const;
  void Reserve(const RequestId& request);
  const Candidate* Pick(const PlacementQuery& query);
  const Candidate* PickPredicted() const;
  const Candidate* PickInTurn(const std::string& model);
  const Candidate* PickSticky(const Place& place) const;

  const RouteOptions options_;
  // Of the choice under way.
  std::vector<Candidate> candidates_;
  std::vector<uint32_t> cached_blocks_;  // by holder
  std::map<std::string, std::string> last_in_turn_;
};

}  // namespace muselet
