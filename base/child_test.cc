// Real processes: a shell that does what a child may do.
#include "base/child.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <string>

namespace dsm {
namespace {

using testing::HasSubstr;

bool never() {
  return false;
}

ChildEnd shell(const std::string& script, const ChildLimits& limits = {}) {
  return run_child({"/bin/sh", "-c", script}, limits, never);
}

TEST(ChildTest, WhatAChildHasWrittenIsReadToItsEnd) {
  const ChildEnd end = shell("echo one; echo two; exec >&-; echo three >&2");
  EXPECT_EQ(end.output, "one\ntwo\n");
  EXPECT_EQ(end.problem, "");
}

TEST(ChildTest, OneThatCrashesIsToldByItsSignalWithWhatItHadWritten) {
  const ChildEnd end = shell("echo one; kill -SEGV $$");
  EXPECT_EQ(end.output, "one\n");
  EXPECT_EQ(end.problem, "was ended by SIGSEGV");
}

TEST(ChildTest, OneThatFailsIsToldByItsStatus) {
  EXPECT_EQ(shell("exit 3").problem, "ended with status 3");
}

TEST(ChildTest, OneThatHangsIsKilledAtItsDeadlineWithAllThatItHasStarted) {
  const ChildEnd end = shell("sleep 60 & echo $!; wait", {.time = Millis(300)});
  EXPECT_EQ(end.problem, "was not done after 300 ms");
  const pid_t started = std::stoi(end.output);
  // It may be about to end.
  pollfd file{static_cast<int>(::syscall(SYS_pidfd_open, started, 0)), POLLIN, 0};
  EXPECT_TRUE(file.fd < 0 || ::poll(&file, 1, 10'000) == 1);
  if (file.fd >= 0) ::close(file.fd);
}

TEST(ChildTest, WhatItHasStartedEndsWithIt) {
  const ChildEnd end = shell("sleep 60 & echo on");
  EXPECT_EQ(end.output, "on\n");
  EXPECT_EQ(end.problem, "");
}

TEST(ChildTest, OneThatWritesTooMuchIsKilled) {
  const ChildEnd end =
      shell("while :; do echo again and again; done", {.time = Millis(60'000), .output = 100'000});
  EXPECT_EQ(end.problem, "wrote more than 100000 bytes");
  EXPECT_LT(end.output.size(), 200'000U);
}

TEST(ChildTest, OneThatCannotBeStartedIsToldOf) {
  EXPECT_THAT(run_child({"/no/such/program"}, {}, never).problem,
              HasSubstr("cannot start it: No such file"));
}

TEST(ChildTest, OneMayBeGivenUp) {
  int asked = 0;
  const ChildEnd end = run_child({"/bin/sh", "-c", "sleep 60"}, {}, [&] { return ++asked == 3; });
  EXPECT_EQ(end.problem, "was given up");
}

TEST(ChildTest, ItHasNoFileOfOursAndNoSignalIsBlocked) {
  const int ours = ::dup(STDERR_FILENO);
  sigset_t blocked;
  sigset_t before;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &blocked, &before);
  // The shell itself reads what it may be told; while it starts others it blocks signals.
  const ChildEnd end = shell(
      "ls /proc/$$/fd; while read name value; do [ $name != SigBlk: ] || echo $value; done "
      "< /proc/$$/status");
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  ::close(ours);
  EXPECT_EQ(end.output, "0\n1\n2\n0000000000000000\n");
}

}  // namespace
}  // namespace dsm
