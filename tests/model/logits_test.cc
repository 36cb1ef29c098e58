// The model's logits against transformers in FP32 (tests/goldens/make_goldens.py).
#include <cmath>

#include "tests/model/model_fixture.h"

namespace dsm::model {
namespace {

constexpr double kBound = 1e-3;

TEST(Logits, AreThoseOfTheReferenceAtEveryLength) {
  const auto model = load_tiny({});
  const auto vocab = static_cast<std::size_t>(model->config().vocab_size);
  NoComm comm;
  double worst = 0;
  for (const auto& golden : load_goldens()) {
    const engine::Batch batch{
        1, {make_row(golden.tokens, 0, golden.tokens.size(), blocks_for(golden.tokens.size()))}};
    const auto logits = model->forward_all(batch, comm);
    ASSERT_EQ(logits.size(), golden.tokens.size() * vocab);
    for (std::size_t i = 0; i < golden.positions.size(); ++i) {
      const float* ours = logits.data() + golden.positions[i] * vocab;
      double difference = 0;
      for (std::size_t v = 0; v < vocab; ++v) {
        difference =
            std::max(difference, std::abs(static_cast<double>(ours[v]) - golden.logits[i][v]));
      }
      EXPECT_LT(difference, kBound)
          << golden.tokens.size() << " tokens, position " << golden.positions[i];
      worst = std::max(worst, difference);
    }
  }
  RecordProperty("max_abs_difference", std::to_string(worst));
  std::printf("largest difference to the reference: %.2e\n", worst);
}

TEST(Logits, GreedyContinuationsAreThoseOfTheReference) {
  const auto model = load_tiny({});
  NoComm comm;
  for (const auto& golden : load_goldens()) {
    auto tokens = golden.tokens;
    const auto table = blocks_for(tokens.size() + golden.continuation.size());
    std::size_t done = 0;
    std::vector<engine::TokenId> continuation;
    while (continuation.size() < golden.continuation.size()) {
      const engine::Batch batch{1, {make_row(tokens, done, tokens.size(), table)}};
      done = tokens.size();
      const auto logits = model->forward(batch, comm);
      const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
      continuation.push_back(static_cast<engine::TokenId>(best));
      tokens.push_back(continuation.back());
    }
    EXPECT_EQ(continuation, golden.continuation) << golden.tokens.size() << " tokens";
  }
}

}  // namespace
}  // namespace dsm::model
