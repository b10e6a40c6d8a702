// How fast the router's core decides: 256 replicas, 8 million cached blocks, a steady load of
// conversations with reports and cache events between, on one core, without I/O. Prints decisions a
// second (all calls of the router counted), the time of a Place, and bytes a block.
//
//   ninja router_bench && bin/router_bench [replicas] [blocks] [decisions]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <deque>
#include <random>
#include <string>
#include <vector>

#include "scheduler/route/router.h"

namespace muselet {
namespace {

constexpr uint32_t kSystemPrompts = 16;
constexpr uint32_t kSystemBlocks = 64;
constexpr uint32_t kConversationBlocks = 400;
constexpr uint32_t kSequencesMax = 64;

uint64_t Scatter(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

BlockHash HashOf(uint64_t chain, uint64_t block) {
  const uint64_t seed = Scatter(chain * 1'000'003 + block + 1);
  return {Scatter(seed + 1), Scatter(seed + 2)};
}

// Processor time: what else the machine does is not the router's.
double ThreadTimeUs() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_nsec) * 1e-3;
}

class Bench {
 public:
  Bench(uint32_t replicas, uint64_t blocks) : replica_count_(replicas) {
    conversations_ = std::max<uint64_t>(
        1, (blocks - uint64_t{replicas} * kSystemPrompts * kSystemBlocks) / kConversationBlocks);
    Hello hello;
    hello.name = "g";
    Say("g", "gateway", hello);
    for (uint32_t i = 0; i < replicas; ++i) Join(i);
  }

  void Fill() {
    for (uint32_t i = 0; i < replica_count_; ++i) {
      std::vector<BlockHash> added;
      for (uint32_t s = 0; s < kSystemPrompts; ++s)
        for (uint32_t b = 0; b < kSystemBlocks; ++b) added.push_back(HashOf(s, b));
      for (uint64_t c = i; c < conversations_; c += replica_count_)
        for (uint32_t b = 0; b < kConversationBlocks; ++b)
          added.push_back(HashOf(kSystemPrompts + c, b));
      SayCache(i, std::move(added), {});
    }
  }

  void Run(uint64_t decisions) {
    for (uint64_t i = 0; i < decisions; ++i) {
      now_us_ += 50;
      PlaceOne(i);
      if (running_.size() > uint64_t{replica_count_} * kSequencesMax / 2) ReleaseOne();
      // 10 reports a second of each replica at 20,000 decisions a second.
      if (i % 8 == 0) SayReport(static_cast<uint32_t>(random_() % replica_count_));
      if (i % 8 == 4) Churn(static_cast<uint32_t>(random_() % replica_count_));
      if (i % 1000 == 0) Measure([&] { (void)router_.OnTick(now_us_); });
      if (i % 1000 == 0) Say("g", "gateway", Heartbeat{});
    }
  }

  void Print(uint64_t decisions) {
    std::sort(place_us_.begin(), place_us_.end());
    const auto at = [&](double q) {
      return place_us_[static_cast<size_t>(q * static_cast<double>(place_us_.size() - 1))];
    };
    const RouteCounts counts = router_.counts();
    std::printf("replicas %u, indexed blocks %llu, %.1f bytes a block\n", replica_count_,
                static_cast<unsigned long long>(counts.prefix_blocks),
                static_cast<double>(counts.prefix_bytes) /
                    static_cast<double>(std::max<uint64_t>(counts.prefix_blocks, 1)));
    std::printf("%.0f decisions/s on one core; Place p50 %.1f us, p99 %.1f us, max %.1f us\n",
                static_cast<double>(decisions) / (spent_us_ * 1e-6), at(0.5), at(0.99), at(1.0));
    std::printf("tickets %llu, waiting %zu, cached share of prompts %.1f %%\n",
                static_cast<unsigned long long>(counts.tickets), counts.waiting,
                100.0 * static_cast<double>(counts.cached_prompt_tokens) /
                    static_cast<double>(std::max<uint64_t>(counts.prompt_tokens, 1)));
  }

  void ResetTimes() {
    spent_us_ = 0;
    place_us_.clear();
  }

 private:
  template <typename F>
  double Measure(F&& call) {
    const double begin_us = ThreadTimeUs();
    call();
    const double took_us = ThreadTimeUs() - begin_us;
    spent_us_ += took_us;
    return took_us;
  }

  double Say(const std::string& peer, const std::string& sender, Message message) {
    const Envelope envelope{sender, 1, 0, std::move(message)};
    return Measure([&] { last_ = router_.OnMessage(peer, envelope, now_us_); });
  }

  static std::string Name(uint32_t replica) { return "n" + std::to_string(replica); }

  void Join(uint32_t i) {
    ReplicaInfo info;
    info.replica = "r" + std::to_string(i);
    info.model = "m";
    info.endpoint = "tcp://10.0.0.1:1";
    info.epoch = 1;
    info.context_tokens = 131'072;
    info.kv_tokens = 2'000'000;
    info.sequences_max = kSequencesMax;
    Hello hello;
    hello.role = Role::kNode;
    hello.name = Name(i);
    hello.replicas = {info};
    Say(Name(i), Name(i), hello);
    sequences_.push_back(0);
    cache_sequences_.push_back(0);
    active_.emplace_back();
    SayReport(i);
  }

  void SayReport(uint32_t i) {
    Report report;
    report.replica = "r" + std::to_string(i);
    report.epoch = 1;
    report.sequence = ++sequences_[i];
    report.steps = report.sequence * 10;
    report.step_us = 15'000;
    report.running = static_cast<uint32_t>(std::min<size_t>(active_[i].size(), kSequencesMax));
    report.kv_blocks_total = 125'000;
    report.kv_blocks_used = 10'000;
    for (const RequestId& request : active_[i]) report.active.push_back({request, 0});
    report.prefill_token_us = 1;
    report.schedulers = 1;
    report.served = {{"default", report.sequence * 1000}};
    Say(Name(i), Name(i), std::move(report));
  }

  void SayCache(uint32_t i, std::vector<BlockHash> added, std::vector<BlockHash> removed) {
    CacheEvents events;
    events.replica = "r" + std::to_string(i);
    events.epoch = 1;
    events.sequence = ++cache_sequences_[i];
    events.snapshot = events.sequence == 1;
    events.added = std::move(added);
    events.removed = std::move(removed);
    Say(Name(i), Name(i), std::move(events));
  }

  // A conversation's last blocks go, and come back.
  void Churn(uint32_t i) {
    std::vector<BlockHash> blocks;
    const uint64_t chain = kSystemPrompts + i + replica_count_ * (random_() % 16);
    for (uint32_t b = kConversationBlocks - 32; b < kConversationBlocks; ++b)
      blocks.push_back(HashOf(chain, b));
    SayCache(i, {}, blocks);
    SayCache(i, blocks, {});
  }

  void PlaceOne(uint64_t i) {
    Place place;
    place.request = {1, i + 1};
    place.model = "m";
    place.surface = "default";
    place.max_tokens = 256;
    const bool fresh = random_() % 4 == 0;
    const uint64_t chain =
        fresh ? random_() % kSystemPrompts : kSystemPrompts + random_() % conversations_;
    const uint64_t known = fresh ? kSystemBlocks : 32 + random_() % (kConversationBlocks - 32);
    for (uint64_t b = 0; b < known; ++b) place.block_hashes.push_back(HashOf(chain, b));
    for (uint64_t b = 0; b < 16; ++b) place.block_hashes.push_back({random_(), random_()});
    place.prompt_tokens = static_cast<uint32_t>(place.block_hashes.size() * kHashBlockTokens + 5);
    place_us_.push_back(Say("g", "gateway", std::move(place)));
    for (const Outgoing& outgoing : last_) {
      const auto* ticket = std::get_if<Ticket>(&outgoing.message);
      if (ticket == nullptr) continue;
      const auto replica = static_cast<uint32_t>(std::atoi(ticket->replica.c_str() + 1));
      running_.emplace_back(ticket->request, replica);
      active_[replica].push_back(ticket->request);
    }
  }

  void ReleaseOne() {
    const auto [request, replica] = running_.front();
    running_.pop_front();
    std::erase(active_[replica], request);
    Say("g", "gateway", Release{request, 0, 100});
  }

  const uint32_t replica_count_;
  uint64_t conversations_ = 0;
  Router router_{"s0", {"m"}, RouteOptions{.prefix_blocks_max = 16'000'000}};
  std::mt19937_64 random_{1};
  int64_t now_us_ = 1'000'000;
  std::vector<uint64_t> sequences_;
  std::vector<uint64_t> cache_sequences_;
  std::vector<std::vector<RequestId>> active_;
  std::deque<std::pair<RequestId, uint32_t>> running_;
  std::vector<Outgoing> last_;
  std::vector<double> place_us_;
  double spent_us_ = 0;
};

}  // namespace
}  // namespace muselet

int main(int argc, char** argv) {
  const auto argument = [&](int i, uint64_t otherwise) {
    return argc > i ? std::strtoull(argv[i], nullptr, 10) : otherwise;
  };
  const auto replicas = static_cast<uint32_t>(argument(1, 256));
  const uint64_t decisions = argument(3, 100'000);
  muselet::Bench bench(replicas, argument(2, 8'000'000));
  bench.Fill();
  bench.Run(decisions / 10);
  bench.ResetTimes();
  bench.Run(decisions);
  bench.Print(decisions);
  return 0;
}
