#include "node/drain_command.h"

#include <unistd.h>

#include <memory>
#include <utility>
#include <vector>

#include "base/peer_session.h"
#include "comms/event_loop.h"
#include "comms/message_socket.h"
#include "node/cli/version.h"
#include "node/wire_security.h"

namespace muselet {
namespace {

constexpr int kToldNobody = 1;
constexpr int kWrongInput = 2;
constexpr int64_t kPatienceUs = 5'000'000;

// The question, asked of all schedulers at once.
class Question {
 public:
  Question(std::string name, EventLoop& loop) : name_(std::move(name)), loop_(loop) {}

  Status Ask(const std::string& endpoint, WireContext& context, const LocalPeer& local) {
    Hello hello;
    hello.role = Role::kOperator;
    hello.name = local.name;
    hello.software_version = std::string(SoftwareVersion());
    links_.push_back(std::make_unique<Link>(Link{ClientSession(hello, timing_), nullptr, false}));
    Link* link = links_.back().get();
    ASSIGN_OR_RETURN(link->client, MessageClient::Connect(loop_, context, local, endpoint,
                                                          [this, link](const Envelope& envelope) {
                                                            OnEnvelope(*link, envelope);
                                                          }));
    return OkStatus();
  }

  // Runs the loop until there is an answer, or no more hope for one.
  void Await() {
    const int64_t until_us = loop_.NowUs() + kPatienceUs;
    PeriodicTimer ticks(loop_, TickIntervalUs(timing_), [&] {
      for (const auto& link : links_) Apply(*link, link->session.OnTick(loop_.NowUs()));
      if (loop_.NowUs() > until_us) loop_.Stop();
    });
    loop_.Run();
    for (const auto& link : links_) (void)link->client->Send(Goodbye{"has asked"});
  }

  bool told() const { return told_; }
  bool answered() const { return answers_ > 0; }
  const std::string& known() const { return known_; }

 private:
  struct Link {
    ClientSession session;
    std::unique_ptr<MessageClient> client;
    bool answered = false;
  };

  void OnEnvelope(Link& link, const Envelope& envelope) {
    ClientSession::Step step = link.session.OnEnvelope(envelope, loop_.NowUs());
    const bool known = step.known;
    Apply(link, std::move(step));
    const auto* answer = std::get_if<DrainAnswer>(&envelope.body);
    if (!known || answer == nullptr || std::exchange(link.answered, true)) return;
    ++answers_;
    told_ = told_ || answer->known;
    if (!answer->known) known_ = answer->detail;
    if (told_ || answers_ == links_.size()) loop_.Stop();
  }

  void Apply(Link& link, ClientSession::Step step) {
    for (const ClientSession::Event& event : step.events) {
      if (event.kind == ClientSession::Event::Kind::kJoined) step.send.emplace_back(Drain{name_});
    }
    for (Message& message : step.send) (void)link.client->Send(std::move(message));
  }

  const std::string name_;
  EventLoop& loop_;
  const PeerTiming timing_{100'000, kPatienceUs};
  std::vector<std::unique_ptr<Link>> links_;
  size_t answers_ = 0;
  bool told_ = false;
  std::string known_;
};

}  // namespace

int RunDrainCommand(const ClusterConfig& config, const std::string& name, std::ostream& out,
                    std::ostream& err) {
  WireContext context;
  EventLoop loop("drain");
  Question question(name, loop);
  Status status = SecureWires(config, context);
  const LocalPeer local{"drain-" + std::to_string(getpid()), RequestId::Random().low};
  size_t asked = 0;
  for (const SchedulerEntry& scheduler : config.schedulers) {
    if (!scheduler.rpc.starts_with("tcp://") || !status.ok()) continue;
    status = question.Ask(ConnectEndpoint(scheduler), context, local);
    ++asked;
  }
  if (status.ok() && asked == 0) {
    status = InvalidArgument(
        "schedulers: none has an rpc of tcp://HOST:PORT: send SIGTERM to the process instead");
  }
  if (!status.ok()) {
    err << "muselet: " << status.message() << "\n";
    return kWrongInput;
  }
  question.Await();
  if (question.told()) {
    out << name << " drains\n";
    return 0;
  }
  err << "muselet: "
      << (question.answered() ? "no scheduler knows " + name + "; known are: " + question.known()
                              : "no scheduler answers: check schedulers[].rpc and security")
      << "\n";
  return kToldNobody;
}

}  // namespace muselet
