// Choosing on the device that is there: the tokens of kernels/choose.h, in every row, whatever the
// rows beside it want.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "worker/device/choice_fixture.h"

namespace dsm::device {
namespace {

using namespace kernels;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Kinds of choices; `row` gives each its own noise.
std::vector<Choice> choices_for(int row) {
  const std::uint64_t key = noise_key(static_cast<std::uint64_t>(row), row);
  return {
      {.wanted = true},
      {.key = key, .temperature = 1, .wanted = true},
      {.key = key, .temperature = 0.3F, .wanted = true},
      {.key = key, .temperature = 0.6F, .top_p = 0.95F, .wanted = true},
      {.key = key, .temperature = 1, .top_k = 20, .wanted = true},
      {.key = key, .temperature = 2, .min_p = 0.05F, .wanted = true},
      {.key = key, .temperature = 1.5F, .top_k = 7, .top_p = 0.8F, .min_p = 0.1F, .wanted = true},
      {.key = key, .temperature = 1, .top_k = 1 << 30, .top_p = 0.999F, .wanted = true},
      {.key = key, .temperature = 1, .top_p = 1e-6F, .wanted = true},
      {.key = key, .temperature = 1e-20F, .wanted = true},
      {},  // the host's
  };
}

TEST_F(ChoiceTest, IsTheDefinitionsForEveryKindAndSize) {
  const std::vector<int> sizes = kEmulated ? std::vector{1, 31, 129, 1025, 3000}
                                           : std::vector{1, 31, 129, 1025, 32000, 128256};
  for (const int vocab : sizes) {
    const int ld = vocab + 3;  // what is behind is padding
    std::vector<Choice> choices;
    for (int row = 0; choices.size() < 22; ++row) {
      const auto more = choices_for(row);
      choices.insert(choices.end(), more.begin(), more.end());
    }
    auto logits = random_floats(choices.size() * size(ld), static_cast<unsigned>(vocab), 3.0F);
    for (std::size_t r = 0; r < choices.size(); ++r) {
      for (int i = vocab; i < ld; ++i) logits[r * size(ld) + size(i)] = 1000.0F;
    }
    expect_equal(logits, ld, vocab, choices, std::to_string(vocab) + " tokens");
  }
}

TEST_F(ChoiceTest, OfALargeVocabularyInOneRow) {
  const int vocab = 128256;
  const auto logits = random_floats(size(vocab), 5, 2.0F);
  const std::vector<Choice> kinds = choices_for(1);
  for (const std::size_t kind : {0, 1, 3, 6}) {
    expect_equal(logits, vocab, vocab, {kinds[kind]}, "kind " + std::to_string(kind));
  }
}

TEST_F(ChoiceTest, ManyRowsAtOnce) {
  const int vocab = 700;
  std::vector<Choice> choices;
  for (int row = 0; row < 64; ++row) {
    const auto kinds = choices_for(row);
    choices.push_back(kinds[size(row) % kinds.size()]);
  }
  expect_equal(random_floats(64 * size(vocab), 9, 4.0F), vocab, vocab, choices, "64 rows");
}

// Equal logits: the lowest token where nothing is drawn, and top_k and top_p keep the lowest.
TEST_F(ChoiceTest, TiesGoToTheLowestToken) {
  const int vocab = 2500;
  for (const int kind_of_ties : {0, 1, 2}) {
    std::vector<float> row(size(vocab), kind_of_ties == 0 ? 0.0F : -9.0F);
    for (int i = 1; i < vocab; i += 1 + i / 3) {
      if (kind_of_ties > 0) row[size(i)] = kind_of_ties == 1 ? 2.0F : i % 2 == 0 ? 0.0F : -0.0F;
    }
    std::vector<Choice> choices;
    for (int r = 0; r < 2; ++r) {
      const auto kinds = choices_for(r);
      choices.insert(choices.end(), kinds.begin(), kinds.end());
    }
    std::vector<float> logits;
    for (std::size_t r = 0; r < choices.size(); ++r) {
      logits.insert(logits.end(), row.begin(), row.end());
    }
    expect_equal(logits, vocab, vocab, choices, "ties " + std::to_string(kind_of_ties));
  }
}

TEST_F(ChoiceTest, NumbersThatAreNoneAndInfinitiesAreNotTaken) {
  const std::vector<std::vector<float>> rows = {{kNan, -3.0F, kNan, -4.0F},
                                                {-kInfinity, -kInfinity, 0.5F, -kInfinity},
                                                {-kInfinity, -kInfinity, -kInfinity, -kInfinity},
                                                {kNan, kNan, kNan, kNan},
                                                {kNan, -kInfinity, kNan, -kInfinity},
                                                {0.0F, kInfinity, kNan, kInfinity},
                                                {-1e30F, -1e30F, -kInfinity, -2e30F},
                                                {3e38F, -3e38F, 3e38F, 0.0F}};
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::vector<float> logits;
    const auto choices = choices_for(static_cast<int>(i));
    for (std::size_t r = 0; r < choices.size(); ++r) {
      logits.insert(logits.end(), rows[i].begin(), rows[i].end());
    }
    expect_equal(logits, 4, 4, choices, "row of kind " + std::to_string(i));
  }
}

// In a recorded step choices are read from what is staged.
TEST_F(ChoiceTest, RepeatedStepsChooseByWhatIsStaged) {
  const int vocab = 1500;
  const auto values = random_floats(2 * size(vocab), 11, 2.0F);
  const float* logits = device_.put(values);
  auto* to = allocate_shared<std::int32_t>(*device_.backend, 2);
  std::vector<Choice> choices(2);
  const List list{choices.data(), choices.size() * sizeof(Choice)};
  for (int step = 0; step < 4; ++step) {
    const auto kinds = choices_for(step);
    choices = {kinds[size(step)], kinds[size(step + 3)]};
    ASSERT_EQ(list.data, choices.data());
    device_.backend->stage({&list, 1}, {});
    device_.backend->repeat({.tokens = 2, .positions = 64}, [&] {
      device_.backend->choose({.logits = logits,
                               .ld = vocab,
                               .choices = choices.data(),
                               .rows = 2,
                               .vocab = vocab,
                               .tokens = to});
    });
    device_.backend->wait();
    for (std::size_t r = 0; r < 2; ++r) {
      EXPECT_EQ(to[r], choose_token({values.data() + r * size(vocab), size(vocab)}, choices[r]))
          << "step " << step;
    }
  }
}

}  // namespace
}  // namespace dsm::device
