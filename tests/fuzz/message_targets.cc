// What clients, peers and operators may write.
#include "comms/codec.h"
#include "comms/message_socket.h"
#include "node/config/config_loader.h"
#include "node/gateway/openai_error.h"
#include "node/gateway/openai_request.h"
#include "node/text/utf8.h"
#include "tests/fuzz/targets.h"
#include "tests/node/model/memory_file.h"

namespace muselet::testing {
namespace {

constexpr size_t kEnvelopeBytesMax = 1 << 20;

std::string BrokenRequest(const OpenAiRequest& request, const RequestLimits& limits) {
  const GenerationRequest& g = request.generation;
  if (g.choices < 1 || g.choices > limits.choices_max) return "choices out of range";
  if (g.stop_strings.size() > limits.stop_strings_max) return "too many stop strings";
  if (g.sampling.logit_bias.size() > limits.logit_bias_max) return "too many biases";
  if (g.sampling.logprobs > static_cast<int64_t>(limits.top_logprobs_max))
    return "too many logprobs";
  if (g.timeout_us < 0) return "a negative timeout";
  if (request.prompts.empty()) return "no prompt";
  for (const auto& prompt : request.prompts) {
    const auto* text = std::get_if<TextPrompt>(&prompt);
    if (text != nullptr && !IsValidUtf8(text->text)) return "a prompt that is not UTF-8";
    const auto* tokens = std::get_if<TokenPrompt>(&prompt);
    if (tokens == nullptr) continue;
    for (const TokenId id : tokens->ids) {
      if (id < 0) return "a negative token id";
    }
  }
  return "";
}

std::string BrokenError(const ApiError& error) {
  if (error.http_status < 400 || error.http_status > 499) return "a fault that is not a 4xx";
  if (error.message.empty()) return "a fault without a message";
  const auto body = ParseJson(BodyOf(error));
  if (!body.ok()) return "an error body that is not JSON";
  const Json* object = FindMember(*body, "error");
  return object != nullptr && FindMember(*object, "message") != nullptr ? "" : "no error object";
}

}  // namespace

FuzzOutcome RunRequest(std::string_view bytes) {
  const RequestLimits limits;
  FuzzOutcome outcome;
  for (const OpenAiEndpoint endpoint : {OpenAiEndpoint::kChat, OpenAiEndpoint::kCompletions}) {
    OpenAiRequest request;
    const auto error = ParseOpenAiRequest(endpoint, bytes, limits, 32, request);
    outcome.accepted |= !error.has_value();
    outcome.broken = error ? BrokenError(*error) : BrokenRequest(request, limits);
    if (!outcome.broken.empty()) break;
  }
  return outcome;
}

FuzzOutcome RunEnvelope(std::string_view bytes) {
  static const WireContext quiet;  // protobuf's own log lines go nowhere while it lives
  const auto once = DecodeEnvelope(bytes, kEnvelopeBytesMax);
  if (!once.ok()) return {false, BrokenMessage(once.status().message(), "")};
  const std::string written = EncodeEnvelope(*once);
  const auto twice = DecodeEnvelope(written, 2 * kEnvelopeBytesMax);
  if (!twice.ok()) return {true, "cannot be read again: " + twice.status().message()};
  return {true, EncodeEnvelope(*twice) == written ? "" : "means something else when read again"};
}

FuzzOutcome RunConfig(std::string_view bytes) {
  const MemoryFile file;
  file.Write(bytes);
  ConfigRequest request;
  request.file = file.path();
  request.file_check = ConfigRequest::FileCheck::kNone;
  const ConfigOutcome outcome = LoadConfig(request);
  if (outcome.loaded.has_value() != outcome.faults.empty()) {
    return {false, "neither a config nor a fault, or both"};
  }
  // The operator's own words are shown as they stand, whatever their encoding.
  for (const ConfigFault& fault : outcome.faults) {
    const std::string line = fault.ToString();
    if (!line.starts_with(file.path())) return {false, "does not name the file: " + line};
    if (line.find('\n') != std::string::npos) return {false, "more than one line: " + line};
  }
  return {outcome.loaded.has_value(), ""};
}

std::vector<std::string> EnvelopeSeeds() {
  Submit submit;
  submit.sequence = {{1, 2}, 3};
  submit.replica = "r0";
  submit.surface = "default";
  submit.prompt = {1, 2, 300};
  submit.generated = {7};
  submit.sampling.logit_bias = {{5, -1.5F}};
  submit.stop.end_tokens = {2};
  submit.stop.max_tokens = 16;
  TokenUpdate update;
  update.sequence = submit.sequence;
  update.tokens = {{9, -0.5F, {{9, -0.5F}, {4, -2.0F}}}};
  update.finish = FinishReason::kStop;
  Place place;
  place.request = {1, 2};
  place.model = "m";
  place.timeout_us = 1'000'000;
  place.block_hashes = {{}};
  std::vector<std::string> seeds;
  for (const Message& body : {Message(Heartbeat{}), Message(submit), Message(Tokens{{update}}),
                              Message(place), Message(Goodbye{"drained"}), Message(Report{})}) {
    seeds.push_back(EncodeEnvelope({"s0", 42, seeds.size() + 1, body}));
  }
  return seeds;
}

}  // namespace muselet::testing
