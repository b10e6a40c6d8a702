// What a second core is worth to a pipeline: tokens a second of two rank processes on a core each,
// beside one process on one core, at the engine: no HTTP, no gateway, no scheduler.
//
//   pipeline_bench MUSELET MODEL [--turns N] [--tokens N] [--json FILE] [STREAMS...]
//   The two take turns, medians are printed. Needs two cores that nothing else uses.
#include <sched.h>

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "node/engine/local_step_engine.h"
#include "node/engine/step_loop.h"
#include "node/model/load_model.h"
#include "node/role_loop.h"
#include "node/sharded_replica.h"

namespace muselet::bench {
namespace {

constexpr const char* kUsage =
    "usage: pipeline_bench MUSELET MODEL [--turns N] [--tokens N] [--json FILE] [STREAMS...]\n";
constexpr uint32_t kPromptTokens = 8;

struct Arguments {
  std::string program, model, json;
  std::vector<uint32_t> streams;
  uint32_t turns = 3;
  uint32_t tokens = 64;
};

// Threads and processes that this thread starts stay on the core.
void StayOnCore(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  CHECK(sched_setaffinity(0, sizeof(set), &set) == 0, "this process may not use core ", core);
}

void UseAllCores(const cpu_set_t& all) {
  CHECK(sched_setaffinity(0, sizeof(all), &all) == 0, "cannot go back to all cores");
}

ClusterConfig MakeConfig(const std::string& model) {
  ClusterConfig config;
  config.models = {{"model", model}};
  config.nodes.resize(1);
  config.nodes[0].name = "n0";
  config.nodes[0].devices = {"cpu:0", "cpu:1"};
  config.replicas.resize(1);
  config.replicas[0].name = "r0";
  config.replicas[0].model = "model";
  config.replicas[0].pipeline = 2;
  config.replicas[0].on = {"n0"};
  config.engine.cpu.threads = 1;
  config.log_level = LogLevel::kError;
  return config;
}

// A step loop over an engine, that counts what comes out.
class Side {
 public:
  Side(std::unique_ptr<StepEngine> engine, const BatchOptions& options, MetricRegistry& registry,
       const std::string& name)
      : metrics_(registry, "n0", name, "model"),
        loop_(std::move(engine), options, metrics_, Clock::Real(),
              [this](std::vector<TokenUpdate> updates) { Count(updates); }) {
    loop_.Start();
  }

  void AwaitRanks() const {
    while (!loop_.progress().available) sched_yield();
  }

  // Tokens a second of so many streams from their first token on to the end of the first of them:
  // all of them run all that time.
  double Measure(uint32_t streams, uint32_t tokens) {
    std::vector<StepCommand> commands;
    for (uint32_t i = 0; i < streams; ++i) commands.emplace_back(MakeSubmit(tokens));
    std::unique_lock lock(mutex_);
    tokens_ = begun_ = ended_ = 0;
    first_end_us_ = all_begun_us_ = 0;
    wanted_ = streams;
    loop_.Push(std::move(commands));
    wake_.wait(lock, [&] { return ended_ == streams; });
    const uint64_t counted = tokens_at_first_end_ - tokens_at_all_begun_;
    return static_cast<double>(counted) * 1e6 / static_cast<double>(first_end_us_ - all_begun_us_);
  }

 private:
  Submit MakeSubmit(uint32_t tokens) {
    Submit submit;
    submit.sequence.request.low = ++requests_;
    submit.attempt = 1;
    for (uint32_t i = 0; i < kPromptTokens; ++i)
      submit.prompt.push_back(static_cast<TokenId>(1000 + (requests_ * 37 + i * 11) % 5000));
    submit.stop.max_tokens = tokens;
    submit.sampling.temperature = 0.8F;
    submit.sampling.seed = requests_;
    return submit;
  }

  void Count(const std::vector<TokenUpdate>& updates) {
    const std::lock_guard lock(mutex_);
    const int64_t now_us = Clock::Real().NowUs();
    for (const TokenUpdate& update : updates) {
      CHECK(update.finish != FinishReason::kError, "a stream failed: ", update.error);
      if (update.first_index == 0 && !update.tokens.empty()) ++begun_;
      tokens_ += update.tokens.size();
      if (update.finish != FinishReason::kNone) ++ended_;
    }
    if (all_begun_us_ == 0 && begun_ == wanted_) {
      all_begun_us_ = now_us;
      tokens_at_all_begun_ = tokens_;
    }
    if (first_end_us_ == 0 && ended_ > 0) {
      first_end_us_ = now_us;
      tokens_at_first_end_ = tokens_;
    }
    wake_.notify_all();
  }

  NodeMetrics metrics_;
  uint64_t requests_ = 0;
  std::mutex mutex_;  // guards what follows
  std::condition_variable wake_;
  uint32_t wanted_ = 0, begun_ = 0, ended_ = 0;
  uint64_t tokens_ = 0, tokens_at_all_begun_ = 0, tokens_at_first_end_ = 0;
  int64_t all_begun_us_ = 0, first_end_us_ = 0;
  StepLoop loop_;
};

// The leader's engine and its two ranks, one on each core.
class Pipeline {
 public:
  Pipeline(const ClusterConfig& config, const std::shared_ptr<const Checkpoint>& checkpoint,
           const std::string& program, MetricRegistry& registry, const cpu_set_t& all)
      : metrics_(registry, "n0", "r0", RankLossNames()), loop_("pipeline") {
    const ReplicaEntry& replica = config.replicas[0];
    auto plan = MakeShardPlan(*checkpoint, ShardSpecOf(replica));
    CHECK(plan.ok(), plan.status().message());
    auto options = LeaderOptions(config, replica, *plan, *checkpoint);
    CHECK(options.ok(), options.status().message());
    auto engine = RankStepEngine::Make(std::move(*options), context_, metrics_);
    CHECK(engine.ok(), engine.status().message());
    const auto specs = RanksOnNode(config, replica, config.nodes[0], (*engine)->endpoint(),
                                   /*whole_cluster=*/true);
    RankChildrenOptions children;
    children.program = program;
    children_ = std::make_unique<RankChildren>(loop_.loop(), children);
    loop_.Start();
    const Status added = loop_.Ask([&] {
      for (const RankChildSpec& spec : specs) {
        StayOnCore(static_cast<int>(spec.rank));
        children_->Add(spec);
      }
      UseAllCores(all);
      return OkStatus();
    });
    CHECK(added.ok(), added.message());
    side_ = std::make_unique<Side>(std::move(*engine), config.engine.batch, registry, "pipeline");
    side_->AwaitRanks();
  }
  ~Pipeline() {
    side_.reset();
    (void)loop_.Ask(
        [this] {
          children_->Stop();
          return OkStatus();
        },
        10'000'000);
    loop_.Stop();
  }

  Side& side() { return *side_; }

 private:
  WireContext context_;
  RankMetrics metrics_;
  RoleLoop loop_;
  std::unique_ptr<RankChildren> children_;
  std::unique_ptr<Side> side_;
};

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

bool ParseArguments(int argc, char** argv, Arguments* arguments) {
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const bool takes_value = word == "--turns" || word == "--tokens" || word == "--json";
    if (takes_value && i + 1 == argc) return false;
    if (word == "--turns") {
      arguments->turns = static_cast<uint32_t>(std::atoi(argv[++i]));
    } else if (word == "--tokens") {
      arguments->tokens = static_cast<uint32_t>(std::atoi(argv[++i]));
    } else if (word == "--json") {
      arguments->json = argv[++i];
    } else if (arguments->program.empty()) {
      arguments->program = word;
    } else if (arguments->model.empty()) {
      arguments->model = word;
    } else if (const int streams = std::atoi(argv[i]); streams > 0) {
      arguments->streams.push_back(static_cast<uint32_t>(streams));
    } else {
      return false;
    }
  }
  if (arguments->streams.empty()) arguments->streams = {1, 16, 32};
  return !arguments->model.empty() && arguments->turns > 0 && arguments->tokens > 1;
}

Json MeasureAll(const Arguments& arguments, Side& whole, Side& pipeline) {
  Json cases = Json::array();
  for (const uint32_t streams : arguments.streams) {
    std::vector<double> one, two;
    for (uint32_t turn = 0; turn < arguments.turns; ++turn) {
      one.push_back(whole.Measure(streams, arguments.tokens));
      two.push_back(pipeline.Measure(streams, arguments.tokens));
    }
    const double ratio = Median(two) / Median(one);
    std::printf(
        "%3u streams: one process, one core %7.1f tok/s; two ranks, two cores %7.1f tok/s; %.2f "
        "x\n",
        streams, Median(one), Median(two), ratio);
    cases.push_back({{"streams", streams}, {"whole", one}, {"pipeline", two}, {"ratio", ratio}});
  }
  return cases;
}

int Main(int argc, char** argv) {
  Arguments arguments;
  if (!ParseArguments(argc, argv, &arguments)) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  cpu_set_t all;
  CHECK(sched_getaffinity(0, sizeof(all), &all) == 0, "the system does not tell our cores");
  const ClusterConfig config = MakeConfig(arguments.model);
  auto opened = Checkpoint::Open(arguments.model);
  if (!opened.ok()) {
    std::fprintf(stderr, "pipeline_bench: %s\n", opened.status().message().c_str());
    return 2;
  }
  const std::shared_ptr<const Checkpoint> checkpoint = std::move(*opened);
  MetricRegistry registry;
  Pipeline pipeline(config, checkpoint, arguments.program, registry, all);

  StayOnCore(0);
  auto model = LoadModel(checkpoint, config.engine, {});
  CHECK(model.ok(), model.status().message());
  Side whole(std::make_unique<LocalStepEngine>(std::shared_ptr<Model>(std::move(*model)),
                                               config.engine.batch.sequences_max, Clock::Real()),
             config.engine.batch, registry, "whole");
  UseAllCores(all);
  for (Side* side : {&whole, &pipeline.side()}) side->Measure(4, 8);  // first steps, scratch memory
  const Json cases = MeasureAll(arguments, whole, pipeline.side());
  if (!arguments.json.empty()) std::ofstream(arguments.json) << Json{{"cases", cases}}.dump(2);
  return 0;
}

}  // namespace
}  // namespace muselet::bench

int main(int argc, char** argv) {
  return muselet::bench::Main(argc, argv);
}
