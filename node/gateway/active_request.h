// One request of a front door while it lives: its sink, its choices' text, its clock and counts.
// What the owner delivers goes through here to the client.
//
// Loop thread only. A sink may cancel its request from within a callback: Close is then called, and
// nothing more is told; the object itself must outlive the running call.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "monitoring/metrics.h"
#include "node/gateway/choice_text.h"
#include "node/gateway/generation.h"
#include "node/gateway/prompt_text.h"
#include "node/gateway/request_owner.h"

namespace muselet {

struct GatewayModel;

class ActiveRequest {
 public:
  ActiveRequest(GenerationRequest request, std::unique_ptr<GenerationSink> sink, int64_t now_us,
                const GatewayMetrics::PerModel& metrics);
  ~ActiveRequest();

  // The prompt is known: makes the choices' text.
  void Admit(const RequestId& id, PreparedPrompt prompt, const RequestRecord& record,
             const std::string& numerics_id);
  // The answer cannot begin before the node has scored the prompt.
  bool WaitsForPromptScores() const { return !begun_ && start_.prompt_ids.size() > 1 && scored_; }
  // OnStart, once. `scores` of prompt tokens 1..n-1, or none.
  void BeginAnswer(std::vector<SampledToken> scores);

  void CountTicket(bool first, int64_t waited_us);
  // The choices that a stop string ended: their further tokens are not wanted.
  std::vector<uint32_t> Deliver(Delivered delivered, int64_t now_us);
  void Finish(int64_t now_us);
  void Fail(const GenerationError& error, int64_t now_us);
  // Counts the outcome, once, and silences the sink.
  void Close(RequestOutcome outcome, int64_t now_us);

  GenerationRequest request;  // its prompt moves on to the text pool
  const std::string prompt_param;
  const GatewayModel* model = nullptr;
  const int64_t started_us;

 private:
  bool PassOn(Delivered delivered, int64_t now_us);
  bool PassOnUpdate(ChoiceText::Outcome outcome, int64_t now_us);
  // The part of `delivered` that a resuming client has: counted, not told again.
  bool PassOnSeen(Delivered& delivered, int64_t now_us);
  void CountTokens(uint32_t choice, size_t tokens, int64_t now_us);

  std::unique_ptr<GenerationSink> sink_;
  const GatewayMetrics::PerModel& metrics_;
  bool closed_ = false;
  bool begun_ = false;
  bool scored_ = false;       // prompt logprobs were asked for
  bool prompt_only_ = false;  // echo with max_tokens 0
  bool length_ = false;       // some choice ended by length
  GenerationStart start_;
  GenerationUsage usage_;
  TextRules rules_;
  std::vector<ChoiceText> choices_;
  std::vector<int64_t> last_token_us_;  // by choice; 0 = none yet
  std::deque<Delivered> held_;          // came before the answer could begin
};

}  // namespace muselet
