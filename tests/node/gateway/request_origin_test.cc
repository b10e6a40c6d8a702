#include "node/gateway/request_origin.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>

#include "tests/support/fixtures.h"

namespace muselet {
namespace {

using Stage = ResumePoint::Stage;

constexpr int64_t kNowUs = 1'800'000'123'000'000;

class RequestOriginTest : public ::testing::Test {
 protected:
  RequestOriginTest() : path_(::testing::TempDir() + "secret_" + std::to_string(::getpid())) {
    std::remove(path_.c_str());
    CHECK(WriteClusterSecret(path_).ok(), path_);
  }
  ~RequestOriginTest() override { std::remove(path_.c_str()); }

  // One more gateway of the cluster.
  RequestOrigins Gateway(size_t keys_max = 100) const {
    return RequestOrigins(*ClusterSecret::ReadFrom(path_), keys_max);
  }
  static RequestClaim Claim(std::string_view key, std::string_view body,
                            std::string_view event_id = "") {
    return {"chat", key, event_id, "/v1/chat/completions", body};
  }
  static RequestOrigin Open(RequestOrigins& origins, const RequestClaim& claim,
                            int64_t now_us = kNowUs) {
    auto opened = origins.Open(claim, now_us);
    if (const auto* fault = std::get_if<GenerationError>(&opened)) {
      ADD_FAILURE() << fault->status.message();
      return {};
    }
    return std::get<RequestOrigin>(opened);
  }
  static std::string CodeOf(RequestOrigins& origins, const RequestClaim& claim) {
    auto opened = origins.Open(claim, kNowUs);
    const auto* fault = std::get_if<GenerationError>(&opened);
    return fault == nullptr ? "ok" : fault->param + ":" + std::string(fault->code);
  }

  const std::string path_;
};

bool Same(const FixedParts& a, const FixedParts& b) {
  return a.id == b.id && a.seed == b.seed && a.now_unix_us == b.now_unix_us;
}

TEST_F(RequestOriginTest, AKeyGivesTheSamePartsAtEveryGatewayOnTheSameDay) {
  RequestOrigins one = Gateway();
  RequestOrigins other = Gateway();
  const RequestOrigin first = Open(one, Claim("k1", "body"));
  const RequestOrigin again = Open(other, Claim("k1", "body"), kNowUs + 600'000'000);
  EXPECT_TRUE(Same(one.PartsOf(first, 0), other.PartsOf(again, 0)));
  EXPECT_TRUE(other.PartsOf(again, 0).may_run);
  EXPECT_FALSE(Same(one.PartsOf(first, 0), one.PartsOf(first, 1)));
  // Other keys, bodies, surfaces, endpoints and clusters have other answers.
  RequestClaim elsewhere = Claim("k1", "body");
  elsewhere.surface = "glasses";
  EXPECT_NE(Open(one, elsewhere).nonce, first.nonce);
  EXPECT_NE(Open(one, Claim("k2", "body")).nonce, first.nonce);
  RequestOrigins third = Gateway();
  EXPECT_NE(Open(third, Claim("k1", "other")).nonce, first.nonce);
  RequestOrigins stranger(ClusterSecret::Random(), 100);
  EXPECT_NE(Open(stranger, Claim("k1", "body")).nonce, first.nonce);
}

TEST_F(RequestOriginTest, WithoutAKeyEachRequestIsItsOwn) {
  RequestOrigins origins = Gateway();
  const RequestOrigin one = Open(origins, Claim("", "body"));
  const RequestOrigin two = Open(origins, Claim("", "body"));
  EXPECT_NE(one.nonce, two.nonce);
  EXPECT_FALSE(origins.PartsOf(one, 0).may_run);
  EXPECT_EQ(origins.PartsOf(one, 0).now_unix_us, kNowUs);
}

TEST_F(RequestOriginTest, AKnownKeyWithAnotherBodyIsRefused) {
  RequestOrigins origins = Gateway(2);
  EXPECT_EQ(CodeOf(origins, Claim("k", "body")), "ok");
  EXPECT_EQ(CodeOf(origins, Claim("k", "body")), "ok");
  EXPECT_EQ(CodeOf(origins, Claim("k", "other")), "Idempotency-Key:idempotency_key_reused");
  // Only the last keys are remembered.
  EXPECT_EQ(CodeOf(origins, Claim("l", "body")), "ok");
  EXPECT_EQ(CodeOf(origins, Claim("m", "body")), "ok");
  EXPECT_EQ(CodeOf(origins, Claim("k", "other")), "ok");
  EXPECT_EQ(CodeOf(origins, Claim(std::string(256, 'k'), "body")), "Idempotency-Key:");
  EXPECT_EQ(CodeOf(origins, Claim("line\nbreak", "body")), "Idempotency-Key:");
}

TEST_F(RequestOriginTest, AnEventIdResumesAtAnotherGatewayAndLater) {
  RequestOrigins one = Gateway();
  const RequestOrigin begun = Open(one, Claim("", "body"));
  std::string id = begun.token;
  const std::vector<ResumePoint> points = {
      {17, Stage::kTokens}, {3, Stage::kText}, {0, {}}, {9, Stage::kFinished}};
  AppendPosition(points, id);
  EXPECT_EQ(id, begun.token + ".17-3t-0-9f");
  RequestOrigins other = Gateway();
  const RequestOrigin resumed = Open(other, Claim("", "body", id), kNowUs + 86'400'000'000);
  EXPECT_TRUE(Same(one.PartsOf(begun, 0), other.PartsOf(resumed, 0)));
  EXPECT_EQ(resumed.resume, points);
  EXPECT_EQ(resumed.token, begun.token);
  EXPECT_EQ(resumed.created_unix_s, begun.created_unix_s);
  EXPECT_TRUE(resumed.may_run);
}

TEST_F(RequestOriginTest, AnEventIdFitsItsOwnRequestOnly) {
  RequestOrigins origins = Gateway();
  const std::string id = Open(origins, Claim("", "body")).token + ".1";
  const char* mismatch = "Last-Event-ID:event_id_mismatch";
  EXPECT_EQ(CodeOf(origins, Claim("", "other", id)), mismatch);
  RequestClaim elsewhere = Claim("", "body", id);
  elsewhere.surface = "glasses";
  EXPECT_EQ(CodeOf(origins, elsewhere), mismatch);
  RequestOrigins stranger(ClusterSecret::Random(), 100);
  EXPECT_EQ(CodeOf(stranger, Claim("", "body", id)), mismatch);
  std::string forged = id;
  forged[8] = forged[8] == 'A' ? 'B' : 'A';
  EXPECT_EQ(CodeOf(origins, Claim("", "body", forged)), mismatch);
  // A key that is not the stream's says that something is wrong, even where nobody remembers it.
  const std::string keyed = Open(origins, Claim("k", "body")).token + ".1";
  EXPECT_EQ(CodeOf(origins, Claim("k", "body", keyed)), "ok");
  RequestOrigins fresh = Gateway();
  EXPECT_EQ(CodeOf(fresh, Claim("l", "body", keyed)), "Idempotency-Key:idempotency_key_reused");
  const std::string token = id.substr(0, id.find('.'));
  for (const std::string& bad :
       {std::string("x"), token, token + ".", token + ".1x", token + ".-1", token + ".1-",
        token + ".99999999999", "!" + id.substr(1), std::string(10'000, '.')})
    EXPECT_EQ(CodeOf(origins, Claim("", "body", bad)), "Last-Event-ID:") << bad.substr(0, 80);
}

TEST_F(RequestOriginTest, ASecretMustBeOwnAndLong) {
  EXPECT_FALSE(WriteClusterSecret(path_).ok()) << "never over a file";
  ASSERT_EQ(::chmod(path_.c_str(), 0640), 0);
  EXPECT_EQ(ClusterSecret::ReadFrom(path_).status().code(), StatusCode::kPermissionDenied);
  std::ofstream(path_) << " short \n";
  ASSERT_EQ(::chmod(path_.c_str(), 0600), 0);
  const Status status = ClusterSecret::ReadFrom(path_).status();
  EXPECT_EQ(status.message(), path_ +
                                  ": a secret needs 32 characters, this one has 5; muselet keys "
                                  "secret makes one");
  EXPECT_EQ(ClusterSecret::ReadFrom(path_ + ".none").status().code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace muselet
