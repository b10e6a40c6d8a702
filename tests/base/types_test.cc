#include "base/types.h"

#include <gtest/gtest.h>

namespace muselet {
namespace {

TEST(RequestId, SurvivesTheRoundTripThroughText) {
  const RequestId id = RequestId::Random();
  EXPECT_EQ(*RequestId::Parse(id.ToString()), id);
  EXPECT_EQ((RequestId{0x1, 0xAB}).ToString(), "000000000000000100000000000000ab");
}

TEST(RequestId, RefusesOtherText) {
  EXPECT_FALSE(RequestId::Parse("12").ok());
  EXPECT_FALSE(RequestId::Parse(std::string(31, '0') + "g").ok());
  EXPECT_FALSE(RequestId::Parse(std::string(31, '0') + " ").ok());
}

}  // namespace
}  // namespace muselet
