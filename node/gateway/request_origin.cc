#include "node/gateway/request_origin.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <optional>

namespace muselet {
namespace {

constexpr size_t kKeyBytesMax = 255;
constexpr size_t kPointsMax = 4096;
constexpr int64_t kDayS = 86'400;
constexpr int64_t kSecondUs = 1'000'000;

// The token's bytes: flags, created, nonce, signature; 33 of them are 44 characters of base64.
constexpr size_t kCreatedAt = 1;
constexpr size_t kNonceAt = 5;
constexpr size_t kSignatureAt = 21;
constexpr size_t kTokenBytes = 33;
constexpr size_t kTokenCharacters = kTokenBytes / 3 * 4;
constexpr uint8_t kKeyedFlag = 1;
using TokenBytes = std::array<uint8_t, kTokenBytes>;

GenerationError Fault(const char* header, const std::string& problem, std::string_view code = {}) {
  return {InvalidArgument(std::string(header) + " " + problem), header, 0, code};
}

RequestId FirstBits(const ClusterSecret::Digest& digest) {
  RequestId bits;
  std::memcpy(&bits.high, digest.data(), sizeof(bits.high));
  std::memcpy(&bits.low, digest.data() + sizeof(bits.high), sizeof(bits.low));
  return bits;
}

std::string_view BytesOf(const RequestId& id) {
  return {reinterpret_cast<const char*>(&id), sizeof(id)};
}

bool IsKey(std::string_view key) {
  return key.size() <= kKeyBytesMax &&
         std::all_of(key.begin(), key.end(), [](char c) { return c >= 0x20 && c < 0x7F; });
}

std::optional<TokenBytes> DecodeToken(std::string_view text) {
  if (text.size() != kTokenCharacters) return std::nullopt;
  TokenBytes bytes;
  const int count = EVP_DecodeBlock(bytes.data(), reinterpret_cast<const uint8_t*>(text.data()),
                                    static_cast<int>(text.size()));
  if (count != static_cast<int>(kTokenBytes)) return std::nullopt;
  return bytes;
}

std::optional<std::vector<ResumePoint>> ParsePosition(std::string_view text) {
  std::vector<ResumePoint> points;
  const char* at = text.data();
  const char* const end = text.data() + text.size();
  while (points.size() < kPointsMax) {
    ResumePoint& point = points.emplace_back();
    const auto parsed = std::from_chars(at, end, point.tokens);
    if (parsed.ec != std::errc()) return std::nullopt;
    at = parsed.ptr;
    if (at != end && *at == 't') {
      point.stage = ResumePoint::Stage::kText;
      ++at;
    } else if (at != end && *at == 'f') {
      point.stage = ResumePoint::Stage::kFinished;
      ++at;
    }
    if (at == end) return points;
    if (*at++ != '-') return std::nullopt;
  }
  return std::nullopt;
}

}  // namespace

void AppendPosition(std::span<const ResumePoint> points, std::string& out) {
  char separator = '.';
  for (const ResumePoint& point : points) {
    out += std::exchange(separator, '-');
    out += std::to_string(point.tokens);
    if (point.stage == ResumePoint::Stage::kText) out += 't';
    if (point.stage == ResumePoint::Stage::kFinished) out += 'f';
  }
}

RequestOrigins::RequestOrigins(ClusterSecret secret, size_t keys_max)
    : secret_(secret), keys_max_(keys_max) {}

RequestOrigins::Body RequestOrigins::DigestOf(const RequestClaim& claim) {
  // The kind goes into the seed: the same bytes sent to two endpoints are two requests.
  const uint64_t kind = XXH3_64bits(claim.kind.data(), claim.kind.size());
  const XXH128_hash_t hash = XXH3_128bits_withSeed(claim.body.data(), claim.body.size(), kind);
  return {hash.high64, hash.low64};
}

// False if the key is known with another body.
bool RequestOrigins::Remember(const RequestClaim& claim, const Body& body) {
  const RequestId name = FirstBits(secret_.Sign({"key", claim.surface, claim.key}));
  const auto [known, fresh] = keys_.emplace(name, body);
  if (!fresh) return known->second == body;
  order_.push_back(name);
  if (order_.size() > keys_max_) {
    keys_.erase(order_.front());
    order_.pop_front();
  }
  return true;
}

std::variant<RequestOrigin, GenerationError> RequestOrigins::Open(const RequestClaim& claim,
                                                                  int64_t now_unix_us) {
  if (!IsKey(claim.key))
    return Fault("Idempotency-Key",
                 "must be 1 to " + std::to_string(kKeyBytesMax) + " printable ASCII characters");
  const Body body = DigestOf(claim);
  RequestOrigin origin;
  origin.created_unix_s = now_unix_us / kSecondUs;
  origin.keyed = !claim.key.empty();
  if (origin.keyed) {
    origin.nonce =
        FirstBits(secret_.Sign({"origin", claim.surface, claim.key, claim.kind, body.bytes()}));
    origin.may_run = true;
    if (!Remember(claim, body))
      return Fault("Idempotency-Key",
                   "was used for another request already: a key belongs to one body",
                   "idempotency_key_reused");
  }
  if (!claim.event_id.empty()) return Resume(claim, body, origin);
  if (!origin.keyed) origin.nonce = RequestId::Random();
  origin.token = TokenOf(origin, claim, body);
  return origin;
}

std::variant<RequestOrigin, GenerationError> RequestOrigins::Resume(
    const RequestClaim& claim, const Body& body, const RequestOrigin& fresh) const {
  const size_t dot = claim.event_id.find('.');
  const std::string_view text = claim.event_id.substr(0, dot);
  const auto bytes = DecodeToken(text);
  auto points =
      dot == std::string_view::npos ? std::nullopt : ParsePosition(claim.event_id.substr(dot + 1));
  if (!bytes || !points) return Fault("Last-Event-ID", "is not the id of an event of this service");
  RequestOrigin origin;
  origin.keyed = ((*bytes)[0] & kKeyedFlag) != 0;
  uint32_t created = 0;
  std::memcpy(&created, bytes->data() + kCreatedAt, sizeof(created));
  origin.created_unix_s = created;
  std::memcpy(&origin.nonce, bytes->data() + kNonceAt, sizeof(origin.nonce));
  origin.may_run = true;
  origin.resume = *std::move(points);
  origin.token = TokenOf(origin, claim, body);
  const bool signed_here = origin.token.size() == text.size() &&
                           CRYPTO_memcmp(origin.token.data(), text.data(), text.size()) == 0;
  if (!signed_here)
    return Fault("Last-Event-ID",
                 "belongs to another request: send the very body and key of the stream that it "
                 "came from, to a gateway with the same security.secret_file",
                 "event_id_mismatch");
  if (fresh.keyed && fresh.nonce != origin.nonce)
    return Fault("Idempotency-Key", "is not that of the stream which Last-Event-ID came from",
                 "idempotency_key_reused");
  return origin;
}

std::string RequestOrigins::TokenOf(const RequestOrigin& origin, const RequestClaim& claim,
                                    const Body& body) const {
  TokenBytes bytes = {};
  bytes[0] = origin.keyed ? kKeyedFlag : 0;
  const auto created = static_cast<uint32_t>(origin.created_unix_s);
  std::memcpy(bytes.data() + kCreatedAt, &created, sizeof(created));
  std::memcpy(bytes.data() + kNonceAt, &origin.nonce, sizeof(origin.nonce));
  const std::string_view fixed(reinterpret_cast<const char*>(bytes.data()), kSignatureAt);
  const ClusterSecret::Digest signature =
      secret_.Sign({"token", claim.surface, claim.kind, body.bytes(), fixed});
  std::copy_n(signature.begin(), kTokenBytes - kSignatureAt, bytes.begin() + kSignatureAt);
  std::array<unsigned char, kTokenCharacters + 1> text;
  EVP_EncodeBlock(text.data(), bytes.data(), static_cast<int>(bytes.size()));
  return {reinterpret_cast<const char*>(text.data()), kTokenCharacters};
}

FixedParts RequestOrigins::PartsOf(const RequestOrigin& origin, uint32_t prompt) const {
  const std::string number = std::to_string(prompt);
  FixedParts parts;
  parts.id = FirstBits(secret_.Sign({"request", BytesOf(origin.nonce), number}));
  parts.seed = FirstBits(secret_.Sign({"seed", BytesOf(origin.nonce), number})).low;
  // Nobody remembers when a key was first used: the day is as exact as its clock can be.
  const int64_t shown_s =
      origin.keyed ? origin.created_unix_s / kDayS * kDayS : origin.created_unix_s;
  parts.now_unix_us = shown_s * kSecondUs;
  parts.may_run = origin.may_run;
  return parts;
}

}  // namespace muselet
