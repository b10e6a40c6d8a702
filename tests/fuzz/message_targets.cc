// What clients, peers and operators may write.
#include "comms/codec.h"
#include "comms/message_socket.h"
#include "node/config/config_loader.h"
#include "node/gateway/openai_error.h"
#include "node/gateway/openai_request.h"
#include "node/rank/rank_codec.h"
#include "node/text/utf8.h"
#include "tests/fuzz/targets.h"
#include "tests/node/model/memory_file.h"
#include "tests/node/rank/rank_fixture.h"

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

// A step that a rank could not compute without reaching outside its memory.
std::string BrokenStep(const RankStep& step, const RankLimits& limits) {
  const StepPlan& plan = step.plan;
  for (const TokenId id : plan.tokens) {
    if (id != kTokenFromEarlierPlan && (id < 0 || static_cast<uint32_t>(id) >= limits.vocab_size))
      return "a token outside the vocabulary";
  }
  for (const SequenceSlice& slice : plan.slices) {
    const uint64_t end = uint64_t{slice.first_position} + slice.row_count;
    if (slice.slot >= limits.slots) return "a slot that is not there";
    if (uint64_t{slice.row_begin} + slice.row_count > plan.tokens.size()) return "rows too many";
    if (slice.logits_rows > slice.row_count) return "logits too many";
    for (size_t group = 0; group < slice.table_count.size(); ++group) {
      const uint64_t table_end = uint64_t{slice.table_begin[group]} + slice.table_count[group];
      if (table_end > plan.block_tables.size()) return "a table too long";
      if (uint64_t{slice.table_count[group]} * limits.block_tokens < end)
        return "a table too short";
      for (uint64_t i = slice.table_begin[group]; i < table_end; ++i) {
        if (plan.block_tables[i] >= limits.kv_blocks[group]) return "a block that is not there";
      }
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

FuzzOutcome RunRank(std::string_view bytes) {
  static const WireContext quiet;
  const RankLimits limits = TestLimits();
  const auto once = DecodeRankMessage(bytes, limits);
  if (!once.ok()) return {false, BrokenMessage(once.status().message(), "")};
  if (const auto* step = std::get_if<RankStep>(&*once)) {
    if (const std::string broken = BrokenStep(*step, limits); !broken.empty())
      return {true, broken};
  }
  const std::string written = EncodeRankMessage(*once);
  const auto twice = DecodeRankMessage(written, limits);
  if (!twice.ok()) return {true, "cannot be read again: " + twice.status().message()};
  return {true, EncodeRankMessage(*twice) == written ? "" : "means something else when read again"};
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

std::vector<std::string> RankSeeds() {
  RankStep step;
  step.epoch = step.step = 1;
  step.timeout_us = 3'000'000;
  step.plan = TestPlan(1);
  step.starts = {TestStart()};
  std::vector<std::string> seeds;
  for (const RankMessage& message :
       {RankMessage(TestJoin(1)), RankMessage(step), RankMessage(RankPut{1, "tensor-0", "address"}),
        RankMessage(RankDone{1, 1, 900, OkStatus(), TestResult()}),
        RankMessage(RankForm{1, 1, {{"n0", "10.0.0.1"}, {"n1", "10.0.0.2"}}, 30'000'000}),
        RankMessage(RankAlive{1, 2, 3}), RankMessage(RankRefused{1, "mixed releases"})}) {
    seeds.push_back(EncodeRankMessage(message));
  }
  return seeds;
}

}  // namespace muselet::testing
