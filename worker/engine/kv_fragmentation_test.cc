// How much of the KV cache is taken and holds no token.
#include <gtest/gtest.h>

#include <numeric>

#include "worker/engine/fake_model.h"
#include "worker/engine/scheduler.h"

namespace dsm::engine {
namespace {

constexpr int kPrompt = kBlockTokens + 36;
constexpr int kRest = kBlockTokens - 36;  // of its last block

GenerateRequest request(int max_tokens) {
  GenerateRequest r;
  r.prompt.resize(kPrompt);
  std::iota(r.prompt.begin(), r.prompt.end(), 0);
  r.max_tokens = max_tokens;
  return r;
}

class KvFragmentation : public testing::Test {
 protected:
  Batch begin_step() { return scheduler_.schedule(); }
  void end_step(const Batch& batch) {
    scheduler_.commit(model_.run(batch));
    scheduler_.check_invariants();
  }
  std::int64_t empty() const { return scheduler_.stats().slots_empty; }

  Scheduler scheduler_{
      {.max_num_seqs = 4, .max_batch_tokens = 256, .max_model_len = 512, .num_blocks = 16}};
  FakeModel model_{16};
};

TEST_F(KvFragmentation, IsTheEndOfASequencesLastBlock) {
  EXPECT_EQ(empty(), 0);
  scheduler_.submit(1, request(kRest + 2));
  const Batch prompt = begin_step();
  EXPECT_EQ(scheduler_.stats().blocks_used, 2);
  EXPECT_EQ(empty(), kRest) << "what a step is about to write is not empty";
  end_step(prompt);
  EXPECT_EQ(empty(), kRest - 1) << "the token that was chosen has its place";
  for (int i = 1; i < kRest; ++i) end_step(begin_step());
  EXPECT_EQ(empty(), 0) << "it is full";
  end_step(begin_step());
  EXPECT_EQ(empty(), 0) << "the token that was chosen has no place yet";
  const Batch next = begin_step();
  EXPECT_EQ(scheduler_.stats().blocks_used, 3);
  EXPECT_EQ(empty(), kBlockTokens - 1);
  end_step(next);
  EXPECT_TRUE(scheduler_.idle());
  EXPECT_EQ(empty(), 0);
}

TEST_F(KvFragmentation, OfASharedBlockIsNone) {
  scheduler_.submit(1, request(8));
  end_step(begin_step());
  scheduler_.submit(2, request(8));
  const Batch both = begin_step();
  ASSERT_EQ(both.rows.size(), 2U);
  EXPECT_EQ(scheduler_.stats().blocks_used, 3) << "one is shared";
  EXPECT_EQ(empty(), kRest - 1 + kRest);
  end_step(both);
}

}  // namespace
}  // namespace dsm::engine
