#include "node/rank/rank_process.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <boost/asio/posix/stream_descriptor.hpp>
#include <csignal>
#include <exception>
#include <optional>
#include <thread>
#include <utility>

#include "base/log.h"
#include "base/types.h"
#include "comms/event_loop.h"
#include "comms/raw_dealer.h"
#include "node/rank/epoch_member.h"
#include "node/rank/rank_codec.h"
#include "node/rank/rank_worker.h"
#include "node/rank/restart_policy.h"
#include "node/rank/supervisor_link.h"

namespace muselet {
namespace {

using boost::asio::posix::stream_descriptor;

constexpr int kExitWrongInput = 2;
constexpr int64_t kAliveIntervalUs = 500'000;

sigset_t StopSet() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  return set;
}

class RankProcess {
 public:
  RankProcess(RankProcessOptions options, WireContext& context)
      : options_(std::move(options)),
        context_(context),
        loop_("rank-loop"),
        signals_(loop_.io(), OpenSignals()) {
    if (options_.supervised) {
      fcntl(kSupervisorDescriptor, F_SETFD, FD_CLOEXEC);
      supervisor_ = std::make_unique<SupervisorLink>(loop_, kSupervisorDescriptor, kAliveIntervalUs,
                                                     [this] { Leave(0); });
    }
    WatchSignals();
    thread_ = std::thread([this] { loop_.Run(); });
  }

  // Only reached where the process was never a rank: otherwise it ends while the loop turns.
  ~RankProcess() {
    loop_.Stop();
    thread_.join();
  }

  int Run() {
    pthread_setname_np(pthread_self(), "rank-step");
    Result<LoadedRank> loaded = options_.load();
    if (!loaded.ok()) return GiveUp(loaded.status().message(), kExitWrongInput);
    worker_ = std::make_unique<RankWorker>(loaded->model, options_.position, options_.slots,
                                           WorkerHandlers());
    loop_.Post([this, loaded = *loaded] { Join(loaded); });
    worker_->Run();
    return 0;
  }

  // Says why on the way out: to the supervisor, which logs it once, or to the log.
  int GiveUp(const std::string& reason, int exit_code) {
    if (supervisor_) {
      supervisor_->Say(kWordReason, reason);
    } else {
      LogError("the rank gives up", Fields({{"reason", reason}}));
    }
    return exit_code;
  }

  [[noreturn]] void Leave(int exit_code) { _exit(exit_code); }

 private:
  LogFields Fields(LogFields more = {}) const {
    more.insert(more.begin(), {{"replica", options_.replica}, {"rank", options_.position.rank}});
    return more;
  }

  static int OpenSignals() {
    const sigset_t set = StopSet();
    CHECK(pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0);
    std::signal(SIGPIPE, SIG_IGN);
    const int descriptor = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    CHECK(descriptor >= 0, "no file descriptors left");
    return descriptor;
  }

  void WatchSignals() {
    signals_.async_wait(stream_descriptor::wait_read, [this](const auto& fault) {
      if (fault) return;
      signalfd_siginfo info{};
      while (read(signals_.native_handle(), &info, sizeof(info)) == sizeof(info)) {
        // A service manager may ask a whole group of processes to stop. The node drains first, and
        // needs its ranks for that.
        if (!options_.supervised || static_cast<pid_t>(info.ssi_pid) == getppid()) Leave(0);
        LogWarn("a rank does not stop by itself: stop its node",
                Fields({{"node", options_.node}, {"node_pid", getppid()}}));
      }
      WatchSignals();
    });
  }

  // From here on everything is on the loop thread, except where it says so.

  void Join(const LoadedRank& loaded) {
    const ModelInfo& info = loaded.model->info();
    limits_ = RankLimitsOf(info, options_.slots, options_.rows_max);
    RankJoin self;
    self.replica = options_.replica;
    self.rank = options_.position.rank;
    self.node = options_.node;
    self.host = options_.host;
    self.instance = RequestId::Random().low;
    self.pid = static_cast<uint32_t>(getpid());
    self.agreement = {options_.software_version, info.model_digest, loaded.shard_plan_digest,
                      info.numerics_id, limits_.kv_blocks};
    member_.emplace(self, options_.position.tensor * options_.position.pipeline, options_.leader,
                    options_.timing, loop_.NowUs());
    auto dealer = RawDealer::Connect(
        loop_, context_, options_.leader,
        RawDealer::DrawIdentity(options_.replica + "-" + std::to_string(self.rank)),
        [this](const std::string& body) { OnFrame(body); });
    if (!dealer.ok()) Leave(GiveUp(dealer.status().message(), kExitWrongInput));
    dealer_ = std::move(*dealer);
    dealer_->OnConnection(
        [this](bool connected) { Apply(member_->OnConnection(connected, loop_.NowUs())); });
    loop_.Every(EpochTickUs(options_.timing),
                [this] { Apply(member_->OnTick(worker_->progress(), loop_.NowUs())); });
  }

  void OnFrame(const std::string& body) {
    Result<RankMessage> message = DecodeRankMessage(body, limits_);
    if (message.status().code() == StatusCode::kPermissionDenied) {
      return Apply(member_->OnOtherVersion(message.status().message(), loop_.NowUs()));
    }
    Apply(message.ok() ? member_->OnMessage(std::move(*message), loop_.NowUs())
                       : member_->OnMalformed(message.status().message(), loop_.NowUs()));
  }

  void Apply(MemberOutput output) {
    for (const RankMessage& message : output.send) {
      const Status sent = dealer_->Send(EncodeRankMessage(message));
      if (!sent.ok()) LogDebug("a message was not sent", Fields({{"reason", sent.message()}}));
    }
    for (MemberEvent& event : output.events) On(std::move(event));
  }

  void On(MemberEvent event) {
    switch (event.kind) {
      case MemberEvent::Kind::kMakeGroups:
        return worker_->MakeGroups(std::move(event.form));
      case MemberEvent::Kind::kValue:
        return worker_->OnValue(event.epoch, event.key, std::move(event.value));
      case MemberEvent::Kind::kStart:
        LogInfo("the rank has joined", Fields({{"epoch", event.epoch}}));
        return Tell(kWordJoined);
      case MemberEvent::Kind::kStep:
        return worker_->Compute(std::move(event.step));
      case MemberEvent::Kind::kEnd:
        worker_->End(event.epoch, event.text, event.on_purpose);
        LogInfo("the epoch is over", Fields({{"epoch", event.epoch}, {"reason", event.text}}));
        return Tell(kWordParted);
      case MemberEvent::Kind::kWaiting:
        return LogWarn("the rank waits", Fields({{"reason", event.text}}));
      case MemberEvent::Kind::kExit:
        Leave(GiveUp(event.text, event.refused ? kRankExitRefused : kRankExitStuck));
    }
  }

  void Tell(char word) {
    if (supervisor_) supervisor_->Say(word);
  }

  // Called by the worker, on its thread.
  RankWorkerHandlers WorkerHandlers() {
    RankWorkerHandlers handlers;
    handlers.put = [this](uint64_t epoch, const std::string& key, std::string value) {
      loop_.Post([this, epoch, key, value = std::move(value)]() mutable {
        auto output = member_->Put(epoch, key, std::move(value));
        if (output.ok()) return Apply(std::move(*output));
        if (output.status().code() == StatusCode::kUnavailable) return;  // over meanwhile
        Apply(member_->Fail(epoch, output.status().message(), loop_.NowUs()));
      });
    };
    handlers.groups_made = [this](uint64_t epoch) {
      loop_.Post([this, epoch] { Apply(member_->GroupsMade(epoch)); });
    };
    handlers.done = [this](uint64_t epoch, RankDone done) {
      loop_.Post([this, epoch, done = std::move(done)]() mutable {
        Apply(member_->Done(epoch, std::move(done), loop_.NowUs()));
      });
    };
    handlers.failed = [this](uint64_t epoch, const std::string& reason) {
      loop_.Post([this, epoch, reason] { Apply(member_->Fail(epoch, reason, loop_.NowUs())); });
    };
    handlers.torn_down = [this](uint64_t epoch) {
      loop_.Post([this, epoch] { Apply(member_->TornDown(epoch, loop_.NowUs())); });
    };
    return handlers;
  }

  const RankProcessOptions options_;
  WireContext& context_;
  EventLoop loop_;
  stream_descriptor signals_;
  std::unique_ptr<SupervisorLink> supervisor_;
  std::unique_ptr<RankWorker> worker_;  // made before the first Join, so before all events
  RankLimits limits_;
  std::optional<EpochMember> member_;
  std::unique_ptr<RawDealer> dealer_;
  std::thread thread_;
};

}  // namespace

int RunRankProcess(RankProcessOptions options, WireContext& context) {
  RankProcess process(std::move(options), context);
  try {
    return process.Run();
  } catch (const std::exception& fault) {
    // Memory or a device that gave out: the step thread cannot go on, and the loop must not.
    process.Leave(process.GiveUp(fault.what(), kRankExitFault));
  }
}

}  // namespace muselet
