// Latent attention of long prompts in the loose mode, whose keys and values are expanded from the
// cache, against the absorbed attention of the deterministic one. On the CPU both compute in FP32,
// so only the order of sums differs.
#include <cmath>

#include "tests/model/chunked.h"
#include "tests/model/wide_heads.h"

namespace dsm::model {
namespace {

class ExpandedAttention : public testing::Test {
 protected:
  ExpandedAttention() { write_wide_heads(wide_); }

  // The same tokens, in chunks that end there, in both modes.
  static void expect_near(const std::string& dir, std::size_t count,
                          const std::vector<std::size_t>& cuts) {
    SCOPED_TRACE(dir + ", " + std::to_string(count) + " tokens");
    std::vector<engine::TokenId> tokens;
    const auto exact = load_checkpoint(dir, {});
    const auto loose = load_checkpoint(dir, {.deterministic = false});
    for (std::size_t i = 0; i < count; ++i) {
      tokens.push_back(static_cast<engine::TokenId>((i * 37 + 5) % 128));
    }
    NoComm comm;
    const auto wanted = chunked(*exact, comm, tokens, {});
    const auto got = chunked(*loose, comm, tokens, cuts);
    ASSERT_EQ(got.size(), wanted.size());
    bool same = true;
    for (std::size_t i = 0; i < got.size(); ++i) {
      ASSERT_NEAR(got[i], wanted[i], 2e-3) << i;
      same = same && got[i] == wanted[i];
    }
    EXPECT_FALSE(same) << "nothing was expanded";
  }

  const TestDir wide_;
};

TEST_F(ExpandedAttention, IsNearTheAbsorbedOneWithinOnePiece) {
  expect_near(kLiteModel, 300, {});
  expect_near(wide_.path(), 300, {});
}

// A past that ends within a block, of chunks that end there, too.
TEST_F(ExpandedAttention, GoesOnOverAPastThatIsExpandedAnew) {
  expect_near(kLiteModel, 300, {90, 215});
  expect_near(wide_.path(), 300, {90, 215});
}

// More positions than are expanded at a time: a whole piece and a bit of another.
TEST_F(ExpandedAttention, TakesALongPastInPieces) {
  expect_near(wide_.path(), 1024, {});
  expect_near(wide_.path(), 1130, {1000});
}

}  // namespace
}  // namespace dsm::model
