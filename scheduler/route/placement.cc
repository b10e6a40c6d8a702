#include "scheduler/route/placement.h"

#include <algorithm>
#include <limits>

namespace muselet {
namespace {

constexpr double kPrefillTokenUs = 50;  // until somebody reports one
constexpr double kStepUs = 10'000;
constexpr double kLearnRate = 0.05;
constexpr uint64_t kAnswerTokens = 256;  // of an answer about whose length nothing is known
constexpr double kOverload = 1.25;       // of the mean load, for sticky placement

// a.load / a.size < b.load / b.size
bool LessLoaded(const Replica& a, const Replica& b) {
  const auto size = [](const Replica& r) { return std::max<uint64_t>(r.info.sequences_max, 1); };
  return a.LoadTokens() * size(b) < b.LoadTokens() * size(a);
}

void LearnMean(double& mean, double value) {
  if (value > 0) mean = mean == 0 ? value : mean + kLearnRate * (value - mean);
}

uint64_t Scatter(uint64_t x) {
  x = (x ^ (x >> 33)) * 0xFF51AFD7ED558CCDULL;
  x = (x ^ (x >> 33)) * 0xC4CEB9FE1A85EC53ULL;
  return x ^ (x >> 33);
}

uint64_t NameHash(std::string_view name) {
  uint64_t hash = 0xCBF29CE484222325ULL;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3ULL;
  return hash;
}

bool Avoided(const Replica& replica, const Place& place) {
  return std::find(place.avoid.begin(), place.avoid.end(), replica.info.replica) !=
         place.avoid.end();
}

}  // namespace

void ModelSpeed::Learn(const Replica& replica) {
  LearnMean(prefill_token_us, replica.prefill_token_us);
  LearnMean(step_us, static_cast<double>(replica.step_us));
}

uint32_t PlacementChooser::CachedTokens(const Replica& replica, const PlacementQuery& query) const {
  if (replica.holder >= cached_blocks_.size()) return 0;
  const uint64_t tokens = uint64_t{cached_blocks_[replica.holder]} * query.block_tokens;
  // The last token of a prompt is always computed.
  return static_cast<uint32_t>(
      std::min<uint64_t>(tokens, std::max(query.place->prompt_tokens, 1U) - 1));
}

PlacementChooser::Candidate PlacementChooser::Weigh(Replica& replica,
                                                    const PlacementQuery& query) const {
  const Place& place = *query.place;
  const uint32_t sequences = std::max(place.choices, 1U);
  Candidate candidate{.replica = &replica};
  candidate.cached_tokens = CachedTokens(replica, query);
  const uint32_t own = place.prompt_tokens - candidate.cached_tokens;
  const auto first_of = [](double a, double b, double c) { return a > 0 ? a : b > 0 ? b : c; };
  const double token_us =
      first_of(replica.prefill_token_us, query.speed.prefill_token_us, kPrefillTokenUs);
  const double step_us =
      first_of(static_cast<double>(replica.step_us), query.speed.step_us, kStepUs);
  candidate.queue_us = replica.QueueAhead(query.owner, own) * token_us;
  const uint64_t slots = std::max<uint64_t>(replica.info.sequences_max, 1);
  const uint64_t wanted = replica.HeldFor(query.owner.request_class) + sequences;
  if (wanted > slots && replica.held() > 0) {
    const uint64_t left = std::min(replica.LoadTokens() / replica.held(), kAnswerTokens) / 2;
    candidate.ttft_us =
        static_cast<double>((wanted - slots) * left) * step_us / static_cast<double>(slots);
  }
  candidate.ttft_us += candidate.queue_us + own * token_us + step_us;
  const bool empty = replica.held() == 0;
  candidate.room = !replica.alone && replica.HasCredit(sequences, query.owner.request_class) &&
                   replica.HasMemory(place.prompt_tokens) &&
                   (!replica.reserved_for || replica.reserved_for == place.request) &&
                   (!place.alone || empty) &&
                   (replica.health.state != HealthState::kProbing || empty);
  candidate.credit = candidate.room &&
                     (empty || candidate.queue_us < static_cast<double>(options_.replica_queue_us));
  return candidate;
}

// Who could take it, the worst health and the gateway's dislikes left out where there are others.
void PlacementChooser::Collect(const std::vector<Replica*>& replicas, const PlacementQuery& query) {
  const Place& place = *query.place;
  const bool all_avoided = place.avoid.empty() || std::all_of(replicas.begin(), replicas.end(),
                                                              [&](const Replica* replica) {
                                                                return Avoided(*replica, place);
                                                              });
  const auto suits = [&](const Replica& replica) {
    return replica.ready() && replica.Fits(place.prompt_tokens) &&
           (all_avoided || !Avoided(replica, place));
  };
  const auto fine = [&](const Replica& replica) {
    return replica.health.usable() && replica.info.replica != query.failed;
  };
  candidates_.clear();
  bool has_fine = false;
  for (const Replica* replica : replicas) has_fine |= suits(*replica) && fine(*replica);
  for (Replica* replica : replicas)
    if (suits(*replica) && (!has_fine || fine(*replica)))
      candidates_.push_back(Weigh(*replica, query));
  const auto avoided = [](const Candidate& candidate) {
    return candidate.replica->health.state == HealthState::kAvoided;
  };
  const bool healthy_has_room = std::any_of(
      candidates_.begin(), candidates_.end(),
      [&](const Candidate& candidate) { return candidate.credit && !avoided(candidate); });
  if (healthy_has_room) std::erase_if(candidates_, avoided);
}

const PlacementChooser::Candidate* PlacementChooser::PickPredicted() const {
  double best_us = std::numeric_limits<double>::infinity();
  bool credit = false;
  for (const Candidate& candidate : candidates_) {
    credit |= candidate.credit;
    if (candidate.room) best_us = std::min(best_us, candidate.ttft_us);
  }
  // Where all have their fill the line is here. A replica that has its fill, but has cached so much
  // of the prompt that it is still the fastest, takes it rather than that another computes it all.
  if (!credit) return nullptr;
  const auto most_us = static_cast<double>(4 * options_.replica_queue_us);
  const auto eligible = [&](const Candidate& candidate) {
    return candidate.credit || (candidate.room && candidate.queue_us < most_us);
  };
  best_us = std::numeric_limits<double>::infinity();
  for (const Candidate& candidate : candidates_)
    if (eligible(candidate)) best_us = std::min(best_us, candidate.ttft_us);
  const double good_us = best_us * 1.1 + 1000;
  const Candidate* best = nullptr;
  for (const Candidate& candidate : candidates_) {
    if (!eligible(candidate) || candidate.ttft_us > good_us) continue;
    if (best == nullptr || LessLoaded(*candidate.replica, *best->replica)) best = &candidate;
  }
  return best;
}

const PlacementChooser::Candidate* PlacementChooser::PickInTurn(const std::string& model) {
  std::string& last = last_in_turn_[model];
  const Candidate* first = nullptr;
  const Candidate* next = nullptr;
  for (const Candidate& candidate : candidates_) {
    if (!candidate.credit) continue;
    if (first == nullptr) first = &candidate;
    if (next == nullptr && candidate.replica->info.replica > last) next = &candidate;
  }
  const Candidate* chosen = next != nullptr ? next : first;
  if (chosen != nullptr) last = chosen->replica->info.replica;
  return chosen;
}

// Rendezvous hashing with a bound on the load: without a replica only its own prompts move.
const PlacementChooser::Candidate* PlacementChooser::PickSticky(const Place& place) const {
  const uint64_t key = place.block_hashes.empty()
                           ? place.request.low
                           : place.block_hashes[0].high ^ place.block_hashes[0].low;
  double load = 0;
  double size = 0;
  for (const Candidate& candidate : candidates_) {
    load += static_cast<double>(candidate.replica->LoadTokens());
    size += std::max(candidate.replica->info.sequences_max, 1U);
  }
  const uint64_t cost =
      place.prompt_tokens + uint64_t{std::max(place.choices, 1U)} * place.max_tokens;
  const Candidate* best = nullptr;
  uint64_t best_rank = 0;
  for (const Candidate& candidate : candidates_) {
    if (!candidate.credit) continue;
    const double own_size = std::max(candidate.replica->info.sequences_max, 1U);
    const double bound = kOverload * (load + static_cast<double>(cost)) * own_size / size;
    const bool light = static_cast<double>(candidate.replica->LoadTokens()) <= bound;
    // The overloaded come last.
    const uint64_t rank = (Scatter(key ^ NameHash(candidate.replica->info.replica)) >> 1) |
                          (light ? uint64_t{1} << 63 : 0);
    if (best != nullptr && rank <= best_rank) continue;
    best = &candidate;
    best_rank = rank;
  }
  return best;
}

const PlacementChooser::Candidate* PlacementChooser::Pick(const PlacementQuery& query) {
  switch (options_.policy) {
    case PlacementPolicy::kPredicted:
      return PickPredicted();
    case PlacementPolicy::kRoundRobin:
      return PickInTurn(query.place->model);
    case PlacementPolicy::kSticky:
      return PickSticky(*query.place);
    case PlacementPolicy::kLeastLoaded:
      break;
  }
  const Candidate* best = nullptr;
  for (const Candidate& candidate : candidates_) {
    if (!candidate.credit) continue;
    if (best == nullptr || LessLoaded(*candidate.replica, *best->replica)) best = &candidate;
  }
  return best;
}

void PlacementChooser::Reserve(const RequestId& request) {
  Replica* emptiest = nullptr;
  for (const Candidate& candidate : candidates_) {
    Replica& replica = *candidate.replica;
    if (replica.reserved_for == request) return;
    if (replica.reserved_for || replica.alone) continue;
    if (emptiest == nullptr || replica.held() < emptiest->held()) emptiest = &replica;
  }
  if (emptiest != nullptr) emptiest->reserved_for = request;
}

Placement PlacementChooser::Choose(const std::vector<Replica*>& replicas,
                                   const PlacementQuery& query) {
  cached_blocks_.clear();
  for (const PrefixIndex::Match& match : query.prefixes) {
    if (match.holder >= cached_blocks_.size()) cached_blocks_.resize(match.holder + 1);
    cached_blocks_[match.holder] = match.blocks;
  }
  Collect(replicas, query);
  Placement placement;
  if (candidates_.empty()) return placement;
  const Candidate* chosen = Pick(query);
  const bool known = query.speed.prefill_token_us > 0;
  if (chosen != nullptr) {
    placement.replica = chosen->replica;
    placement.cached_tokens = chosen->cached_tokens;
    if (known) placement.predicted_us = static_cast<int64_t>(chosen->ttft_us);
    return placement;
  }
  placement.room_for_others =
      std::any_of(candidates_.begin(), candidates_.end(), [&](const Candidate& candidate) {
        const Replica& replica = *candidate.replica;
        return !replica.alone && !replica.reserved_for &&
               replica.HasCredit(1, query.owner.request_class) &&
               candidate.queue_us < static_cast<double>(options_.replica_queue_us);
      });
  if (query.place->alone) Reserve(query.place->request);
  double least_us = candidates_.front().ttft_us;
  for (const Candidate& candidate : candidates_) least_us = std::min(least_us, candidate.ttft_us);
  if (known) placement.predicted_us = static_cast<int64_t>(least_us);
  return placement;
}

}  // namespace muselet
