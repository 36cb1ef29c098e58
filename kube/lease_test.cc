#include "kube/lease.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <map>
#include <mutex>

#include "kube/testing/scripted_transport.h"

namespace dsm::kube {
namespace {

using testing::json_answer;
using testing::ScriptedTransport;
using testing::status_answer;
using Kind = LeaseDecision::Kind;

const TimePoint kNow = TimePoint(std::chrono::hours(3));
const LeaseTimes kTimes;

LeaseRecord held_by(const std::string& holder, const std::string& renewed = "t0") {
  LeaseRecord record;
  record.holder = holder;
  record.duration = Seconds(15);
  record.renew_time = renewed;
  record.resource_version = "7";
  record.transitions = 3;
  return record;
}

LeaseState leading_since(TimePoint renewed) {
  LeaseState state = observe({}, held_by("me"), renewed);
  state.leading = true;
  state.renewed = renewed;
  return state;
}

TEST(LeaseDecision, AMissingOrFreeLeaseIsTaken) {
  EXPECT_EQ(decide({}, kTimes, "me", kNow).kind, Kind::kTake);
  EXPECT_EQ(decide(observe({}, held_by(""), kNow), kTimes, "me", kNow).kind, Kind::kTake);
}

TEST(LeaseDecision, AForeignLeaseIsTakenExactlyWhenItHasNotMovedForItsDuration) {
  const LeaseState state = observe({}, held_by("other"), kNow);
  EXPECT_EQ(decide(state, kTimes, "me", kNow).wake, kNow + kTimes.look);
  const LeaseDecision last = decide(state, kTimes, "me", kNow + Millis(14'900));
  EXPECT_EQ(last.kind, Kind::kWait);
  EXPECT_EQ(last.wake, kNow + Seconds(15));
  EXPECT_EQ(decide(state, kTimes, "me", kNow + Seconds(15)).kind, Kind::kTake);
}

TEST(LeaseDecision, OnesOwnNameIsTakenBackAtOnce) {
  EXPECT_EQ(decide(observe({}, held_by("me"), kNow), kTimes, "me", kNow).kind, Kind::kTake);
}

TEST(LeaseDecision, ARenewalStartsTheWaitAnew) {
  LeaseState state = observe({}, held_by("other", "t0"), kNow);
  state = observe(state, held_by("other", "t0"), kNow + Seconds(10));
  EXPECT_EQ(state.seen_since, kNow);
  state = observe(state, held_by("other", "t1"), kNow + Seconds(14));
  EXPECT_EQ(decide(state, kTimes, "me", kNow + Seconds(15)).kind, Kind::kWait);
}

TEST(LeaseDecision, TheHolderRenewsEachRetryPeriodAndGivesUpAtTheDeadline) {
  const LeaseState state = leading_since(kNow);
  EXPECT_EQ(decide(state, kTimes, "me", kNow + Millis(1'999)).wake, kNow + Seconds(2));
  EXPECT_EQ(decide(state, kTimes, "me", kNow + Seconds(2)).kind, Kind::kRenew);
  EXPECT_EQ(decide(state, kTimes, "me", kNow + Millis(9'999)).kind, Kind::kRenew);
  EXPECT_EQ(decide(state, kTimes, "me", kNow + Seconds(10)).kind, Kind::kGiveUp);
}

TEST(LeaseDecision, AHolderThatSeesAnotherNameGivesUp) {
  const LeaseState state = observe(leading_since(kNow), held_by("other"), kNow);
  EXPECT_EQ(decide(state, kTimes, "me", kNow).kind, Kind::kGiveUp);
}

TEST(LeaseDecision, NobodyTakesOverBeforeTheHolderHasGivenUp) {
  // The holder sent its renewal at kNow; the other saw it at once, the earliest possible.
  const LeaseState holder = leading_since(kNow);
  const LeaseState other = observe({}, held_by("me"), kNow);
  for (Millis t{0}; t <= Seconds(20); t += Millis(100)) {
    const bool holds = decide(holder, kTimes, "me", kNow + t).kind != Kind::kGiveUp;
    const bool taken = decide(other, kTimes, "other", kNow + t).kind == Kind::kTake;
    EXPECT_FALSE(holds && taken) << t.count();
  }
}

TEST(LeaseObject, TakingCountsATransitionAndRenewingKeepsTheTimeOfAcquisition) {
  LeaseState state = observe({}, held_by("other"), kNow);
  state.seen->acquire_time = "then";
  const Json taken = lease_object(state, Kind::kTake, kTimes, "ns", "op", "me", WallTime{});
  EXPECT_EQ(taken["spec"]["leaseTransitions"], 4);
  EXPECT_EQ(taken["spec"]["acquireTime"], "1970-01-01T00:00:00.000000Z");
  EXPECT_EQ(taken["spec"]["leaseDurationSeconds"], 15);
  EXPECT_EQ(taken["metadata"]["resourceVersion"], "7");
  const Json renewed = lease_object(state, Kind::kRenew, kTimes, "ns", "op", "me", WallTime{});
  EXPECT_EQ(renewed["spec"]["acquireTime"], "then");
  EXPECT_EQ(renewed["spec"]["leaseTransitions"], 3);
  const Json first = lease_object({}, Kind::kTake, kTimes, "ns", "op", "me", WallTime{});
  EXPECT_FALSE(first["metadata"].contains("resourceVersion"));
  EXPECT_EQ(first["spec"]["leaseTransitions"], 0);
}

TEST(LeaseTimesCheck, RefusesTimesThatCannotBeSafe) {
  EXPECT_TRUE(check({}));
  EXPECT_FALSE(check({Seconds(10), Seconds(10), Seconds(2), Millis(700)}));
  EXPECT_FALSE(check({Seconds(15), Seconds(10), Seconds(10), Millis(700)}));
  EXPECT_FALSE(check({Millis(15'500), Seconds(10), Seconds(2), Millis(700)}));
  EXPECT_FALSE(check({Seconds(15), Seconds(10), Seconds(0), Millis(700)}));
}

// A Lease as the API server keeps it: writes need the newest resourceVersion.
class LeaseServer {
 public:
  Result<HttpResponse> answer(const HttpRequest& request) {
    const std::lock_guard lock(mutex_);
    if (down_) return fail(ErrorKind::kTransient, "down");
    if (request.method == "GET") {
      return lease_.is_null() ? status_answer(404, "NotFound") : json_answer(200, lease_);
    }
    const Json body = Json::parse(request.body);
    const Json metadata = body["metadata"];
    const std::string version = metadata.value("resourceVersion", std::string());
    const std::string current =
        lease_.is_null() ? "" : lease_["metadata"]["resourceVersion"].get<std::string>();
    if (version != current) return status_answer(409, "Conflict");
    lease_ = body;
    lease_["metadata"]["resourceVersion"] = std::to_string(++version_);
    changed_.notify_all();
    return json_answer(200, lease_);
  }
  void down(bool is) {
    const std::lock_guard lock(mutex_);
    down_ = is;
  }
  int writes() {
    const std::lock_guard lock(mutex_);
    return version_;
  }
  // Waits for writes until there have been `count`.
  void await_writes(int count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return version_ >= count; });
  }
  std::string holder() {
    const std::lock_guard lock(mutex_);
    return lease_.is_null() ? "" : lease_["spec"]["holderIdentity"].get<std::string>();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  Json lease_;
  int version_ = 0;
  bool down_ = false;
};

class ElectorTest : public ::testing::Test {
 protected:
  ElectorTest() {
    transport_.on_request([this](const HttpRequest& request) { return server_.answer(request); });
  }
  ElectorOptions options(const std::string& identity) {
    ElectorOptions result;
    result.ns = "ns";
    result.name = "op";
    result.identity = identity;
    result.on_change = [this, identity](bool leading) {
      const std::lock_guard lock(mutex_);
      leads_[identity] = leading;
      changed_.notify_all();
    };
    return result;
  }
  void await_lead(const std::string& identity, bool leading) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return leads_[identity] == leading; });
  }
  // Time passes meanwhile: when a look is due is counted from the one before, whenever that was.
  void pass_until_lead(const std::string& identity, bool leading) {
    std::unique_lock lock(mutex_);
    while (!changed_.wait_for(lock, Millis(5), [&] { return leads_[identity] == leading; })) {
      clock_.advance(kTimes.look);
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, bool> leads_;  // as the electors said last
  LeaseServer server_;
  ScriptedTransport transport_;
  ManualClock clock_;
  Client client_{transport_, clock_, {}};
};

TEST_F(ElectorTest, TheHolderRenewsForAsLongAsItLivesAndOnReleaseTheNextTakesOverAtOnce) {
  Elector first(client_, options("one"), Logger());
  await_lead("one", true);
  Elector second(client_, options("two"), Logger());
  for (int renewals = 0; renewals < 20; ++renewals) {  // 40 seconds: several durations
    const int before = server_.writes();
    clock_.advance(Seconds(2));
    server_.await_writes(before + 1);
  }
  EXPECT_TRUE(first.leading());
  EXPECT_FALSE(second.leading());
  const int before = server_.writes();
  first.release();
  server_.await_writes(before + 1);
  EXPECT_FALSE(first.leading());
  pass_until_lead("two", true);
  EXPECT_EQ(server_.holder(), "two");
}

TEST_F(ElectorTest, AnUnreachableServerEndsTheLeadAndItComesBack) {
  Elector elector(client_, options("one"), Logger());
  await_lead("one", true);
  EXPECT_TRUE(elector.holds_until(clock_.now() + Seconds(14)));
  EXPECT_FALSE(elector.holds_until(clock_.now() + Seconds(15)));
  server_.down(true);
  clock_.advance(kTimes.renew_deadline);
  EXPECT_FALSE(elector.leading()) << "at once, whatever its thread is doing";
  await_lead("one", false);
  server_.down(false);
  pass_until_lead("one", true);
}

}  // namespace
}  // namespace dsm::kube
