// The experts that are chosen, and their weights, by the rules of the models.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu/ops_fixture.h"
#include "kernels/random_floats.h"

namespace dsm::kernels {
namespace {

class RouterTest : public OnEveryTable {};

struct Routed {
  std::vector<std::int32_t> chosen;
  std::vector<float> weights;
};

// Without a bias the softmax rule.
Routed route(const Ops& ops, std::vector<float> logits, const std::vector<float>& bias, int groups,
             int topk_groups, int top_k, bool normalise = true, float scale = 1.0F) {
  Routed routed{std::vector<std::int32_t>(static_cast<std::size_t>(top_k)),
                std::vector<float>(static_cast<std::size_t>(top_k))};
  const auto experts = static_cast<int>(logits.size());
  ops.router(
      {logits.data(), experts, bias.empty() ? RouterRule::kSoftmax : RouterRule::kSigmoidBias,
       bias.data(), 1, experts, groups, topk_groups, top_k, normalise, scale, routed.chosen.data(),
       routed.weights.data()},
      0, 1);
  return routed;
}

float sigmoid(float x) {
  return 1.0F / (1.0F + std::exp(-x));
}

TEST_P(RouterTest, RouterWeightsAreTheScoresWithoutTheBias) {
  const std::vector<float> logits{0.0F, 1.0F, 2.0F, 3.0F};
  const auto r = route(ops(), logits, {5.0F, 0.0F, 0.0F, 0.0F}, 1, 1, 2, true, 2.5F);
  EXPECT_EQ(r.chosen, (std::vector<std::int32_t>{0, 3}));
  const float sum = sigmoid(0) + sigmoid(3);
  EXPECT_NEAR(r.weights[0], sigmoid(0) / sum * 2.5F, 1e-6);
  EXPECT_NEAR(r.weights[1], sigmoid(3) / sum * 2.5F, 1e-6);
  EXPECT_NEAR(route(ops(), logits, {5.0F, 0.0F, 0.0F, 0.0F}, 1, 1, 2, false, 2.0F).weights[1],
              sigmoid(3) * 2.0F, 1e-6);
}

TEST_P(RouterTest, RouterScoresAGroupByItsTwoBest) {
  // The best expert stands in group 0, the best pair in group 1.
  const std::vector<float> logits{4.0F, -9.0F, 2.0F, 2.0F};
  EXPECT_EQ(route(ops(), logits, std::vector<float>(4), 2, 1, 1).chosen,
            (std::vector<std::int32_t>{2}));
}

TEST_P(RouterTest, RouterNeverTakesAnExpertOfAMaskedGroupEvenWhenAllBiasedScoresAreNegative) {
  const std::vector<float> logits{1.0F, 1.0F, -1.0F, -1.0F};
  const std::vector<float> bias(4, -3.0F);
  EXPECT_EQ(route(ops(), logits, bias, 2, 1, 2).chosen, (std::vector<std::int32_t>{0, 1}));
}

TEST_P(RouterTest, RouterTiesGoToTheLowestId) {
  EXPECT_EQ(route(ops(), std::vector<float>(8, 0.5F), std::vector<float>(8), 4, 2, 3).chosen,
            (std::vector<std::int32_t>{0, 1, 2}));
}

TEST_P(RouterTest, SoftmaxRouterWeightsAreProbabilitiesOverAllExperts) {
  // 20 experts: the second vector of lanes is not full.
  const auto logits = random_floats(20, 60, 2.0F);
  double total = 0;
  for (const float x : logits) total += std::exp(static_cast<double>(x));
  const auto r = route(ops(), logits, {}, 1, 1, 3, false, 16.0F);
  for (std::size_t i = 0; i < 3; ++i) {
    const auto expert = static_cast<std::size_t>(r.chosen[i]);
    EXPECT_NEAR(r.weights[i], std::exp(static_cast<double>(logits[expert])) / total * 16, 1e-5);
  }
  const auto generic = route(*available_ops()[0], logits, {}, 1, 1, 3, false, 16.0F);
  EXPECT_EQ(r.chosen, generic.chosen);
  EXPECT_EQ(r.weights, generic.weights);
  const auto normalised = route(ops(), logits, {}, 1, 1, 3, true, 1.0F);
  EXPECT_NEAR(normalised.weights[0] + normalised.weights[1] + normalised.weights[2], 1.0F, 1e-6);
}

TEST_P(RouterTest, SoftmaxRouterScoresAGroupByItsBest) {
  // The best expert stands in group 0, the best pair in group 1.
  const std::vector<float> logits{4.0F, -9.0F, 2.0F, 2.0F};
  EXPECT_EQ(route(ops(), logits, {}, 2, 1, 1).chosen, (std::vector<std::int32_t>{0}));
  // Ties between groups and between experts: the lowest.
  EXPECT_EQ(route(ops(), std::vector<float>(8, 0.5F), {}, 4, 2, 3).chosen,
            (std::vector<std::int32_t>{0, 1, 2}));
}

INSTANTIATE_TEST_SUITE_P(Tables, RouterTest, all_tables(), table_name);

}  // namespace
}  // namespace dsm::kernels
