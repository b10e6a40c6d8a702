#include "node/gateway/audit_table.h"

#include <gtest/gtest.h>

namespace muselet {
namespace {

using Outcome = AuditTable::Outcome;

AuditCase Case() {
  AuditCase audit;
  audit.record.request = {1, 1};
  audit.record.model = "m";
  audit.record.choices = 2;
  audit.record.prompt = {1, 2};
  audit.record.stop.max_tokens = 100;
  audit.record.sampling.logprobs = 5;
  audit.record.join = {9, 9};
  audit.generated = {{7, 8, 9}, {5}};
  audit.replica = "r0";
  return audit;
}

Delivered Tokens(const RequestId& id, uint32_t choice, std::vector<TokenId> ids,
                 FinishReason finish = FinishReason::kNone) {
  Delivered delivered;
  delivered.sequence = {id, choice};
  for (const TokenId token : ids) delivered.tokens.push_back({token, 0.0F, {}});
  delivered.finish = finish;
  return delivered;
}

class AuditTableTest : public ::testing::Test {
 protected:
  AuditTableTest() : record_(*table_.Begin(Case(), 1000)) {}
  std::vector<uint32_t> Say(uint32_t choice, std::vector<TokenId> ids,
                            FinishReason finish = FinishReason::kNone) {
    return table_.Take(Tokens(record_.request, choice, std::move(ids), finish));
  }
  AuditTable::Report End(Status status = OkStatus()) {
    return table_.End({record_.request, std::move(status)});
  }

  AuditTable table_{1};
  RequestRecord record_;
};

TEST_F(AuditTableTest, ComputesTheSameElsewhereInTheLowestClass) {
  EXPECT_NE(record_.request, (RequestId{1, 1}));
  EXPECT_EQ(record_.request_class, RequestClass::kBatch);
  EXPECT_EQ(record_.avoid, "r0");
  EXPECT_EQ(record_.stop.max_tokens, 3U);
  EXPECT_EQ(record_.sampling.logprobs, -1);
  EXPECT_EQ(record_.join, RequestId());
  EXPECT_FALSE(table_.Begin(Case(), 1000)) << "one at once";
}

TEST_F(AuditTableTest, EqualTokensMatchAndNoMoreAreWanted) {
  EXPECT_TRUE(Say(0, {7, 8}).empty());
  EXPECT_EQ(Say(1, {5, 6}), std::vector<uint32_t>{1});  // its text ended there
  EXPECT_TRUE(Say(0, {9}, FinishReason::kLength).empty());
  const AuditTable::Report report = End();
  EXPECT_EQ(report.outcome, Outcome::kMatch);
  EXPECT_EQ(report.checked, (RequestId{1, 1}));
  EXPECT_FALSE(table_.Has(record_.request));
}

TEST_F(AuditTableTest, TheFirstDifferenceIsTold) {
  EXPECT_EQ(Say(0, {7, 4, 9}), std::vector<uint32_t>{0});
  EXPECT_EQ(Say(1, {5}), std::vector<uint32_t>{1});
  const AuditTable::Report report = End();
  EXPECT_EQ(report.outcome, Outcome::kMismatch);
  EXPECT_EQ(report.choice, 0U);
  EXPECT_EQ(report.index, 1U);
  EXPECT_EQ(report.replica, "r0");
}

TEST_F(AuditTableTest, AnEarlyEndIsADifferenceAndAFaultIsNone) {
  EXPECT_TRUE(Say(0, {7}, FinishReason::kStop).empty());
  EXPECT_EQ(End().outcome, Outcome::kMismatch);
  record_ = *table_.Begin(Case(), 1000);
  Say(0, {7});
  EXPECT_EQ(End(Unavailable("nobody else computes")).outcome, Outcome::kSkipped);
}

}  // namespace
}  // namespace muselet
