#include "node/engine/node_admission.h"

#include <gtest/gtest.h>

namespace muselet {
namespace {

constexpr uint64_t kEpoch = 7;

SequenceId Id(uint64_t number, uint32_t choice = 0) {
  return {{0, number}, choice};
}

Submit MakeSubmit(uint64_t number, uint32_t attempt = 0) {
  Submit submit;
  submit.sequence = Id(number);
  submit.attempt = attempt;
  submit.epoch = kEpoch;
  submit.replica = "r0";
  submit.prompt = {1};
  return submit;
}

TokenUpdate Update(uint64_t number, FinishReason finish = FinishReason::kNone,
                   uint32_t attempt = 0) {
  TokenUpdate update;
  update.sequence = Id(number);
  update.attempt = attempt;
  update.tokens = {{5, 0, {}}};
  update.finish = finish;
  return update;
}

class NodeAdmissionTest : public ::testing::Test {
 protected:
  NodeAdmissionOutput Say(const std::string& gateway, Message message, uint64_t instance = 1) {
    return admission_.OnMessage("to-" + gateway, {gateway, instance, 0, std::move(message)},
                                now_us_);
  }
  void SetUp() override { Say("g0", Hello{}); }

  // The one refusal in the output.
  static TokenUpdate Refusal(const NodeAdmissionOutput& output) {
    for (const auto& [connection, message] : output.messages) {
      if (const auto* tokens = std::get_if<Tokens>(&message)) return tokens->updates.at(0);
    }
    ADD_FAILURE() << "nothing was refused";
    return {};
  }

  NodeAdmission admission_{{"n0", "r0", kEpoch, 1'000'000, 4}};
  int64_t now_us_ = 100;
};

TEST_F(NodeAdmissionTest, HelloIsAnsweredByWelcomeEveryTime) {
  for (int i = 0; i < 2; ++i) {
    const auto output = Say("g1", Hello{});
    ASSERT_EQ(output.messages.size(), 1U);
    EXPECT_EQ(output.messages[0].first, "to-g1");
    EXPECT_EQ(std::get<Welcome>(output.messages[0].second).name, "n0");
  }
}

TEST_F(NodeAdmissionTest, StrangersAreToldThatTheyAreUnknown) {
  const auto output = Say("g9", Heartbeat{});
  ASSERT_EQ(output.messages.size(), 1U);
  EXPECT_TRUE(std::holds_alternative<Unknown>(output.messages[0].second));
  const auto submitted = Say("g9", MakeSubmit(1));
  EXPECT_TRUE(submitted.commands.empty());
  EXPECT_EQ(Refusal(submitted).error_code, StatusCode::kUnavailable);
}

TEST_F(NodeAdmissionTest, ASubmitOfTheRightEpochGoesToTheStepLoopOnce) {
  EXPECT_EQ(Say("g0", MakeSubmit(1)).commands.size(), 1U);
  EXPECT_EQ(Say("g0", MakeSubmit(1)).commands.size(), 0U);
  EXPECT_EQ(Say("g0", MakeSubmit(1, 1)).commands.size(), 1U);  // a newer attempt
  EXPECT_EQ(Say("g0", MakeSubmit(1, 0)).commands.size(), 0U);
  EXPECT_EQ(admission_.sequence_count(), 1U);
}

TEST_F(NodeAdmissionTest, OtherEpochOtherReplicaAndDrainingAreRefusedAsUnavailable) {
  Submit submit = MakeSubmit(1);
  submit.epoch = kEpoch + 1;
  EXPECT_EQ(Refusal(Say("g0", submit)).error_code, StatusCode::kUnavailable);
  submit = MakeSubmit(1);
  submit.replica = "r1";
  EXPECT_EQ(Refusal(Say("g0", submit)).error_code, StatusCode::kUnavailable);
  admission_.StartDraining();
  const TokenUpdate refusal = Refusal(Say("g0", MakeSubmit(1)));
  EXPECT_EQ(refusal.error_code, StatusCode::kUnavailable);
  EXPECT_EQ(refusal.finish, FinishReason::kError);
  EXPECT_EQ(refusal.sequence, Id(1));
}

TEST_F(NodeAdmissionTest, HoldsNoMoreThanItsLimit) {
  for (uint64_t number = 0; number < 4; ++number) Say("g0", MakeSubmit(number));
  EXPECT_EQ(Refusal(Say("g0", MakeSubmit(4))).error_code, StatusCode::kResourceExhausted);
  EXPECT_EQ(Say("g0", MakeSubmit(3, 1)).commands.size(), 1U);  // replaces, adds nothing
}

TEST_F(NodeAdmissionTest, UpdatesAreOneMessageAGateway) {
  Say("g1", Hello{});
  Say("g0", MakeSubmit(1));
  Say("g0", MakeSubmit(2));
  Say("g1", MakeSubmit(3));
  const auto output = admission_.OnUpdates({Update(1), Update(3), Update(2)}, now_us_);
  ASSERT_EQ(output.messages.size(), 2U);
  EXPECT_EQ(output.messages[0].first, "to-g0");
  EXPECT_EQ(std::get<Tokens>(output.messages[0].second).updates.size(), 2U);
  EXPECT_EQ(std::get<Tokens>(output.messages[1].second).updates.size(), 1U);
}

TEST_F(NodeAdmissionTest, LateAndUnknownUpdatesAreCountedAndDropped) {
  Say("g0", MakeSubmit(1, 2));
  const auto output = admission_.OnUpdates({Update(1, FinishReason::kNone, 1), Update(9)}, now_us_);
  EXPECT_TRUE(output.messages.empty());
  EXPECT_EQ(admission_.dropped_count(), 2U);
}

TEST_F(NodeAdmissionTest, WhatEndedHereDoesNotStartAgain) {
  Say("g0", MakeSubmit(1));
  admission_.OnUpdates({Update(1, FinishReason::kStop)}, now_us_);
  EXPECT_EQ(admission_.sequence_count(), 0U);
  EXPECT_TRUE(Say("g0", MakeSubmit(1)).commands.empty());
  EXPECT_EQ(Say("g0", MakeSubmit(1, 1)).commands.size(), 1U);
}

TEST_F(NodeAdmissionTest, CancelReachesTheStepLoopAndALateSubmitDoesNot) {
  Say("g0", MakeSubmit(1));
  EXPECT_EQ(Say("g0", Cancel{Id(1), 0}).commands.size(), 1U);
  EXPECT_TRUE(Say("g0", Cancel{Id(2), 0}).commands.empty());
  EXPECT_TRUE(Say("g0", MakeSubmit(2)).commands.empty());
  EXPECT_EQ(admission_.sequence_count(), 0U);
}

TEST_F(NodeAdmissionTest, CancelOfAnOldAttemptLeavesTheNewOne) {
  Say("g0", MakeSubmit(1, 1));
  EXPECT_TRUE(Say("g0", Cancel{Id(1), 0}).commands.empty());
  EXPECT_EQ(admission_.sequence_count(), 1U);
}

TEST_F(NodeAdmissionTest, ASilentGatewaysSequencesAreCancelled) {
  Say("g1", Hello{});
  Say("g0", MakeSubmit(1));
  Say("g1", MakeSubmit(2));
  admission_.OnTick(now_us_);
  now_us_ += 450'000;
  admission_.OnTick(now_us_);
  now_us_ += 450'000;
  Say("g1", Heartbeat{});
  admission_.OnTick(now_us_);
  now_us_ += 200'000;
  const auto output = admission_.OnTick(now_us_);
  ASSERT_EQ(output.commands.size(), 1U);
  EXPECT_EQ(std::get<Cancel>(output.commands[0]).sequence, Id(1));
  EXPECT_EQ(admission_.gateway_count(), 1U);
  // Back again, it must learn that it was forgotten.
  EXPECT_TRUE(std::holds_alternative<Unknown>(Say("g0", Heartbeat{}).messages.at(0).second));
}

TEST_F(NodeAdmissionTest, ANodeThatWasStuckDoesNotTakeItsGatewaysForSilent) {
  admission_.OnTick(now_us_);
  Say("g0", MakeSubmit(1));
  now_us_ += 5'000'000;  // what g0 said meanwhile is still unread
  EXPECT_TRUE(admission_.OnTick(now_us_).commands.empty());
  EXPECT_EQ(admission_.gateway_count(), 1U);
}

TEST_F(NodeAdmissionTest, FarewellGoesToEveryGateway) {
  Say("g1", Hello{});
  const auto output = admission_.Farewell();
  ASSERT_EQ(output.messages.size(), 2U);
  for (const auto& [connection, message] : output.messages)
    EXPECT_TRUE(std::holds_alternative<Goodbye>(message)) << connection;
}

TEST_F(NodeAdmissionTest, ARestartedGatewayLeavesNothingBehind) {
  Say("g0", MakeSubmit(1));
  EXPECT_EQ(Say("g0", Hello{}, 2).commands.size(), 1U);
  EXPECT_EQ(admission_.sequence_count(), 0U);
  EXPECT_TRUE(std::holds_alternative<Unknown>(Say("g0", Heartbeat{}, 1).messages.at(0).second));
}

TEST_F(NodeAdmissionTest, TokensThatCouldNotBeSentEndTheirSequences) {
  Say("g0", MakeSubmit(1));
  Say("g0", MakeSubmit(2));
  const auto output = admission_.OnUpdates({Update(1)}, now_us_);
  const auto ended = admission_.OnSendFailed(output.messages.at(0).second);
  ASSERT_EQ(ended.commands.size(), 1U);
  EXPECT_EQ(std::get<Cancel>(ended.commands[0]).sequence, Id(1));
  EXPECT_EQ(admission_.ActiveSequences(), std::vector<SequenceId>{Id(2)});
}

}  // namespace
}  // namespace muselet
