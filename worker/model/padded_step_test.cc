#include "worker/model/padded_step.h"

#include <gtest/gtest.h>

namespace dsm::model {
namespace {

using device::RepeatKey;

engine::Row decoded(engine::TokenId token, std::int32_t start) {
  engine::Row row;
  row.tokens = {token};
  row.start = start;
  row.logits = 1;
  return row;
}

TEST(PaddedStep, OnlyDecodingIsRepeated) {
  engine::Batch batch{1, {decoded(3, 70), decoded(4, 0)}};
  EXPECT_TRUE(decodes(batch));
  batch.rows[1].tokens.push_back(5);
  EXPECT_FALSE(decodes(batch)) << "a prompt";
  batch.rows[1] = decoded(4, 0);
  batch.rows[1].logits = 0;
  EXPECT_FALSE(decodes(batch)) << "the middle of a prompt";
  batch.rows[1] = decoded(4, 0);
  batch.rows[1].adapter = 7;
  EXPECT_FALSE(decodes(batch)) << "an adapter";
}

TEST(PaddedStep, KeysAreFew) {
  EXPECT_EQ(padded_key(1, 0, 512), (RepeatKey{1, 1024}));
  EXPECT_EQ(padded_key(3, 1023, 512), (RepeatKey{4, 1024}));
  EXPECT_EQ(padded_key(5, 1024, 512), (RepeatKey{8, 2048}));
  EXPECT_EQ(padded_key(17, 4095, 512), (RepeatKey{32, 4096}));
  EXPECT_EQ(padded_key(33, 100'000, 512), (RepeatKey{48, 131'072}));
  EXPECT_EQ(padded_key(10, 0, 12), (RepeatKey{12, 1024})) << "not above what there is memory for";
}

}  // namespace
}  // namespace dsm::model
