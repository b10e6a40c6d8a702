// The middle of a gateway: requests of the front doors in, updates out. Puts together the request
// owner (protocol), the text side (templates, tokens, stop strings) and the links to schedulers and
// nodes, and counts all of GatewayMetrics but the HTTP ones.
//
// Lives on its event loop: made, called and destroyed there, or while the loop does not run.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "comms/event_loop.h"
#include "comms/message_socket.h"
#include "monitoring/metrics.h"
#include "node/gateway/audit_table.h"
#include "node/gateway/cluster_secret.h"
#include "node/gateway/gateway_options.h"
#include "node/gateway/generation.h"
#include "node/gateway/quota_board.h"
#include "node/gateway/request_owner.h"

namespace muselet {

class ActiveRequest;
class NodeLinks;
class PeerLink;
struct TextModel;
class TextPool;
struct ModelLimits;
struct PeerLinkOptions;
struct PreparedPrompt;

// A model that this gateway knows text and limits of.
struct GatewayModel {
  std::string id;
  std::shared_ptr<const TextModel> text;  // null: token-id prompts only, answers without text
  uint32_t context_tokens = 0;            // prompt + answer
  uint32_t vocab_size = 0;
  std::vector<TokenId> end_tokens;
};

struct GatewayServiceOptions {
  std::string name;  // of this gateway, from the config
  std::string software_version;
  std::string cluster;                  // all gateways of a cluster agree on prefix-cache salts
  std::vector<std::string> schedulers;  // endpoints; at least one
  GatewayOptions gateway;
  std::vector<GatewayModel> models;
  std::vector<SurfaceOptions> surfaces = {};  // those that may ask; empty: whoever asks
  // For salts that nobody can guess. None: of the names alone.
  std::optional<ClusterSecret> secret = std::nullopt;
  // A scheduler was asked to have this gateway drain.
  std::function<void()> drain_asked = nullptr;
};

class GatewayService final : public GenerationService {
 public:
  // Begins to connect; never waits. kInvalidArgument for a bad endpoint. All references must
  // outlive the service; `metrics` must know the models.
  static Result<std::unique_ptr<GatewayService>> Start(GatewayServiceOptions options,
                                                       const LocalPeer& local, EventLoop& loop,
                                                       WireContext& context,
                                                       const GatewayMetrics& metrics);
  ~GatewayService() override;

  RequestId Start(GenerationRequest request, std::unique_ptr<GenerationSink> sink) override;
  void Cancel(const RequestId& request) override;
  std::vector<ServedModel> Models() const override;
  Status Ready() const override;
  QuotaState Quota(const std::string& surface) const override;
  void Tokenize(const std::string& model, std::variant<ChatPrompt, TextPrompt> prompt,
                TokenizeCallback callback) override;
  void Detokenize(const std::string& model, std::vector<TokenId> ids,
                  DetokenizeCallback callback) override;

  // Ends everything that is not complete with `status`, and tells whoever listens.
  void EndAll(const Status& status);

  const OwnerCounters& counters() const { return owner_.counters(); }
  // Requests that are tokenized, waiting or running.
  size_t requests_in_flight() const { return active_.size(); }

 private:
  using PromptVariant = std::variant<ChatPrompt, TextPrompt, TokenPrompt>;

  GatewayService(GatewayServiceOptions options, const LocalPeer& local, EventLoop& loop,
                 WireContext& context, const GatewayMetrics& metrics);
  Status Connect(const LocalPeer& local, WireContext& context);
  PeerLinkOptions LinkOptions() const;
  void Tick();
  void Pace();

  const GatewayModel* FindModel(const std::string& id) const;
  const ModelState* FindState(const std::string& model) const;
  ModelLimits LimitsOf(const GatewayModel& model) const;
  // Of the request's surface; none if it is not known.
  std::optional<SurfaceOptions> SurfaceOf(const GenerationRequest& request) const;
  // What is wrong with a request before its prompt is read.
  std::optional<GenerationError> Check(ActiveRequest& active, const GatewayModel* model);
  // Renders and tokenizes off the loop thread if the prompt is big, else soon on it; then `done` on
  // the loop.
  void Prepare(const GatewayModel& model, PromptVariant prompt, int64_t now_unix_us,
               std::function<void(Result<PreparedPrompt>)> done);
  void Admit(const RequestId& id, Result<PreparedPrompt> prepared);
  // Feeds the owner and carries out what it says, until nothing is left to say.
  void Drive(OwnerInput input);
  // To the owner: how many replicas each model has now, as far as a scheduler says.
  void TellReplicas();
  void Tell(const Ticketed& event);
  void Tell(Delivered& event);
  void Tell(const Reattempted& event);
  void Tell(const QuotaTold& event);
  void Tell(AuditCase& event);
  void Tell(const Ended& event);
  void Fail(const RequestId& id, const GenerationError& error);
  void Count(const AuditTable::Report& report);
  void CountOwner();

  const GatewayServiceOptions options_;
  EventLoop& loop_;
  const GatewayMetrics& metrics_;
  RequestOwner owner_;
  OwnerCounters counted_;  // what the metrics know
  AuditTable audits_;
  QuotaBoard quotas_;
  std::unordered_map<RequestId, std::unique_ptr<ActiveRequest>> active_;
  std::vector<std::vector<ModelState>> tables_;  // by scheduler: what it said last
  std::vector<std::unique_ptr<PeerLink>> schedulers_;
  std::unique_ptr<NodeLinks> nodes_;
  bool driving_ = false;
  std::deque<OwnerInput> pending_;     // said while driving_
  std::shared_ptr<const bool> alive_;  // posted work holds it weakly
  std::unique_ptr<TextPool> pool_;
  std::unique_ptr<PeriodicTimer> timer_;
};

}  // namespace muselet
