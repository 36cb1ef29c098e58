#include <gtest/gtest.h>

#include <vector>

#include "kernels/cuda/megakernel.h"
#include "kernels/cuda/splits.h"

namespace dsm::kernels::cuda {
namespace {

TEST(MegakernelPlan, NoBlockHasMoreThanItMust) {
  const auto spans_of_a_block = [](int n, int k) {
    return megakernel_spans_each(spans_of(PackedMatrix{.k = k}), n / kPanel, 132);
  };
  EXPECT_EQ(spans_of_a_block(6144, 4096), 1) << "384 spans: 3 of them, not 4";
  EXPECT_EQ(spans_of_a_block(4096, 4096), 2) << "256 spans: 2 of them either way";
  EXPECT_EQ(spans_of_a_block(28672, 4096), 2) << "1,792 spans: 14 of them";
  EXPECT_EQ(spans_of_a_block(4096, 14336), 7) << "896 spans: 7 of them";
  EXPECT_EQ(spans_of_a_block(128, 1024), 1);
}

TEST(MegakernelPlan, ProductsNameTheNextOne) {
  std::vector<MegakernelOp> ops = {
      norm_op({.rows = 1}), product_op({.panels = 3, .spans = 2, .spans_each = 1}, {}),
      norm_op({.rows = 1}), product_op({.panels = 3, .spans = 2, .spans_each = 2}, {})};
  EXPECT_EQ(ops[1].units, 6);
  EXPECT_EQ(ops[3].units, 3);
  link_ops(ops, 4);
  EXPECT_EQ(ops[1].ask_for, 3);
  EXPECT_EQ(ops[3].ask_for, -1);
  EXPECT_EQ(ops[0].ask_for, -1);
}

// Blocks that have a part of the first have none of the second.
TEST(MegakernelPlan, OperatorsSideBySideBeginWithOtherBlocks) {
  KvWriteHeadsParams write;
  write.tokens = 3;
  write.kv.heads = 2;
  RopeQueryParams turn;
  turn.tokens = 3;
  turn.heads = 6;
  turn.rope.pairs = 32;
  std::vector<MegakernelOp> ops = {norm_op({.rows = 1}), kv_write_heads_op(write),
                                   rope_query_op(turn), norm_op({.rows = 1})};
  ops[2].waits = false;
  link_ops(ops, 132);
  EXPECT_EQ(ops[1].first, 0);
  EXPECT_EQ(ops[1].units, 6);
  EXPECT_EQ(ops[2].first, 6);
  EXPECT_EQ(ops[3].first, 0) << "it waits for them";
  link_ops(ops, 4);
  EXPECT_EQ(ops[2].first, 2);
}

TEST(MegakernelPlan, HasOnlyWhatItsBlocksHaveRoomFor) {
  Products launch{.tile_count = 1, .tile_rows = 16};
  EXPECT_TRUE(in_megakernel(launch, DType::kBF16));
  EXPECT_FALSE(in_megakernel(launch, DType::kInt8));
  launch.tile_rows = 32;
  EXPECT_FALSE(in_megakernel(launch, DType::kBF16));
  AttentionLaunch attention;
  attention.item_rows = 16;
  attention.params.kv.key_dim = 576;
  EXPECT_TRUE(in_megakernel(attention));
  attention.params.kv.key_dim = 592;
  EXPECT_FALSE(in_megakernel(attention));
  attention.params.kv.key_dim = 128;
  attention.item_rows = 17;
  EXPECT_FALSE(in_megakernel(attention));
  EXPECT_FALSE(in_megakernel(RmsNormParams{.width = 30}));
}

}  // namespace
}  // namespace dsm::kernels::cuda
