#include "node/role_loop.h"

#include <gtest/gtest.h>

#include <atomic>

namespace muselet {
namespace {

TEST(RoleLoop, AnswersQuestionsOnItsOwnThread) {
  RoleLoop role("role");
  role.Start();
  std::thread::id asked_on;
  EXPECT_TRUE(role.Ask([&] {
                    asked_on = std::this_thread::get_id();
                    return OkStatus();
                  })
                  .ok());
  EXPECT_NE(asked_on, std::this_thread::get_id());
  EXPECT_NE(asked_on, std::thread::id());
}

TEST(RoleLoop, SaysThatABusyLoopDoesNotAnswer) {
  RoleLoop role("role");
  role.Start();
  std::atomic<bool> release = false;
  role.loop().Post([&] {
    while (!release) std::this_thread::yield();
  });
  const Status status = role.Ask([] { return OkStatus(); }, /*timeout_us=*/1000);
  release = true;
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
}

TEST(RoleLoop, StopsTwiceAndWithoutStart) {
  RoleLoop never("never");
  never.Stop();
  RoleLoop role("role");
  role.Start();
  role.Stop();
  role.Stop();
  EXPECT_FALSE(role.Ask([] { return OkStatus(); }, 1000).ok());
}

}  // namespace
}  // namespace muselet
