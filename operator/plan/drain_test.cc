#include "operator/plan/drain.h"

#include <gtest/gtest.h>

namespace dsm::plan {
namespace {

NodeView node(std::vector<Taint> taints, bool cordoned = false) {
  return {.name = "n", .ready = true, .unschedulable = cordoned, .taints = std::move(taints)};
}

TEST(Leaving, a_cordon_and_a_taint_that_is_not_tolerated_ask_pods_to_leave) {
  EXPECT_FALSE(leaving(node({}), {}));
  const auto cordoned = leaving(node({}, true), {});
  ASSERT_TRUE(cordoned);
  EXPECT_EQ(cordoned->node, "n");
  EXPECT_EQ(cordoned->why, "is cordoned");
  EXPECT_FALSE(cordoned->urgent);
  const auto tainted = leaving(node({{"ToBeDeleted", "", "NoSchedule"}}), {});
  ASSERT_TRUE(tainted);
  EXPECT_EQ(tainted->why, "has the taint ToBeDeleted:NoSchedule");
  EXPECT_FALSE(tainted->urgent);
}

TEST(Leaving, what_evicts_or_ends_the_node_soon_is_urgent) {
  EXPECT_TRUE(leaving(node({{"maintenance", "", "NoExecute"}}), {})->urgent);
  EXPECT_TRUE(leaving(node({{"aws-node-termination-handler/spot-itn", "", "NoSchedule"}}, true), {})
                  ->urgent);
  for (const char* key : {"aws-node-termination-handler/spot-itn",
                          "aws-node-termination-handler/scheduled-maintenance",
                          "aws-node-termination-handler/asg-lifecycle-termination",
                          "cloud.google.com/impending-node-termination",
                          "remediator.kubernetes.azure.com/unschedulable",
                          "remediator.aks.microsoft.com/unschedulable",
                          "node.cloudprovider.kubernetes.io/shutdown"}) {
    const auto found = leaving(node({{key, "1790000000", "NoSchedule"}}), {});
    ASSERT_TRUE(found) << key;
    EXPECT_TRUE(found->urgent) << key;
  }
}

TEST(Leaving, who_waits_for_disruption_budgets_is_not_urgent) {
  for (const char* key : {"karpenter.sh/disrupted", "ToBeDeletedByClusterAutoscaler",
                          "aws-node-termination-handler/rebalance-recommendation"}) {
    const auto found = leaving(node({{key, "", "NoSchedule"}}), {});
    ASSERT_TRUE(found) << key;
    EXPECT_FALSE(found->urgent) << key;
  }
  // Only a candidate: the cluster autoscaler may change its mind.
  const Taint candidate{"DeletionCandidateOfClusterAutoscaler", "1790000000", "PreferNoSchedule"};
  EXPECT_FALSE(leaving(node({candidate}), {}));
}

TEST(Leaving, what_the_pods_tolerate_or_what_only_prefers_does_not_count) {
  const api::Toleration spot{"spot", "Equal", "true", "", {}};
  EXPECT_FALSE(leaving(node({{"spot", "true", "NoSchedule"}}), {spot}));
  EXPECT_TRUE(leaving(node({{"spot", "other", "NoSchedule"}}), {spot}));
  EXPECT_FALSE(leaving(node({{"soon", "", "PreferNoSchedule"}}), {}));
  const api::Toleration everything{"", "Exists", "", "", {}};
  EXPECT_FALSE(leaving(node({{"spot", "x", "NoExecute"}}, true), {everything}));
  const api::Toleration for_a_time{"spot", "Exists", "", "", 60};
  EXPECT_TRUE(leaving(node({{"spot", "", "NoExecute"}}), {for_a_time}));
  const api::Toleration other_effect{"spot", "Exists", "", "NoSchedule", {}};
  EXPECT_TRUE(leaving(node({{"spot", "", "NoExecute"}}), {other_effect}));
}

TEST(Leaving, a_state_of_the_node_that_passes_is_no_drain) {
  for (const char* key : {"node.kubernetes.io/memory-pressure", "node.kubernetes.io/not-ready",
                          "node.kubernetes.io/unreachable"}) {
    EXPECT_FALSE(leaving(node({{key, "", "NoSchedule"}, {key, "", "NoExecute"}}), {})) << key;
  }
}

TEST(NodeLost, only_a_node_that_is_known_not_to_answer_is) {
  Observed seen;
  EXPECT_FALSE(node_lost(seen, "n"));
  seen.nodes["n"] = node({});
  EXPECT_FALSE(node_lost(seen, "n"));
  seen.nodes["n"].ready = false;
  EXPECT_TRUE(node_lost(seen, "n"));
}

}  // namespace
}  // namespace dsm::plan
