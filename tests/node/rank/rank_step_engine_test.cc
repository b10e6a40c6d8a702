// The engine of a sharded replica over real sockets on loopback, with ranks that have everything
// but a model.
#include "node/rank/rank_step_engine.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <future>
#include <mutex>
#include <random>
#include <thread>

#include "comms/event_loop.h"
#include "comms/raw_dealer.h"
#include "node/rank/epoch_leader.h"
#include "tests/node/rank/rank_fixture.h"

namespace muselet {
namespace {

using ::testing::HasSubstr;

constexpr uint32_t kRanks = 3;

// Fast enough that a test need not wait, slow enough for a busy machine under sanitizers.
EpochTiming TestTiming() {
  EpochTiming timing;
  timing.heartbeat_interval_us = 50'000;
  return timing;
}

RankStepEngineOptions TestOptions() {
  RankStepEngineOptions options;
  options.replica = "r0";
  options.endpoint = "tcp://127.0.0.1:0";
  options.pipeline = kRanks;
  options.nodes = {"n0", "n1", "n2"};
  options.info.model_digest = testing::TestAgreement().model_digest;
  options.info.numerics_id = testing::TestAgreement().numerics_id;
  options.info.vocab_size = 100;
  options.info.context_tokens = 256;
  options.info.block_tokens = 16;
  options.info.kv_groups = {{64, 0}};
  options.software_version = testing::TestAgreement().software_version;
  options.shard_plan_digest = testing::TestAgreement().shard_plan_digest;
  options.slots = 8;
  options.rows_max = 64;
  options.timing = TestTiming();
  return options;
}

// A rank without a model: its groups are made when the values of all ranks are there, and a step's
// result is the number of its plan. Made and destroyed on the loop.
class FakeRank {
 public:
  FakeRank(EventLoop& loop, WireContext& context, const std::string& endpoint, uint32_t rank,
           uint64_t instance)
      : loop_(loop),
        rank_(rank),
        member_(testing::TestJoin(rank, instance), kRanks, endpoint, TestTiming(), loop.NowUs()) {
    auto dealer = RawDealer::Connect(
        loop, context, endpoint, RawDealer::DrawIdentity("rank"), [this](std::string body) {
          auto message = DecodeRankMessage(body, testing::TestLimits());
          Apply(message.ok() ? member_.OnMessage(*std::move(message), loop_.NowUs())
                             : member_.OnMalformed(message.status().message(), loop_.NowUs()));
        });
    dealer_ = *std::move(dealer);
    dealer_->OnConnection(
        [this](bool connected) { Apply(member_.OnConnection(connected, loop_.NowUs())); });
    timer_ = std::make_unique<PeriodicTimer>(loop, EpochTickUs(TestTiming()),
                                             [this] { Apply(member_.OnTick({}, loop_.NowUs())); });
  }

  bool computes = true;

 private:
  void Apply(MemberOutput out) {
    for (const RankMessage& message : out.send) {
      const Status sent = dealer_->Send(EncodeRankMessage(message));
      if (!sent.ok()) continue;  // repeated, or the epoch is over
    }
    for (MemberEvent& event : out.events) Handle(event);
  }

  void Handle(MemberEvent& event) {
    switch (event.kind) {
      case MemberEvent::Kind::kMakeGroups:
        values_ = 0;
        return Apply(*member_.Put(event.epoch, "rank-" + std::to_string(rank_), "address"));
      case MemberEvent::Kind::kValue:
        if (++values_ == kRanks) Apply(member_.GroupsMade(event.epoch));
        return;
      case MemberEvent::Kind::kStep:
        if (computes) Compute(event);
        return;
      case MemberEvent::Kind::kEnd:
        return Apply(member_.TornDown(event.epoch, loop_.NowUs()));
      default:
        return;
    }
  }

  void Compute(const MemberEvent& event) {
    RankDone done;
    done.step_us = 7;
    if (rank_ + 1 == kRanks) {
      done.result = testing::TestResult();
      done.result.slices[1].token.id = static_cast<TokenId>(event.step.plan.number % 100);
    }
    Apply(member_.Done(event.epoch, std::move(done), loop_.NowUs()));
  }

  EventLoop& loop_;
  const uint32_t rank_;
  EpochMember member_;
  std::unique_ptr<RawDealer> dealer_;
  std::unique_ptr<PeriodicTimer> timer_;
  size_t values_ = 0;
};

class RankStepEngineTest : public ::testing::Test {
 protected:
  using Work = StepEngine::WorkPointer;

  RankStepEngineTest() : metrics_(registry_, "n0", "r0", RankLossNames()), loop_("ranks") {
    auto engine = RankStepEngine::Make(TestOptions(), context_, metrics_);
    engine_ = *std::move(engine);
    engine_->Start({[this](Work work) {
                      const std::lock_guard lock(mutex_);
                      done_.push_back(std::move(work));
                      changed_.notify_all();
                    },
                    [this] {
                      const std::lock_guard lock(mutex_);
                      changed_.notify_all();
                    }});
    thread_ = std::thread([this] { loop_.Run(); });
    for (uint32_t rank = 0; rank < kRanks; ++rank) StartRank(rank);
  }
  ~RankStepEngineTest() override {
    OnLoop([this] {
      for (auto& rank : ranks_) rank.reset();
      noise_.reset();
    });
    loop_.Stop();
    thread_.join();
    engine_->Stop();
  }

  void OnLoop(std::function<void()> work) {
    std::promise<void> ran;
    loop_.Post([&] {
      work();
      ran.set_value();
    });
    ran.get_future().wait();
  }
  void StartRank(uint32_t rank) {
    OnLoop([this, rank] {
      ranks_[rank] =
          std::make_unique<FakeRank>(loop_, context_, engine_->endpoint(), rank, ++instances_);
    });
  }
  bool Await(const std::function<bool()>& reached) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(60), reached);
  }
  bool AwaitAvailable(bool available) {
    return Await([&] { return engine_->available() == available; });
  }
  void Submit(uint64_t number, uint64_t state_epoch) {
    auto work = std::make_unique<StepWork>();
    work->plan = testing::TestPlan(number);
    work->state_epoch = state_epoch;
    work->starts = {testing::TestStart()};
    engine_->Submit(std::move(work));
  }
  std::vector<Work> Take(size_t count) {
    EXPECT_TRUE(Await([&] { return done_.size() >= count; })) << done_.size() << " of " << count;
    const std::lock_guard lock(mutex_);
    return std::exchange(done_, {});
  }
  // Plans [first, last] go out, and come back in order with their results.
  void Play(uint64_t first, uint64_t last) {
    const uint64_t epoch = engine_->state_epoch();
    for (uint64_t number = first; number <= last; ++number) {
      Submit(number, epoch);
      const std::vector<Work> works = Take(1);
      ASSERT_EQ(works.size(), 1U);
      ASSERT_TRUE(works[0]->fault.ok()) << works[0]->fault.message();
      ASSERT_EQ(works[0]->plan.number, number);
      ASSERT_EQ(works[0]->result.slices[1].token.id, static_cast<TokenId>(number % 100));
      ASSERT_EQ(works[0]->step_us, 7);
      ASSERT_TRUE(works[0]->starts.empty());
    }
  }

  WireContext context_;
  MetricRegistry registry_;
  RankMetrics metrics_;
  std::unique_ptr<RankStepEngine> engine_;
  EventLoop loop_;
  std::thread thread_;
  std::array<std::unique_ptr<FakeRank>, kRanks> ranks_;
  std::unique_ptr<PeriodicTimer> noise_;
  uint64_t instances_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Work> done_;
};

TEST_F(RankStepEngineTest, HandsPlansOutAndResultsBackInOrder) {
  EXPECT_EQ(engine_->plans_max(), 4U);
  EXPECT_EQ(engine_->sequence_groups(), 4U);
  ASSERT_TRUE(AwaitAvailable(true));
  EXPECT_EQ(engine_->waiting_for(), "");
  for (uint64_t number = 1; number <= 50; ++number) Submit(number, engine_->state_epoch());
  const std::vector<Work> works = Take(50);
  for (uint64_t i = 0; i < works.size(); ++i) EXPECT_EQ(works[i]->plan.number, i + 1);
  EXPECT_THAT(registry_.Text(), HasSubstr("muselet_ranks_joined{node=\"n0\",replica=\"r0\"} 3"));
  EXPECT_THAT(registry_.Text(),
              HasSubstr("muselet_rank_epochs_formed_total{node=\"n0\",replica=\"r0\"} 1"));
}

TEST_F(RankStepEngineTest, GivesWorkBackWhenARankVanishesAndFormsAnewWhenItReturns) {
  ASSERT_TRUE(AwaitAvailable(true));
  Play(1, 5);
  const uint64_t state_epoch = engine_->state_epoch();
  const uint64_t epoch = engine_->epoch();
  OnLoop([this] { ranks_[1]->computes = ranks_[2]->computes = false; });
  Submit(6, state_epoch);
  Submit(7, state_epoch);
  OnLoop([this] { ranks_[1].reset(); });
  std::vector<Work> works = Take(2);
  ASSERT_EQ(works.size(), 2U);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(works[i]->plan.number, 6 + i);
    EXPECT_TRUE(works[i]->state_lost);
    EXPECT_EQ(works[i]->fault.code(), StatusCode::kUnavailable);
  }
  EXPECT_FALSE(engine_->available());
  EXPECT_GT(engine_->state_epoch(), state_epoch);
  Submit(8, engine_->state_epoch());  // while nobody can compute it
  EXPECT_TRUE(Take(1)[0]->state_lost);

  OnLoop([this] { ranks_[2]->computes = true; });
  StartRank(1);
  ASSERT_TRUE(AwaitAvailable(true));
  EXPECT_GT(engine_->epoch(), epoch);
  Submit(9, state_epoch);  // made before the loss
  EXPECT_TRUE(Take(1)[0]->state_lost);
  Play(1, 5);
}

// Bytes that are no ZeroMQ, then ones that are.
TEST_F(RankStepEngineTest, DoesNotMindNoiseOnItsPort) {
  auto shared_random = std::make_shared<std::mt19937>(5);
  const std::string endpoint = engine_->endpoint();
  std::shared_ptr<RawDealer> stranger = *RawDealer::Connect(
      loop_, context_, endpoint, RawDealer::DrawIdentity("noise"), [](std::string) {});
  OnLoop([&] {
    noise_ = std::make_unique<PeriodicTimer>(loop_, 1000, [stranger, shared_random] {
      std::string bytes((*shared_random)() % 300, '\0');
      for (char& byte : bytes) byte = static_cast<char>((*shared_random)());
      (void)stranger->Send(bytes);
      (void)stranger->Send(EncodeRankMessage(RankDone{1, 1, 1, {}, testing::TestResult()}));
    });
  });
  for (int i = 0; i < 20; ++i) {
    const int port = std::stoi(endpoint.substr(endpoint.rfind(':') + 1));
    const int descriptor = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(connect(descriptor, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    const std::string request = i % 2 == 0 ? "" : "GET / HTTP/1.1\r\n\r\n";
    (void)!send(descriptor, request.data(), request.size(), MSG_NOSIGNAL);
    close(descriptor);
  }
  ASSERT_TRUE(AwaitAvailable(true));
  Play(1, 50);
  EXPECT_EQ(engine_->epoch(), 1U);
  stranger.reset();
}

TEST(RankStepEngine, SaysWhomItWaitsForAndStopsMeanwhile) {
  WireContext context;
  MetricRegistry registry;
  auto engine = RankStepEngine::Make(TestOptions(), context,
                                     RankMetrics(registry, "n0", "r0", RankLossNames()));
  ASSERT_TRUE(engine.ok()) << engine.status().message();
  EXPECT_FALSE((*engine)->available());
  EXPECT_EQ((*engine)->waiting_for(), "rank 0 (node n0), rank 1 (node n1), rank 2 (node n2)");
  (*engine)->Stop();
  (*engine)->Stop();
}

TEST(RankStepEngine, RefusesAnAddressThatItCannotHave) {
  WireContext context;
  MetricRegistry registry;
  const RankMetrics metrics(registry, "n0", "r0", RankLossNames());
  RankStepEngineOptions options = TestOptions();
  options.endpoint = "tcp://192.0.2.1:5555";
  EXPECT_THAT(RankStepEngine::Make(options, context, metrics).status().message(),
              HasSubstr("192.0.2.1"));
  options = TestOptions();
  options.nodes.pop_back();
  EXPECT_EQ(RankStepEngine::Make(options, context, metrics).status().code(),
            StatusCode::kInvalidArgument);
}

TEST(RankStepEngine, TakesOnePlanAheadWhereThereIsNoPipeline) {
  WireContext context;
  MetricRegistry registry;
  RankStepEngineOptions options = TestOptions();
  options.tensor = 3;
  options.pipeline = 1;
  auto engine =
      RankStepEngine::Make(options, context, RankMetrics(registry, "n0", "r0", RankLossNames()));
  ASSERT_TRUE(engine.ok());
  EXPECT_EQ((*engine)->plans_max(), 2U);
  EXPECT_EQ((*engine)->sequence_groups(), 1U);
}

}  // namespace
}  // namespace muselet
