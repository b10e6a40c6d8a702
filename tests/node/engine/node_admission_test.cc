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

TEST_F(NodeAdmissionTest, ASilentGatewaysSequencesAreOrphansForAWhile) {
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
  EXPECT_TRUE(admission_.OnTick(now_us_).commands.empty());
  EXPECT_EQ(admission_.gateway_count(), 1U);
  EXPECT_EQ(admission_.orphan_count(), 1U);
  EXPECT_EQ(admission_.ActiveSequences().size(), 2U);
  std::vector<StepCommand> commands;
  const int64_t lost_us = now_us_;
  while (commands.empty() && now_us_ < lost_us + 20'000'000) {
    now_us_ += 400'000;
    Say("g1", Heartbeat{});
    commands = admission_.OnTick(now_us_).commands;
  }
  ASSERT_EQ(commands.size(), 1U);
  EXPECT_EQ(std::get<Cancel>(commands[0]).sequence, Id(1));
  EXPECT_NEAR(static_cast<double>(now_us_ - lost_us), 10e6, 0.5e6);
  EXPECT_EQ(admission_.orphan_count(), 0U);
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

TEST_F(NodeAdmissionTest, WithoutATimeForOrphansWhatALostGatewayHadIsCancelledAtOnce) {
  NodeAdmission admission({"n0", "r0", kEpoch, 1'000'000, 4, 0});
  admission.OnMessage("c", {"g0", 1, 0, Hello{}}, 1);
  admission.OnMessage("c", {"g0", 1, 0, MakeSubmit(1)}, 1);
  EXPECT_EQ(admission.OnMessage("c", {"g0", 2, 0, Hello{}}, 1).commands.size(), 1U);
  EXPECT_EQ(admission.sequence_count(), 0U);
}

TEST_F(NodeAdmissionTest, AGatewayThatLeavesOnPurposeLeavesNothingBehind) {
  Say("g0", MakeSubmit(1));
  EXPECT_EQ(Say("g0", Goodbye{}).commands.size(), 1U);
  EXPECT_EQ(admission_.sequence_count(), 0U);
}

TEST_F(NodeAdmissionTest, ARestartedGatewayAdoptsWhatItLeftBehind) {
  Say("g0", MakeSubmit(1));
  EXPECT_TRUE(Say("g0", Hello{}, 2).commands.empty());
  EXPECT_EQ(admission_.orphan_count(), 1U);
  // What the old one says is not listened to.
  EXPECT_TRUE(Say("g0", Cancel{Id(1), 0}, 1).commands.empty());
  const auto adopted = Say("g0", MakeSubmit(1), 2);
  ASSERT_EQ(adopted.commands.size(), 1U);
  EXPECT_EQ(admission_.orphan_count(), 0U);
  EXPECT_TRUE(std::holds_alternative<Unknown>(Say("g0", Heartbeat{}, 1).messages.at(0).second));
}

TEST_F(NodeAdmissionTest, AnOrphanIsAdoptedAndOldUpdatesDoNotReachItsNewOwner) {
  Say("g1", Hello{});
  Say("g0", MakeSubmit(1));
  admission_.OnUnreachable("to-g0", now_us_);
  EXPECT_EQ(admission_.orphan_count(), 1U);
  // Nobody hears what it gives meanwhile.
  EXPECT_TRUE(admission_.OnUpdates({Update(1)}, now_us_).messages.empty());
  const auto adopted = Say("g1", MakeSubmit(1));
  ASSERT_EQ(adopted.commands.size(), 1U);
  const auto& passed_on = std::get<Submit>(adopted.commands[0]);
  EXPECT_GT(passed_on.attempt, 0U);  // for the batcher it is a newer attempt
  // Under way from before the adoption.
  EXPECT_TRUE(admission_.OnUpdates({Update(1)}, now_us_).messages.empty());
  const auto output =
      admission_.OnUpdates({Update(1, FinishReason::kStop, passed_on.attempt)}, now_us_);
  ASSERT_EQ(output.messages.size(), 1U);
  EXPECT_EQ(output.messages[0].first, "to-g1");
  EXPECT_EQ(std::get<Tokens>(output.messages[0].second).updates[0].attempt, 0U);
  EXPECT_EQ(admission_.sequence_count(), 0U);
}

TEST_F(NodeAdmissionTest, AGatewayThatComesBackDoesNotGetWhatAnotherHasAdopted) {
  Say("g1", Hello{});
  Say("g0", MakeSubmit(1));
  admission_.OnUnreachable("to-g0", now_us_);
  Say("g1", MakeSubmit(1));
  Say("g0", Hello{});
  const auto output = Say("g0", MakeSubmit(1, 1));
  EXPECT_TRUE(output.commands.empty());
  EXPECT_EQ(Refusal(output).error_code, StatusCode::kUnavailable);
  EXPECT_EQ(Refusal(output).attempt, 1U);
  EXPECT_TRUE(Say("g0", Cancel{Id(1), 5}).commands.empty());
  EXPECT_EQ(Say("g1", Cancel{Id(1), 0}).commands.size(), 1U);
}

TEST_F(NodeAdmissionTest, WhatAGatewayComputesIsNotGivenToAnother) {
  Say("g1", Hello{});
  Say("g0", MakeSubmit(1));
  EXPECT_EQ(Refusal(Say("g1", MakeSubmit(1, 3))).error_code, StatusCode::kUnavailable);
  EXPECT_EQ(admission_.OnUpdates({Update(1)}, now_us_).messages.at(0).first, "to-g0");
}

TEST_F(NodeAdmissionTest, WhatEndedForOneGatewayStartsForAnother) {
  Say("g1", Hello{});
  Say("g0", MakeSubmit(1));
  admission_.OnUpdates({Update(1, FinishReason::kStop)}, now_us_);
  const auto output = Say("g1", MakeSubmit(1));
  ASSERT_EQ(output.commands.size(), 1U);
  EXPECT_GT(std::get<Submit>(output.commands[0]).attempt, 0U);
}

TEST_F(NodeAdmissionTest, AnAttemptThatEndedIsAnswered) {
  Say("g0", MakeSubmit(1));
  admission_.OnUpdates({Update(1, FinishReason::kStop)}, now_us_);
  EXPECT_EQ(Refusal(Say("g0", MakeSubmit(1))).error_code, StatusCode::kUnavailable);
}

TEST_F(NodeAdmissionTest, ADrainingReplicaStillLetsOrphansBeAdopted) {
  Say("g1", Hello{});
  Say("g0", MakeSubmit(1));
  admission_.OnUnreachable("to-g0", now_us_);
  admission_.StartDraining();
  EXPECT_EQ(Say("g1", MakeSubmit(1)).commands.size(), 1U);
  EXPECT_EQ(Refusal(Say("g1", MakeSubmit(2))).error_code, StatusCode::kUnavailable);
}

TEST_F(NodeAdmissionTest, ABrokenConnectionIsFoundByAskingAll) {
  Say("g1", Hello{});
  const auto output = admission_.OnDisconnect();
  ASSERT_EQ(output.messages.size(), 2U);
  EXPECT_TRUE(std::holds_alternative<Welcome>(output.messages[0].second));
}

TEST_F(NodeAdmissionTest, TokensThatCouldNotBeSentLeaveAnOrphanAndTheGatewayIsTold) {
  Say("g0", MakeSubmit(1));
  Say("g0", MakeSubmit(2));
  const auto output = admission_.OnUpdates({Update(1)}, now_us_);
  EXPECT_TRUE(admission_.OnSendFailed(output.messages.at(0).second).commands.empty());
  EXPECT_EQ(admission_.orphan_count(), 1U);
  EXPECT_TRUE(admission_.OnUpdates({Update(1)}, now_us_).messages.empty());
  const TokenUpdate told = Refusal(admission_.OnTick(now_us_));
  EXPECT_EQ(told.sequence, Id(1));
  EXPECT_EQ(told.error_code, StatusCode::kUnavailable);
  EXPECT_TRUE(admission_.OnTick(now_us_).messages.empty());
  EXPECT_EQ(Say("g0", MakeSubmit(1, 1)).commands.size(), 1U);
  // An end that could not be sent is told as well.
  const auto end = admission_.OnUpdates({Update(2, FinishReason::kStop)}, now_us_);
  admission_.OnSendFailed(end.messages.at(0).second);
  EXPECT_EQ(Refusal(admission_.OnTick(now_us_)).sequence, Id(2));
}

}  // namespace
}  // namespace muselet
