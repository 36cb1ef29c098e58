// Attention of many rows by the processor's instructions for BF16, against the plain table over the
// same cache: near by the 8 bits that queries and exponentials keep. Skipped on a processor that
// has none.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cpu/bf16_ops.h"
#include "worker/device/attention_fixture.h"
#include "worker/device/backend_fixture.h"
#include "worker/device/cpu_backend.h"

namespace dsm::device {
namespace {

using namespace kernels;

class Bf16AttentionTest : public BackendTest {
 protected:
  void SetUp() override {
    if (bf16_ops() == nullptr) GTEST_SKIP() << "this processor has none";
    device_.backend = make_cpu_backend(2, best_ops(), bf16_ops());
  }
};

std::size_t query_size(const Past& past, int tokens) {
  return size(tokens) * size(past.heads) * size(past.shape.heads) * size(past.shape.key_dim);
}

double mean_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += std::abs(a[i] - b[i]);
  return sum / static_cast<double>(a.size());
}

TEST_F(Bf16AttentionTest, IsNearForEveryLengthAndHasTheSameBitsHoweverItIsCut) {
  const std::vector<int> lengths = {30, 64, 65, 96, 97, 300};
  std::vector<Past::Run> runs;
  int tokens = 0;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    runs.push_back({i, lengths[i] - 30, 30});
    tokens += 30;
  }
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const auto& [heads, shape] :
         {std::pair{16, KvLayer{.heads = 1, .key_dim = 576, .value_dim = 512}},
          {8, KvLayer{.heads = 1, .key_dim = 160, .value_dim = 128}},
          {7, KvLayer{.heads = 2, .key_dim = 128, .value_dim = 128}},
          {1, KvLayer{.heads = 3, .key_dim = 32, .value_dim = 32}}}) {
      KvLayer kv = shape;
      kv.dtype = dtype;
      const Past past(kv, heads, lengths);
      const auto query = random_floats(query_size(past, tokens), 27);
      const auto wanted = past.attend(cpu_, runs, query, 32);
      const auto got = past.attend(device_, runs, query, 32);
      const std::string what = "keys of " + std::to_string(kv.key_dim);
      expect_near(got, wanted, 2e-2, what);
      if (HasFatalFailure()) return;
      // Sums over many positions are nearer than single values.
      EXPECT_LT(mean_difference(got, wanted), 1e-3) << what;
      EXPECT_NE(got, wanted) << what << ": the table's";
      for (const int item_rows : {16, 7}) {
        EXPECT_EQ(past.attend(device_, runs, query, item_rows), got) << what;
      }
    }
  }
}

TEST_F(Bf16AttentionTest, FewRowsAreTheTables) {
  const Past past({.heads = 2, .key_dim = 64, .value_dim = 64}, 3, {150});
  const auto query = random_floats(query_size(past, 1), 28);
  EXPECT_EQ(past.attend(device_, {{0, 149, 1}}, query, 32),
            past.attend(cpu_, {{0, 149, 1}}, query, 32));
}

// A sequence that is decoded beside a prompt has the bits that it has alone.
TEST_F(Bf16AttentionTest, SequencesDoNotSeeEachOther) {
  KvLayer kv{.heads = 2, .key_dim = 64, .value_dim = 96, .dtype = DType::kBF16};
  const Past past(kv, 6, {150, 70});
  const auto query = random_floats(query_size(past, 131), 29);
  const auto both = past.attend(device_, {{0, 20, 130}, {1, 69, 1}}, query, 32);
  const auto row = static_cast<std::ptrdiff_t>(query_size(past, 1));
  const auto alone = past.attend(device_, {{1, 69, 1}}, {query.end() - row, query.end()}, 32);
  EXPECT_TRUE(std::equal(alone.begin(), alone.end(), both.end() - std::ssize(alone)));
  EXPECT_LT(mean_difference(both, past.attend(cpu_, {{0, 20, 130}, {1, 69, 1}}, query, 32)), 2e-3);
}

// Scores that rise and fall by hundreds from block to block, as a row's maximum does.
TEST_F(Bf16AttentionTest, LargeScoresStayNumbers) {
  const Past past({.heads = 1, .key_dim = 32, .value_dim = 32}, 4, {400});
  auto query = random_floats(query_size(past, 40), 30);
  for (float& value : query) value *= 1000.0F;
  const auto got = past.attend(device_, {{0, 360, 40}}, query, 32);
  EXPECT_TRUE(std::ranges::all_of(got, [](float y) { return std::isfinite(y); }));
  // Mostly one position's value, unless two are nearer to each other than BF16 tells apart.
  EXPECT_LT(mean_difference(got, past.attend(cpu_, {{0, 360, 40}}, query, 32)), 0.1);
}

TEST_F(Bf16AttentionTest, OnlySelectedPositionsTakePart) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Past past({.heads = 1, .key_dim = 64, .value_dim = 32, .dtype = dtype}, 4, {300});
    constexpr int kTokens = 20;
    const auto query = random_floats(query_size(past, kTokens), 31);
    // Every third position of the second and the last block, of which a token sees some.
    std::vector<std::uint64_t> words(size(kTokens) * 5);
    for (int t = 0; t < kTokens; ++t) {
      words[size(t) * 5 + 1] = 0x9249249249249249U << (t % 3);
      words[size(t) * 5 + 4] = (std::uint64_t{1} << (300 - kTokens + t - 256 + 1)) - 1;
    }
    const Selection selection{.words = words.data(), .ld = 5};
    const auto wanted = past.attend(cpu_, {{0, 280, kTokens}}, query, 32, false, selection);
    const auto got = past.attend(device_, {{0, 280, kTokens}}, query, 32, false, selection);
    expect_near(got, wanted, 2e-2, "selected");
    EXPECT_GT(mean_difference(got, past.attend(device_, {{0, 280, kTokens}}, query, 32)), 0.05);
  }
}

}  // namespace
}  // namespace dsm::device
