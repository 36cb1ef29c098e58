// Block pool, keyed hash and prefix cache.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "worker/engine/block_pool.h"
#include "worker/engine/prefix_cache.h"
#include "worker/engine/siphash.h"

namespace dsm::engine {
namespace {

using ::testing::ElementsAre;

std::vector<TokenId> block_of(TokenId first) {
  std::vector<TokenId> tokens(kBlockTokens);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

constexpr Hash128 kKey{.lo = 0x0706050403020100ULL, .hi = 0x0f0e0d0c0b0a0908ULL};

TEST(SipHash, GivesThePublishedVectorForNoBytes) {
  const Hash128 h = SipHash128(kKey).finish();
  EXPECT_EQ(h.lo, 0xe6a825ba047f81a3ULL);
  EXPECT_EQ(h.hi, 0x930255c71472f66dULL);
}

TEST(SipHash, DoesNotDependOnHowTheBytesAreCut) {
  std::vector<std::byte> bytes(61);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::byte>(i * 7);
  }
  SipHash128 whole(kKey);
  whole.update(bytes);
  const Hash128 expected = whole.finish();
  for (std::size_t cut = 0; cut <= bytes.size(); ++cut) {
    SipHash128 pieces(kKey);
    pieces.update(std::span(bytes).first(cut));
    pieces.update(std::span(bytes).subspan(cut));
    EXPECT_EQ(pieces.finish(), expected) << cut;
  }
}

TEST(SipHash, DependsOnTheKey) {
  EXPECT_NE(SipHash128(kKey).finish(), SipHash128({.lo = kKey.lo ^ 1, .hi = kKey.hi}).finish());
}

TEST(BlockPool, FreesABlockWhenItsLastReferenceIsGone) {
  BlockPool pool(2);
  auto a = pool.allocate();
  EXPECT_EQ(pool.free_count(), 1);
  {
    const BlockRef copy = *a;
    a.reset();
    EXPECT_EQ(pool.free_count(), 1);
  }
  EXPECT_EQ(pool.free_count(), 2);
}

TEST(BlockPool, HasNoBlockWhenAllAreReferenced) {
  BlockPool pool(1);
  const auto a = pool.allocate();
  EXPECT_TRUE(a);
  EXPECT_FALSE(pool.allocate());
}

TEST(BlockPool, EvictsTheLeastRecentlyFreedCachedBlockLast) {
  BlockPool pool(4);
  std::vector<BlockId> evicted;
  pool.on_evict([&](BlockId id) { evicted.push_back(id); });
  std::vector<BlockRef> refs;
  for (int i = 0; i < 4; ++i) {
    refs.push_back(*pool.allocate());
  }
  pool.set_cached(2, true);
  pool.set_cached(0, true);
  refs[2] = {};  // cached, freed first
  refs[0] = {};  // cached
  refs[3] = {};  // not cached
  std::vector<BlockId> order;
  for (int i = 0; i < 3; ++i) {
    refs.push_back(*pool.allocate());
    order.push_back(refs.back().id());
  }
  EXPECT_THAT(order, ElementsAre(3, 2, 0));
  EXPECT_THAT(evicted, ElementsAre(2, 0));
}

TEST(BlockPool, SharesACachedFreeBlock) {
  BlockPool pool(2);
  BlockId id = -1;
  {
    const auto a = pool.allocate();
    id = a->id();
    pool.set_cached(id, true);
  }
  const BlockRef again = pool.share(id);
  EXPECT_EQ(pool.free_count(), 1);
  const auto other = pool.allocate();
  EXPECT_NE(other->id(), id);
}

TEST(BlockPool, MeasuresHowLongCachedContentsAreKeptAndUsed) {
  const TimePoint start;
  BlockPool pool(2);
  pool.advance(start);
  auto cached = pool.allocate();
  auto plain = pool.allocate();
  pool.set_cached(cached->id(), true);
  pool.advance(start + Seconds(2));
  const BlockId id = cached->id();
  pool.touch(id);
  cached.reset();
  plain.reset();
  pool.advance(start + Seconds(5));
  cached = pool.share(id);
  pool.count_reuse(id);
  EXPECT_EQ(pool.times().reuse_gap.sum, 3);
  pool.advance(start + Seconds(6));
  pool.touch(id);
  cached.reset();
  pool.advance(start + Seconds(10));
  EXPECT_EQ(pool.times().lifetime.sum, 0);
  plain = pool.allocate();  // the one that was not cached
  EXPECT_EQ(pool.times().lifetime.sum, 0);
  cached = pool.allocate();
  EXPECT_EQ(pool.times().lifetime.sum, 10);
  EXPECT_EQ(pool.times().idle_before_evict.sum, 4);
}

TEST(Distribution, CountsANumberInTheFirstBucketThatTakesIt) {
  static constexpr std::array kBounds = {1.0, 8.0};
  Distribution<kBounds> numbers;
  for (const double number : {0.5, 1.0, 1.5, 8.0, 9.0}) numbers.add(number);
  EXPECT_THAT(numbers.counts, ElementsAre(2, 2, 1));
  EXPECT_EQ(numbers.sum, 20);
}

TEST(PrefixCache, FindsABlockByParentAndTokensAfterItWasFreed) {
  BlockPool pool(2);
  PrefixCache cache(pool, kKey);
  const Hash128 root = cache.root("");
  const auto tokens = block_of(1);
  const Hash128 key = cache.child(root, tokens);
  EXPECT_FALSE(cache.find(key, root, tokens));
  BlockId id = -1;
  {
    const auto block = pool.allocate();
    id = block->id();
    cache.insert(key, root, tokens, *block);
  }
  const auto hit = cache.find(key, root, tokens);
  ASSERT_TRUE(hit);
  EXPECT_EQ(hit->id(), id);
}

TEST(PrefixCache, ComparesTokensSoThatAFalseKeyIsNoHit) {
  BlockPool pool(1);
  PrefixCache cache(pool, kKey);
  const Hash128 root = cache.root("");
  const Hash128 key = cache.child(root, block_of(1));
  cache.insert(key, root, block_of(1), *pool.allocate());
  EXPECT_FALSE(cache.find(key, root, block_of(2)));
  EXPECT_FALSE(cache.find(key, cache.root("other"), block_of(1)));
}

TEST(PrefixCache, SeparatesSalts) {
  BlockPool pool(1);
  const PrefixCache cache(pool, kKey);
  EXPECT_NE(cache.root("a"), cache.root("b"));
  EXPECT_NE(cache.child(cache.root("a"), block_of(1)), cache.child(cache.root("b"), block_of(1)));
}

TEST(PrefixCache, SeparatesAdapters) {
  BlockPool pool(1);
  const PrefixCache cache(pool, kKey);
  EXPECT_EQ(cache.root("a"), cache.root("a", kNoAdapter));
  EXPECT_NE(cache.root("a"), cache.root("a", 1));
  EXPECT_NE(cache.root("a", 2), cache.root("a", 1));
}

TEST(PrefixCache, SeparatesWhatBlocksAreKeptIn) {
  BlockPool pool(1);
  BlockPool other_pool(1);
  const PrefixCache cache(pool, kKey, "bf16");
  EXPECT_EQ(cache.root("a"), PrefixCache(other_pool, kKey, "bf16").root("a"));
  EXPECT_NE(cache.root("a"), PrefixCache(other_pool, kKey, "fp8").root("a"));
}

TEST(PrefixCache, ForgetsABlockThatIsHandedOutAgain) {
  BlockPool pool(1);
  PrefixCache cache(pool, kKey);
  const Hash128 root = cache.root("");
  const auto tokens = block_of(1);
  const Hash128 key = cache.child(root, tokens);
  cache.insert(key, root, tokens, *pool.allocate());
  EXPECT_EQ(cache.size(), 1U);
  const auto other_use = pool.allocate();
  EXPECT_TRUE(other_use);
  EXPECT_EQ(cache.size(), 0U);
  EXPECT_FALSE(cache.find(key, root, tokens));
}

TEST(PrefixCache, FindsNothingAfterClear) {
  BlockPool pool(1);
  PrefixCache cache(pool, kKey);
  const Hash128 root = cache.root("");
  const Hash128 key = cache.child(root, block_of(1));
  cache.insert(key, root, block_of(1), *pool.allocate());
  cache.clear();
  EXPECT_FALSE(cache.find(key, root, block_of(1)));
  EXPECT_FALSE(pool.is_cached(0));
}

}  // namespace
}  // namespace dsm::engine
