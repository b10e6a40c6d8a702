#include "node/config/machine.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace muselet {
namespace {

// A /proc and a /sys of its own for each test.
class MemoryLimitTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    root_ = std::string(::testing::TempDir()) + "muselet_machine_" + test->name() +
            std::to_string(getpid());
    Write("/proc/meminfo", "MemTotal:       8192 kB\nMemFree:        4096 kB\n");
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }
  std::string root_;
};

TEST_F(MemoryLimitTest, IsThePhysicalMemoryWithoutGroups) {
  const MemoryLimit limit = ReadMemoryLimit(root_);
  EXPECT_EQ(limit.bytes, 8192U * 1024);
  EXPECT_EQ(limit.source, "the memory of this machine");
}

TEST_F(MemoryLimitTest, IsTheSmallestLimitOfTheGroupsAroundTheProcess) {
  Write("/proc/self/cgroup", "0::/pod/container\n");
  Write("/sys/fs/cgroup/pod/container/memory.max", "max\n");
  Write("/sys/fs/cgroup/pod/memory.max", "1048576\n");
  const MemoryLimit limit = ReadMemoryLimit(root_);
  EXPECT_EQ(limit.bytes, 1048576U);
  EXPECT_EQ(limit.source,
            "the limit of this process's cgroup, " + root_ + "/sys/fs/cgroup/pod/memory.max");
}

TEST_F(MemoryLimitTest, ReadsTheFirstVersionsControllersToo) {
  Write("/proc/self/cgroup", "12:cpu,cpuacct:/x\n5:hugetlb,memory:/docker/abc\n0::/\n");
  // In a container the group's directory is not where the host has it.
  Write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "2097152\n");
  EXPECT_EQ(ReadMemoryLimit(root_).bytes, 2097152U);
  Write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(ReadMemoryLimit(root_).bytes, 8192U * 1024);
}

TEST_F(MemoryLimitTest, OfThisMachineIsKnown) {
  EXPECT_GT(ReadMemoryLimit().bytes, 1U << 20);
}

}  // namespace
}  // namespace muselet
