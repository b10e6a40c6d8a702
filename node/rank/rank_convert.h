// Field by field between rank_messages.h and the generated classes of rank.proto. Private to
// rank_codec. ToWire fills an empty message; FromWire fills a default-made struct, or says which
// field is out of bounds.
#pragma once

#include "node/rank/rank_codec.h"
#include "rank.pb.h"

namespace muselet {

void ToWire(const RankJoin& from, rank::v1::Join& to);
void ToWire(const RankPut& from, rank::v1::Put& to);
void ToWire(const RankReady& from, rank::v1::Ready& to);
void ToWire(const RankDone& from, rank::v1::Done& to);
void ToWire(const RankFault& from, rank::v1::Broken& to);
void ToWire(const RankAlive& from, rank::v1::Alive& to);
void ToWire(const RankForm& from, rank::v1::Form& to);
void ToWire(const RankValue& from, rank::v1::Value& to);
void ToWire(const RankStart& from, rank::v1::Start& to);
void ToWire(const RankStep& from, rank::v1::Step& to);
void ToWire(const RankAbort& from, rank::v1::Abort& to);
void ToWire(const RankRefused& from, rank::v1::Refused& to);
void ToWire(const LeaderAlive& from, rank::v1::LeaderAlive& to);

Status FromWire(const rank::v1::Join& from, const RankLimits& limits, RankJoin& to);
Status FromWire(const rank::v1::Put& from, const RankLimits& limits, RankPut& to);
Status FromWire(const rank::v1::Ready& from, const RankLimits& limits, RankReady& to);
Status FromWire(const rank::v1::Done& from, const RankLimits& limits, RankDone& to);
Status FromWire(const rank::v1::Broken& from, const RankLimits& limits, RankFault& to);
Status FromWire(const rank::v1::Alive& from, const RankLimits& limits, RankAlive& to);
Status FromWire(const rank::v1::Form& from, const RankLimits& limits, RankForm& to);
Status FromWire(const rank::v1::Value& from, const RankLimits& limits, RankValue& to);
Status FromWire(const rank::v1::Start& from, const RankLimits& limits, RankStart& to);
Status FromWire(const rank::v1::Step& from, const RankLimits& limits, RankStep& to);
Status FromWire(const rank::v1::Abort& from, const RankLimits& limits, RankAbort& to);
Status FromWire(const rank::v1::Refused& from, const RankLimits& limits, RankRefused& to);
Status FromWire(const rank::v1::LeaderAlive& from, const RankLimits& limits, LeaderAlive& to);

// The parts of a Step: rank_step_decode.cc.
Status FromWire(const rank::v1::Plan& from, const RankLimits& limits, StepPlan& to);
Status FromWire(const rank::v1::SlotStart& from, const RankLimits& limits, SlotStart& to);

}  // namespace muselet
