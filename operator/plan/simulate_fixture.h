// What the tests of histories share: a model of two groups of two pods.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "operator/plan/simulate.h"

namespace dsm::plan {

using nlohmann::json;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

inline json two_by_two() {
  return {{"model", {{"uri", "image:///models/deepseek-tiny"}}},
          {"parallelism", {{"tensor", 2}}},
          {"replicas", 2}};
}

class History : public testing::Test {
 protected:
  // Brings the model to its wanted state and starts a fresh history.
  void ready() {
    ASSERT_TRUE(sim.settle());
    ASSERT_EQ(sim.condition("Ready"), "True/AllGroupsReady");
    sim.run(100 - sim.now_s());  // histories begin at the same second
    sim.forget_history();
  }
  void TearDown() override { EXPECT_THAT(sim.breaches(), IsEmpty()); }

  Simulation sim{two_by_two()};
};

}  // namespace dsm::plan
