// Where the fixed parts of a request come from, so that it can be asked again and get the same
// answer from any gateway without a store.
//
//   with an Idempotency-Key   everything follows from HMAC(cluster secret; surface, key, body);
//                             the template's clock shows the beginning of the day (UTC)
//   without                   from 128 random bits
//
// A stream says what it was made of in the `id:` of its events: TOKEN.POSITION. The token is signed
// together with the surface and the digest of the body, so that it fits that request only; the
// position says how much of each choice went before. A client that repeats the body with the last
// id it saw (Last-Event-ID) gets the rest.
//
// A key that comes with another body is refused as long as this gateway remembers the key, and for
// ever where a token beside it says so.
//
// Owned by a gateway's loop.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/types.h"
#include "node/gateway/cluster_secret.h"
#include "node/gateway/generation.h"

namespace muselet {

// What a client says beside its request, and the request as bytes.
struct RequestClaim {
  std::string_view surface;
  std::string_view key;       // Idempotency-Key; empty = none
  std::string_view event_id;  // Last-Event-ID; empty = from the beginning
  std::string_view kind;      // of request, such as its path
  std::string_view body;
};

struct RequestOrigin {
  RequestId nonce;  // everything follows from these bits
  int64_t created_unix_s = 0;
  bool keyed = false;
  bool may_run = false;             // somebody may have asked for it before
  std::vector<ResumePoint> resume;  // of all choices of all prompts; empty: from the beginning
  std::string token;                // for event ids
};

class RequestOrigins {
 public:
  // At most `keys_max` keys are remembered, the last ones.
  RequestOrigins(ClusterSecret secret, size_t keys_max);

  // kInvalidArgument naming the header for a key or an id that is none; with the code
  // "idempotency_key_reused" or "event_id_mismatch" if it belongs to another request.
  std::variant<RequestOrigin, GenerationError> Open(const RequestClaim& claim, int64_t now_unix_us);
  // Of prompt number `prompt`.
  FixedParts PartsOf(const RequestOrigin& origin, uint32_t prompt) const;

  const ClusterSecret& secret() const { return secret_; }

 private:
  struct Body {
    uint64_t high = 0;
    uint64_t low = 0;
    friend bool operator==(const Body&, const Body&) = default;
    std::string_view bytes() const { return {reinterpret_cast<const char*>(this), sizeof(*this)}; }
  };
  static Body DigestOf(const RequestClaim& claim);
  bool Remember(const RequestClaim& claim, const Body& body);
  std::string TokenOf(const RequestOrigin& origin, const RequestClaim& claim,
                      const Body& body) const;
  std::variant<RequestOrigin, GenerationError> Resume(const RequestClaim& claim, const Body& body,
                                                      const RequestOrigin& fresh) const;

  const ClusterSecret secret_;
  const size_t keys_max_;
  std::unordered_map<RequestId, Body> keys_;  // by the hash of surface and key
  std::deque<RequestId> order_;               // oldest first
};

// ".17": what follows the token in an event's id. ".17t-3f" for two choices, the first with all its
// text, the second finished.
void AppendPosition(std::span<const ResumePoint> points, std::string& out);

}  // namespace muselet
