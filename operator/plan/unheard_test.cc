// Groups of which an operator that has just begun to lead has not heard yet.
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "operator/plan/groups.h"

namespace dsm::plan {
namespace {

const WallTime kNow = from_rfc3339("2026-01-01T12:00:00Z");

class Unheard : public testing::Test {
 protected:
  Unheard() {
    seen.now = kNow;
    seen.pods.emplace_back();
    leader().name = "m-abcd1234-0-0";
    leader().uid = "u0";
    leader().owner_uid = "model-uid";
    leader().revision = "abcd1234";
    leader().group = leader().index = 0;
    leader().phase = "Running";
    leader().running = true;
  }

  bool unheard() const {
    const auto groups = groups_of(seen, {"m", "model-uid", before, revisions, RecoveryRule{}});
    return groups.size() == 1 && groups.front().unheard;
  }
  PodView& leader() { return seen.pods.front(); }

  Observed seen;
  api::ModelStatus before;
  std::map<std::string, Revision> revisions;
};

TEST_F(Unheard, MayServeOrSleepAsLongAsTheOperatorHasJustBegunToLead) {
  EXPECT_FALSE(unheard()) << "it would have been heard by now";
  seen.leads_since = kNow - Seconds(2);
  EXPECT_TRUE(unheard());
  seen.leads_since = kNow - kLeaderPatience;
  EXPECT_FALSE(unheard());
}

TEST_F(Unheard, MayServeWhileItsPodsAreReady) {
  leader().ready_at = kNow - Seconds(60);
  EXPECT_TRUE(unheard());
  leader().deletion = kNow;
  EXPECT_FALSE(unheard());
}

TEST_F(Unheard, IsNoneWhoseLeaderHasSpoken) {
  seen.leads_since = kNow;
  seen.leaders["u0"].received = kNow;
  EXPECT_FALSE(unheard());
}

}  // namespace
}  // namespace dsm::plan
