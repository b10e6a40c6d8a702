#include "comms/codec.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "comms/message_socket.h"
#include "wire.pb.h"

namespace muselet {
namespace {

namespace pb = muselet::wire::v1;

constexpr size_t kBytesMax = 1U << 20;

ReplicaInfo ReplicaOf(const std::string& name) {
  return {
      name,       "model", "0123abcd", "cpu-f32-strict", "tcp://10.0.0.2:40001", 1ULL << 40, 8192,
      1ULL << 33, 64,      32};
}

SampledToken TokenOf(TokenId id) {
  return {id, -0.25F, {{id, -0.25F}, {id + 1, -3.5F}}};
}

Submit FullSubmit() {
  Submit submit;
  submit.sequence = {{~0ULL, 2}, 3};
  submit.attempt = 4;
  submit.epoch = 5;
  submit.replica = "r0";
  submit.surface = "glasses";
  submit.request_class = RequestClass::kBatch;
  submit.share = 2.5;
  submit.cache_salt = ~0ULL;
  submit.timeout_us = 1'000'000;
  submit.prompt = {0, 1, 49151, 2'000'000'000};
  submit.generated = {7, 8};
  submit.sampling = {
      0.5F, 40, 0.9F, 0.05F, 1.1F, -1.0F, 2.0F, ~0ULL, 5, 0, {{3, -100.0F}, {4, 1.0F}}};
  submit.stop = {100, 2, {1, 2}};
  return submit;
}

TokenUpdate FullUpdate() {
  TokenUpdate update;
  update.sequence = {{1, 2}, 3};
  update.attempt = 1;
  update.first_index = 10;
  update.tokens = {TokenOf(5), TokenOf(6)};
  update.finish = FinishReason::kError;
  update.error_code = StatusCode::kInternal;
  update.error = "device fault";
  update.cached_prompt_tokens = 48;
  update.prompt_logprobs = {TokenOf(9)};
  return update;
}

// One of each kind, all fields set.
std::vector<Message> AllMessages() {
  const RequestId id{0x1122334455667788, 0x99AABBCCDDEEFF00};
  Hello hello;
  hello.role = Role::kNode;
  hello.name = "n0";
  hello.software_version = "0.1.0";
  hello.protocol_version = 9;
  hello.replicas = {ReplicaOf("r0"), ReplicaOf("r1")};
  Place place;
  place.request = id;
  place.attempt = 2;
  place.model = "m";
  place.surface = "web";
  place.request_class = RequestClass::kRealtime;
  place.choices = 4;
  place.prompt_tokens = 100;
  place.max_tokens = 200;
  place.timeout_us = 30'000'000;
  place.block_hashes = {{1, 2}, {~0ULL, 4}};
  place.avoid = {"r1", "r2"};
  place.alone = true;
  Report report;
  report.replica = "r0";
  report.epoch = 3;
  report.sequence = 4;
  report.steps = 5;
  report.step_us = 6;
  report.running = 7;
  report.waiting = 8;
  report.kv_blocks_used = 9;
  report.kv_blocks_total = 10;
  report.draining = true;
  report.active = {{id, 0}, {id, 1}};
  report.prefill_tokens = 11;
  report.prefill_token_us = 12.5;
  report.schedulers = 2;
  report.served = {{"glasses", 13}, {"web", ~0ULL}};
  const QuotaState quota = {60, 59, 1'000'000, 10'000, 9'000, 6'000'000};
  return {hello,
          Welcome{"s0"},
          Unknown{},
          Goodbye{"stop"},
          Heartbeat{},
          ModelTable{{{"m", "cpu", 2, 2048}, {"n", "", 0, 0}}},
          place,
          Ticket{id, 1, "r0", "tcp://n0:1", 7, quota},
          Refused{id, 1, StatusCode::kResourceExhausted, "full", 1'000'000, quota},
          Lost{id, 1, "gone", true},
          Release{id, 3},
          FullSubmit(),
          Cancel{{id, 2}, 1},
          Tokens{{FullUpdate(), FullUpdate()}},
          report,
          CacheEvents{"r0", 3, 4, true, {{1, 2}, {3, ~0ULL}}, {{5, 6}}},
          Drain{"n0"},
          DrainAnswer{"n0", true, "told"}};
}

Envelope EnvelopeOf(Message body) {
  return {"sender", ~0ULL, 42, std::move(body)};
}

std::string NameOf(const Message& message) {
  return std::string(MessageName(message));
}

pb::Envelope ProtoOf(const Message& message) {
  pb::Envelope proto;
  EXPECT_TRUE(proto.ParseFromString(EncodeEnvelope(EnvelopeOf(message))));
  return proto;
}

std::string FaultOf(const pb::Envelope& proto) {
  const auto decoded = DecodeEnvelope(proto.SerializeAsString(), kBytesMax);
  if (decoded.ok()) return "accepted";
  EXPECT_EQ(decoded.status().code(), StatusCode::kInvalidArgument);
  return decoded.status().message();
}

TEST(CodecTest, EveryMessageComesBackByteForByte) {
  const std::vector<Message> messages = AllMessages();
  ASSERT_EQ(messages.size(), std::variant_size_v<Message>);
  for (size_t i = 0; i < messages.size(); ++i) {
    ASSERT_EQ(messages[i].index(), i) << "one of each kind";
    const std::string bytes = EncodeEnvelope(EnvelopeOf(messages[i]));
    const auto decoded = DecodeEnvelope(bytes, kBytesMax);
    ASSERT_TRUE(decoded.ok()) << NameOf(messages[i]) << ": " << decoded.status().ToString();
    EXPECT_EQ(decoded->sender, "sender");
    EXPECT_EQ(decoded->instance, ~0ULL);
    EXPECT_EQ(decoded->sequence, 42U);
    EXPECT_EQ(decoded->body.index(), i);
    EXPECT_EQ(EncodeEnvelope(*decoded), bytes) << NameOf(messages[i]);
  }
}

// Byte-equal encodings prove little if a field were lost on the way out: look at the values too.
TEST(CodecTest, FieldsKeepTheirValues) {
  const auto submit = DecodeEnvelope(EncodeEnvelope(EnvelopeOf(FullSubmit())), kBytesMax);
  ASSERT_TRUE(submit.ok());
  const Submit expected = FullSubmit();
  const auto& got = std::get<Submit>(submit->body);
  EXPECT_EQ(got.sequence, expected.sequence);
  EXPECT_EQ(got.attempt, expected.attempt);
  EXPECT_EQ(got.epoch, expected.epoch);
  EXPECT_EQ(got.replica, expected.replica);
  EXPECT_EQ(got.surface, expected.surface);
  EXPECT_EQ(got.request_class, expected.request_class);
  EXPECT_EQ(got.cache_salt, expected.cache_salt);
  EXPECT_EQ(got.timeout_us, expected.timeout_us);
  EXPECT_EQ(got.prompt, expected.prompt);
  EXPECT_EQ(got.generated, expected.generated);
  EXPECT_EQ(got.sampling, expected.sampling);
  EXPECT_EQ(got.stop, expected.stop);

  const auto tokens = DecodeEnvelope(EncodeEnvelope(EnvelopeOf(Tokens{{FullUpdate()}})), kBytesMax);
  ASSERT_TRUE(tokens.ok());
  const TokenUpdate& update = std::get<Tokens>(tokens->body).updates.at(0);
  EXPECT_EQ(update.sequence, FullUpdate().sequence);
  EXPECT_EQ(update.first_index, 10U);
  EXPECT_EQ(update.tokens, FullUpdate().tokens);
  EXPECT_EQ(update.prompt_logprobs, FullUpdate().prompt_logprobs);
  EXPECT_EQ(update.finish, FinishReason::kError);
  EXPECT_EQ(update.error_code, StatusCode::kInternal);
  EXPECT_EQ(update.error, "device fault");
  EXPECT_EQ(update.cached_prompt_tokens, 48U);

  const auto hello = DecodeEnvelope(EncodeEnvelope(EnvelopeOf(AllMessages()[0])), kBytesMax);
  ASSERT_TRUE(hello.ok());
  EXPECT_EQ(std::get<Hello>(hello->body).replicas.at(1), ReplicaOf("r1"));
}

TEST(CodecTest, SamplingDefaultsSurviveTheWire) {
  Submit submit;
  const auto decoded = DecodeEnvelope(EncodeEnvelope(EnvelopeOf(submit)), kBytesMax);
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(std::get<Submit>(decoded->body).sampling, SamplingParams{});
}

TEST(CodecTest, TruncatedBytesAreAFaultOrAnEarlierMessageButNeverACrash) {
  for (const Message& message : AllMessages()) {
    const std::string bytes = EncodeEnvelope(EnvelopeOf(message));
    int faults = 0;
    for (size_t size = 0; size < bytes.size(); ++size) {
      // A heap copy of the exact size, so that a read past the end is seen.
      const std::vector<char> prefix(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(size));
      faults += DecodeEnvelope({prefix.data(), prefix.size()}, kBytesMax).ok() ? 0 : 1;
    }
    EXPECT_GT(faults, 0) << NameOf(message);
  }
  EXPECT_FALSE(DecodeEnvelope("", kBytesMax).ok());
}

TEST(CodecTest, FlippedBitsNeverCrash) {
  const WireContext quiet;  // protobuf would print each string that is not UTF-8
  int accepted = 0;
  for (const Message& message : AllMessages()) {
    std::string bytes = EncodeEnvelope(EnvelopeOf(message));
    for (size_t i = 0; i < bytes.size(); ++i) {
      for (int bit = 0; bit < 8; ++bit) {
        bytes[i] = static_cast<char>(bytes[i] ^ (1 << bit));
        const auto decoded = DecodeEnvelope(bytes, kBytesMax);
        if (decoded.ok()) {
          ++accepted;
          EXPECT_TRUE(DecodeEnvelope(EncodeEnvelope(*decoded), kBytesMax).ok());
        }
        bytes[i] = static_cast<char>(bytes[i] ^ (1 << bit));
      }
    }
  }
  EXPECT_GT(accepted, 0) << "flips in numbers and names are other, valid messages";
}

// Bytes at random have no sender, no version and no body. What a flipped byte leaves readable means
// the same when it is written and read again.
TEST(CodecTest, RandomBytesAreRefusedAndFlippedOnesAreReadOneWay) {
  const WireContext quiet;
  std::mt19937 random(1);
  for (int i = 0; i < 20'000; ++i) {
    std::string bytes(random() % 64, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random());
    const auto decoded = DecodeEnvelope(bytes, kBytesMax);
    ASSERT_FALSE(decoded.ok());
    EXPECT_TRUE(decoded.status().message().starts_with("envelope: ")) << decoded.status().message();
  }
  const std::string valid = EncodeEnvelope(EnvelopeOf(FullSubmit()));
  size_t refused = 0;
  for (size_t offset = 0; offset < valid.size(); ++offset) {
    for (const int mask : {0x01, 0x10, 0x80}) {
      std::string bytes = valid;
      bytes[offset] = static_cast<char>(bytes[offset] ^ mask);
      const auto once = DecodeEnvelope(bytes, kBytesMax);
      refused += once.ok() ? 0 : 1;
      if (!once.ok()) continue;
      const std::string again = EncodeEnvelope(*once);
      const auto twice = DecodeEnvelope(again, kBytesMax);
      ASSERT_TRUE(twice.ok()) << twice.status().message();
      EXPECT_EQ(EncodeEnvelope(*twice), again);
    }
  }
  EXPECT_GT(refused, valid.size() / 2);
}

TEST(CodecTest, SizeIsCheckedBeforeParsing) {
  const std::string bytes = EncodeEnvelope(EnvelopeOf(Goodbye{std::string(500, 'x')}));
  EXPECT_TRUE(DecodeEnvelope(bytes, bytes.size()).ok());
  const auto decoded = DecodeEnvelope(bytes, bytes.size() - 1);
  ASSERT_FALSE(decoded.ok());
  EXPECT_NE(decoded.status().message().find("the limit is"), std::string::npos);
}

TEST(CodecTest, AnotherVersionIsRefusedWithTheFix) {
  pb::Envelope proto = ProtoOf(Heartbeat{});
  for (const uint32_t version : {0U, kProtocolVersion + 1, ~0U}) {
    proto.set_version(version);
    EXPECT_NE(FaultOf(proto).find("same release"), std::string::npos) << version;
  }
}

TEST(CodecTest, EnvelopeWithoutABodyIsRefused) {
  pb::Envelope proto;
  proto.set_version(kProtocolVersion);
  EXPECT_EQ(FaultOf(proto), "envelope: no body that this version knows");
}

TEST(CodecTest, EnumsOutOfRangeAreRefusedByName) {
  pb::Envelope proto = ProtoOf(AllMessages()[0]);
  proto.mutable_hello()->set_role(4);
  EXPECT_EQ(FaultOf(proto).substr(0, 11), "hello.role:");
  proto = ProtoOf(AllMessages()[6]);
  proto.mutable_place()->set_request_class(3);
  EXPECT_EQ(FaultOf(proto).substr(0, 20), "place.request_class:");
  proto = ProtoOf(AllMessages()[8]);
  proto.mutable_refused()->set_code(10);
  EXPECT_EQ(FaultOf(proto).substr(0, 13), "refused.code:");
  proto.mutable_refused()->set_code(0);
  EXPECT_EQ(FaultOf(proto), "refused.code: ok is no refusal");
  proto = ProtoOf(FullSubmit());
  proto.mutable_submit()->set_request_class(256);
  EXPECT_EQ(FaultOf(proto).substr(0, 21), "submit.request_class:");
  proto = ProtoOf(Tokens{{FullUpdate()}});
  proto.mutable_tokens()->mutable_updates(0)->set_finish(6);
  EXPECT_EQ(FaultOf(proto).substr(0, 22), "tokens.updates.finish:");
  proto = ProtoOf(Tokens{{FullUpdate()}});
  proto.mutable_tokens()->mutable_updates(0)->set_error_code(~0U);
  EXPECT_EQ(FaultOf(proto).substr(0, 26), "tokens.updates.error_code:");
}

TEST(CodecTest, MissingIdsNegativeTokensAndNegativeTimesAreRefused) {
  pb::Envelope proto = ProtoOf(AllMessages()[6]);
  proto.mutable_place()->clear_request();
  EXPECT_EQ(FaultOf(proto), "place: no request id");
  proto = ProtoOf(AllMessages()[6]);
  proto.mutable_place()->set_timeout_us(-1);
  EXPECT_EQ(FaultOf(proto), "place.timeout_us: negative");
  proto = ProtoOf(FullSubmit());
  proto.mutable_submit()->clear_sequence();
  EXPECT_EQ(FaultOf(proto), "submit: no sequence id");
  proto = ProtoOf(FullSubmit());
  proto.mutable_submit()->add_prompt(-1);
  EXPECT_EQ(FaultOf(proto), "submit.prompt: negative token id");
  proto = ProtoOf(FullSubmit());
  proto.mutable_submit()->mutable_sampling()->add_logit_bias()->set_id(-5);
  EXPECT_EQ(FaultOf(proto), "submit.sampling.logit_bias: negative token id");
  proto = ProtoOf(Tokens{{FullUpdate()}});
  proto.mutable_tokens()->mutable_updates(0)->mutable_tokens(0)->set_id(-1);
  EXPECT_EQ(FaultOf(proto), "tokens.updates.tokens: negative token id");
}

TEST(CodecTest, NamesAndListsOverTheirLimitsAreRefused) {
  pb::Envelope proto = ProtoOf(AllMessages()[6]);
  proto.mutable_place()->set_model(std::string(1025, 'x'));
  EXPECT_EQ(FaultOf(proto), "place.model: size 1025, the limit is 1024");
  proto = ProtoOf(AllMessages()[0]);
  for (int i = 0; i < 1024; ++i) proto.mutable_hello()->add_replicas();
  EXPECT_EQ(FaultOf(proto), "hello.replicas: size 1026, the limit is 1024");
  proto = ProtoOf(Goodbye{});
  proto.mutable_goodbye()->set_reason(std::string(70'000, 'x'));
  EXPECT_EQ(FaultOf(proto), "goodbye.reason: size 70000, the limit is 65536");
  proto = ProtoOf(Heartbeat{});
  proto.set_sender(std::string(2000, 'x'));
  EXPECT_EQ(FaultOf(proto), "envelope.sender: size 2000, the limit is 1024");
}

TEST(CodecTest, UnknownFieldsOfALaterReleaseAreIgnored) {
  std::string bytes = EncodeEnvelope(EnvelopeOf(Heartbeat{}));
  bytes += std::string("\xFA\x3F\x03new", 6);  // field 1023, three bytes
  EXPECT_TRUE(DecodeEnvelope(bytes, kBytesMax).ok());
}

}  // namespace
}  // namespace muselet
