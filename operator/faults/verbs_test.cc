// By which requests the operator writes each kind: docs/decisions/0050.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "operator/faults/world.h"

namespace dsm::faults {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(VerbsTest, WhatChangesIsAppliedFromTheBeginningAndWhatMustBeNewIsPosted) {
  OneFault none;
  World world(none);
  world.server().make_model("ns", "m",
                            {{"model", {{"uri", "image:///models/deepseek-tiny"}}},
                             {"parallelism", {{"tensor", 2}}},
                             {"scaling", {{"minReplicas", 2}, {"maxReplicas", 3}}},
                             {"replicas", 2}});
  world.run(Seconds(60));
  world.server().edit_model("ns/m", {{"image", "worker:2"}, {"engine", {{"grpc", true}}}});
  world.run(Seconds(60));
  world.server().edit_model(
      "ns/m", {{"scaling", {{"minReplicas", 1}, {"maxReplicas", 2}}}, {"replicas", 1}});
  world.run(Seconds(60));

  const auto& verbs = world.verbs();
  EXPECT_THAT(verbs.at("pods"), ElementsAre("DELETE", "POST"));
  EXPECT_THAT(verbs.at("secrets"), ElementsAre("POST"));
  EXPECT_THAT(verbs.at("controllerrevisions"), ElementsAre("POST", "merge patch"));
  EXPECT_THAT(verbs.at("services"), ElementsAre("apply", "merge patch"));
  EXPECT_THAT(verbs.at("poddisruptionbudgets"), ElementsAre("DELETE", "apply"));
  EXPECT_THAT(verbs.at("horizontalpodautoscalers"), ElementsAre("apply"));
  EXPECT_THAT(verbs.at("deepseekmodels/status"), ElementsAre("apply"));
  EXPECT_THAT(verbs.at("leases"), ElementsAre("POST", "PUT"));
  EXPECT_FALSE(verbs.contains("deepseekmodels"));
  EXPECT_THAT(world.breaches(), IsEmpty());

  for (const kube::Resource* const resource : {&kube::kPodDisruptionBudgets, &kube::kAutoscalers}) {
    for (const auto& [key, object] : world.server().objects().all(*resource)) {
      EXPECT_THAT(world.server().owners_of(object), ElementsAre("deepseek-operator Apply")) << key;
    }
  }
}

}  // namespace
}  // namespace dsm::faults
