#include "tests/node/simulate/chaos_run.h"

#include <algorithm>
#include <utility>

namespace muselet::testing {
namespace {

constexpr int64_t kMs = 1'000;
constexpr int64_t kSecond = 1'000'000;
constexpr uint32_t kVocab = 32;
constexpr TokenId kEndToken = 7;
constexpr int64_t kPatienceUs = 300 * kSecond;
constexpr int64_t kRestUsMax = 30 * kSecond;

}  // namespace

void ChaosCounts::Add(const ChaosCounts& other) {
  requests += other.requests;
  completed += other.completed;
  failed += other.failed;
  tokens += other.tokens;
  reattempts += other.reattempts;
  crashes += other.crashes;
  pauses += other.pauses;
  cuts += other.cuts;
  leaves += other.leaves;
  step_faults += other.step_faults;
  events += other.events;
}

ChaosRun::ChaosRun(uint64_t seed)
    : random_(seed), ledger_(kVocab, [this](const std::string& what) { Note(what); }) {
  cluster_ =
      std::make_unique<SimCluster>(Draw(), [this](uint32_t gateway, const OwnerEvent& event) {
        ledger_.OnEvent(gateway, event, cluster_->world().now_us());
      });
}

ChaosRun::~ChaosRun() = default;

SimClusterOptions ChaosRun::Draw() {
  shape_.lossy = random_.Chance(0.5);
  shape_.step_faults = random_.Chance(0.2);
  shape_.chaos_us = random_.Chance(0.02) ? 8 * kSecond : 1500 * kMs;
  shape_.request_gap_us = random_.Between(80, 300) * kMs;
  shape_.fault_gap_us = random_.Between(150, 900) * kMs;

  SimClusterOptions options;
  options.seed = random_.Next();
  options.schedulers = static_cast<uint32_t>(random_.Between(1, 2));
  options.gateways = static_cast<uint32_t>(random_.Between(1, 2));
  options.nodes = static_cast<uint32_t>(random_.Between(1, 3));
  options.links.delay_us_min = 100;
  options.links.delay_us_max = random_.Chance(0.5) ? 500 : 20 * kMs;
  if (shape_.lossy) {
    options.links.ordered = random_.Chance(0.3);
    options.links.drop = random_.Chance(0.5) ? 0.05 * random_.Unit() : 0;
    options.links.duplicate = random_.Chance(0.5) ? 0.1 * random_.Unit() : 0;
    options.links.late = random_.Chance(0.5) ? 0.05 * random_.Unit() : 0;
    options.links.late_us_max = 1500 * kMs;
  }
  // Nothing but its own time ends a request: what is lost is tried again until it is there.
  options.owner.limits.attempts_max = 1'000'000;
  options.owner.limits.place_timeout_us = kPatienceUs;
  options.owner.place_repeat_us = 250 * kMs;
  options.owner.retry_backoff_us = 5 * kMs;
  options.gateway_timing = {100 * kMs, 800 * kMs};
  options.node_timing = {100 * kMs, 800 * kMs};
  options.route.heartbeat_interval_us = 100 * kMs;
  options.route.peer_timeout_us = 800 * kMs;
  options.route.place_timeout_us = kPatienceUs;
  options.route.ticket_lease_us = 2 * kSecond;
  options.route.prefix_blocks_max = 4096;
  options.reconnect_us = 150 * kMs;

  SimReplicaOptions& engine = options.engine;
  engine.vocab_size = kVocab;
  engine.context_tokens = 256;
  engine.block_count = static_cast<uint32_t>(random_.Between(16, 48));
  engine.batch.sequences_max = static_cast<uint32_t>(random_.Between(1, 6));
  engine.batch.waiting_max = 8;
  engine.batch.step_tokens_max = 64;
  engine.batch.prefill_chunk_max = 32;
  engine.batch.resume_tokens_min = 4;
  engine.batch.prefix_cache = random_.Chance(0.8);
  engine.cost = {500, 8'000, 200, 50, 100};
  engine.noise = 0.3;
  return options;
}

void ChaosRun::Note(const std::string& what) {
  if (failure_.empty())
    failure_ = "at " + std::to_string(cluster_->world().now_us() / kMs) + " ms: " + what;
}

std::string ChaosRun::Run() {
  SimWorld& world = cluster_->world();
  cluster_->StartAll();
  AskSoon();
  DisturbSoon();
  world.RunUntil(shape_.chaos_us, [this] { return !failure_.empty(); });
  if (!failure_.empty()) return failure_;
  Calm();
  if (!world.RunUntil(world.now_us() + kRestUsMax, [this] { return AtRest(); }))
    Note("no rest after " + std::to_string(kRestUsMax / kSecond) +
         " s of calm: " + DescribeUnrest());
  // Whoever was taken for lost has been heard of again, and what was held back has arrived.
  world.RunUntil(world.now_us() + 2200 * kMs, [this] { return !failure_.empty(); });
  const uint64_t reattempts = ledger_.reattempts();
  for (int i = 0; i < 3; ++i) Ask(/*in_calm=*/true);
  if (failure_.empty() && !world.RunUntil(world.now_us() + kRestUsMax, [this] { return AtRest(); }))
    Note("requests in the calm do not end: " + DescribeUnrest());
  if (ledger_.reattempts() != reattempts) Note("a request in the calm took two attempts");
  if (failure_.empty()) CheckRest();
  return failure_;
}

ChaosCounts ChaosRun::counts() const {
  ChaosCounts counts = counts_;
  counts.requests = drawn_;
  counts.completed = ledger_.completed();
  counts.failed = ledger_.failed();
  counts.tokens = ledger_.tokens();
  counts.reattempts = ledger_.reattempts();
  counts.events = cluster_->world().event_count();
  return counts;
}

// --- requests ---

void ChaosRun::AskSoon() {
  const auto gap_us =
      static_cast<int64_t>(random_.Exponential(static_cast<double>(shape_.request_gap_us)));
  cluster_->world().After(gap_us, [this] {
    if (!chaos_) return;
    Ask(/*in_calm=*/false);
    AskSoon();
  });
}

RequestRecord ChaosRun::DrawRecord(bool in_calm) {
  RequestRecord record;
  record.request = {random_.Next(), ++drawn_};
  record.model = cluster_->options().model;
  record.surface = random_.Chance(0.5) ? "chat" : "glasses";
  record.request_class = static_cast<RequestClass>(random_.Below(3));
  record.choices = random_.Chance(0.2) ? 2 : 1;
  record.timeout_us = kPatienceUs;
  if (!in_calm && random_.Chance(0.1)) record.timeout_us = random_.Between(20, 1500) * kMs;
  // Prompts that begin alike, some of them to the end of a block.
  const uint64_t family = random_.Below(3);
  const uint64_t shared = 16 * random_.Below(6);
  for (uint64_t i = 0; i < shared; ++i)
    record.prompt.push_back(static_cast<TokenId>(MixBits(family * 1000 + i) % kVocab));
  const uint64_t own = random_.Between(shared == 0 ? 1 : 0, 40);
  for (uint64_t i = 0; i < own; ++i)
    record.prompt.push_back(static_cast<TokenId>(random_.Below(kVocab)));
  record.sampling.seed = random_.Next();
  record.stop.max_tokens = static_cast<uint32_t>(random_.Between(1, 24));
  record.stop.min_tokens = static_cast<uint32_t>(random_.Below(3));
  if (random_.Chance(0.7)) record.stop.end_tokens = {kEndToken};
  return record;
}

void ChaosRun::Ask(bool in_calm) {
  const auto index = static_cast<uint32_t>(random_.Below(cluster_->options().gateways));
  GatewayActor* gateway = cluster_->gateway(index);
  RequestRecord record = DrawRecord(in_calm);
  if (gateway == nullptr) return;
  const bool patient = record.timeout_us == kPatienceUs;
  ledger_.Begin(record, index, cluster_->world().now_us(),
                in_calm || (patient && !shape_.step_faults));
  gateway->Tell(StartRequest{std::move(record)});
}

// A client goes away, or has seen enough of a choice.
void ChaosRun::ClientActs() {
  const auto index = static_cast<uint32_t>(random_.Below(cluster_->options().gateways));
  const std::vector<RequestId> open = ledger_.OpenOf(index);
  GatewayActor* gateway = cluster_->gateway(index);
  if (gateway == nullptr || open.empty()) return;
  const RequestId request = open[random_.Below(open.size())];
  const std::optional<uint32_t> running = ledger_.RunningChoice(request);
  if (!running || random_.Chance(0.5)) {
    ledger_.Cancelled(request);
    return gateway->Tell(CancelRequest{request});
  }
  ledger_.Stopped({request, *running});
  gateway->Tell(StopChoice{{request, *running}});
}

// --- faults ---

void ChaosRun::DisturbSoon() {
  const auto gap_us =
      static_cast<int64_t>(random_.Exponential(static_cast<double>(shape_.fault_gap_us)));
  cluster_->world().After(gap_us, [this] {
    if (!chaos_) return;
    Disturb();
    DisturbSoon();
  });
}

void ChaosRun::Disturb() {
  switch (random_.Below(10)) {
    case 0:
    case 1:
    case 2:
      return CrashOne();
    case 3:
    case 4:
      return PauseOne();
    case 5:
    case 6:
      return CutOne();
    case 7:
      return LeaveOne();
    case 8:
      return FailStep();
    default:
      return ClientActs();
  }
}

void ChaosRun::StartAgain(SimProcess process) {
  const int64_t away_us =
      random_.Chance(0.7) ? random_.Between(1, 300) * kMs : random_.Between(300, 2500) * kMs;
  cluster_->world().After(away_us, [this, process] {
    if (cluster_->network().actor(process) == nullptr) cluster_->network().Start(process);
  });
}

void ChaosRun::CrashOne() {
  const auto process = static_cast<SimProcess>(random_.Below(cluster_->process_count()));
  if (cluster_->network().actor(process) == nullptr) return;
  ++counts_.crashes;
  cluster_->network().Crash(process, /*silent=*/random_.Chance(0.3));
  for (uint32_t i = 0; i < cluster_->options().gateways; ++i)
    if (cluster_->gateway_process(i) == process) ledger_.GatewayDied(i);
  StartAgain(process);
}

void ChaosRun::PauseOne() {
  ++counts_.pauses;
  const auto process = static_cast<SimProcess>(random_.Below(cluster_->process_count()));
  const int64_t until_us = cluster_->world().now_us() + random_.Between(10, 1500) * kMs;
  cluster_->world().Pause(process, until_us);
  for (uint32_t i = 0; i < cluster_->options().gateways; ++i)
    if (cluster_->gateway_process(i) == process) ledger_.Paused(i, until_us);
}

void ChaosRun::CutOne() {
  ++counts_.cuts;
  SimWorld& world = cluster_->world();
  const auto one = static_cast<SimProcess>(random_.Below(cluster_->process_count()));
  const bool from_all = random_.Chance(0.4);
  const bool both_ways = random_.Chance(0.7);
  const bool loses = random_.Chance(0.5);
  const int64_t until_us = world.now_us() + random_.Between(20, 2000) * kMs;
  const auto other = static_cast<SimProcess>(random_.Below(cluster_->process_count()));
  for (SimProcess process = 0; process < cluster_->process_count(); ++process) {
    if (process == one || (!from_all && process != other)) continue;
    world.Cut(one, process, until_us, loses);
    if (both_ways) world.Cut(process, one, until_us, loses);
  }
}

// A node drains and a scheduler or gateway says goodbye, and a new process takes its place.
void ChaosRun::LeaveOne() {
  ++counts_.leaves;
  const auto index = static_cast<uint32_t>(random_.Below(cluster_->options().nodes));
  if (NodeActor* node = cluster_->node(index); node != nullptr && random_.Chance(0.7)) {
    node->Drain();
    const SimProcess process = cluster_->node_process(index);
    cluster_->world().After(process, random_.Between(0, 500) * kMs, [this, index, process] {
      cluster_->node(index)->SayGoodbye();
      // From outside: nothing of a process that ends runs in it.
      cluster_->world().After(0, [this, process] {
        cluster_->network().Crash(process, /*silent=*/false);
        StartAgain(process);
      });
    });
    return;
  }
  const auto scheduler = static_cast<uint32_t>(random_.Below(cluster_->options().schedulers));
  if (cluster_->scheduler(scheduler) == nullptr) return;
  cluster_->scheduler(scheduler)->SayGoodbye();
  cluster_->network().Crash(cluster_->scheduler_process(scheduler), /*silent=*/false);
  StartAgain(cluster_->scheduler_process(scheduler));
}

void ChaosRun::FailStep() {
  const auto index = static_cast<uint32_t>(random_.Below(cluster_->options().nodes));
  NodeActor* node = cluster_->node(index);
  if (node == nullptr) return;
  ++counts_.step_faults;
  if (shape_.step_faults && random_.Chance(0.5)) {
    node->replica().FailStep(Internal("the device failed"));
  } else if (random_.Chance(0.5)) {
    node->replica().LoseState();
  } else {
    node->replica().SetSlowness(random_.Chance(0.5) ? 1 : 10);
  }
}

// --- the calm ---

void ChaosRun::Calm() {
  chaos_ = false;
  SimWorld& world = cluster_->world();
  LinkFaults links;
  links.delay_us_max = cluster_->options().links.delay_us_max;
  world.SetFaults(links);
  world.HealAll();
  for (uint32_t i = 0; i < cluster_->options().nodes; ++i) {
    if (cluster_->node(i) == nullptr) continue;
    cluster_->node(i)->replica().SetSlowness(1);
    cluster_->node(i)->replica().FailStep(OkStatus());
  }
}

bool ChaosRun::AtRest() const {
  if (!failure_.empty()) return true;
  if (ledger_.open_count() > 0) return false;
  const SimClusterOptions& options = cluster_->options();
  for (uint32_t i = 0; i < options.gateways; ++i)
    if (cluster_->gateway(i) == nullptr || cluster_->gateway(i)->owner().requests() > 0)
      return false;
  for (uint32_t i = 0; i < options.nodes; ++i) {
    NodeActor* node = cluster_->node(i);
    if (node == nullptr || node->admission().sequence_count() > 0 ||
        !node->replica().batcher().idle())
      return false;
  }
  for (uint32_t i = 0; i < options.schedulers; ++i)
    if (cluster_->scheduler(i) == nullptr || cluster_->scheduler(i)->router().has_open_requests())
      return false;
  return cluster_->ready();
}

void ChaosRun::CheckRest() {
  for (uint32_t i = 0; i < cluster_->options().schedulers; ++i) {
    for (const auto& [name, replica] : cluster_->scheduler(i)->router().replicas().all()) {
      if (replica.ticket_sequences != 0 || replica.ticket_tokens != 0 || !replica.tickets.empty())
        Note("s" + std::to_string(i) + " keeps credits of " + name);
    }
  }
  for (uint32_t i = 0; i < cluster_->options().nodes; ++i) {
    const Batcher& batcher = cluster_->node(i)->replica().batcher();
    if (!batcher.BlocksAddUp() || batcher.cache().held_count() != 0)
      Note("n" + std::to_string(i) + " leaks KV blocks");
  }
  for (uint32_t i = 0; i < cluster_->options().gateways; ++i) {
    if (cluster_->gateway(i)->owner().counters().mismatched_tokens != 0)
      Note("g" + std::to_string(i) + " has seen two tokens for one place");
  }
}

std::string ChaosRun::DescribeUnrest() const {
  std::string text = "open:" + ledger_.DescribeOpen();
  const SimClusterOptions& options = cluster_->options();
  for (uint32_t i = 0; i < options.gateways; ++i) {
    const GatewayActor* gateway = cluster_->gateway(i);
    text += " g" + std::to_string(i) +
            (gateway == nullptr ? ": down" : ": " + std::to_string(gateway->owner().requests())) +
            (gateway != nullptr && !gateway->ready() ? " (not ready)" : "");
  }
  for (uint32_t i = 0; i < options.nodes; ++i) {
    NodeActor* node = cluster_->node(i);
    text += " n" + std::to_string(i) +
            (node == nullptr
                 ? ": down"
                 : ": " + std::to_string(node->admission().sequence_count()) + " owned, " +
                       std::to_string(node->replica().batcher().running_count()) + " run, " +
                       std::to_string(node->replica().batcher().waiting_count()) + " wait");
  }
  for (uint32_t i = 0; i < options.schedulers; ++i) {
    const RouterActor* scheduler = cluster_->scheduler(i);
    if (scheduler == nullptr) continue;
    const RouteCounts counts = scheduler->router().counts();
    text += " s" + std::to_string(i) + ": " + std::to_string(counts.waiting) + " wait, " +
            std::to_string(counts.placed) + " placed, " + std::to_string(counts.nodes) + " nodes";
    for (const auto& [name, replica] : scheduler->router().replicas().all()) {
      text += " " + name + (replica.ready() ? "" : " not ready") + (replica.alone ? " alone" : "") +
              (replica.reserved_for ? " reserved" : "") + ", health " +
              std::to_string(static_cast<int>(replica.health.state)) + ", pending " +
              std::to_string(replica.pending.size()) + ", foreign " +
              std::to_string(replica.foreign_sequences) + ", free KV " +
              std::to_string(replica.kv_free_tokens.value_or(0)) + ";";
    }
  }
  return text;
}

}  // namespace muselet::testing
