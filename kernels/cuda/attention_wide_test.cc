// Tiles of packed pasts, and which prompts' rows go over them.
#include "kernels/cuda/attention_wide.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <vector>

#include "kernels/cuda/attention_wide_plan.h"
#include "kernels/cuda/splits.h"

namespace dsm::kernels::cuda {
namespace {

constexpr int kLanes = 32;

TEST(CudaWideAttentionTest, ChunksOfATileStandSideBySide) {
  for (const WideTile& tile : kWideTiles) {
    std::set<int> places;
    for (int position = 0; position < tile.positions; ++position) {
      for (int chunk = 0; chunk < tile.keys / kChunkInputs; ++chunk) {
        EXPECT_LT(key_chunk(tile, position, chunk), key_bytes_of(tile));
        places.insert(key_chunk(tile, position, chunk));
      }
    }
    for (int column = 0; column < tile.values; ++column) {
      for (int chunk = 0; chunk < tile.positions / kChunkInputs; ++chunk) {
        places.insert(value_chunk(tile, column, chunk));
      }
    }
    EXPECT_EQ(std::ssize(places) * 16, bytes_of(tile)) << "each has a place of its own";
    EXPECT_EQ(*places.begin(), 0);
    EXPECT_EQ(*places.rbegin(), bytes_of(tile) - 16);
    // Operands begin at multiples of 1,024 bytes.
    EXPECT_EQ(tile.positions * kSharedRowBytes % 1024, 0);
    EXPECT_EQ(tile.values * kSharedRowBytes % 1024, 0);
    EXPECT_EQ(tile.positions % kKvBlock, 0);
  }
}

// Where a warpgroup's product takes input `input` of a row: `operand` is the place of its 64.
int place_of_input(int operand, int row, int input) {
  const int chunk = input % kRowInputs / 8 ^ row % 8;
  return operand + row * kSharedRowBytes + chunk * 16 + input % 8 * 2;
}

TEST(CudaWideAttentionTest, QueriesMeetTheDimensionsOfKeys) {
  const WideTile tile = {192, 128, 128};
  for (const int position : {0, 5, 127}) {
    std::vector<int> times(192);
    for (int step = 0; step < 192 / 16; ++step) {
      const int operand = step / 4 * tile.positions * kSharedRowBytes;
      for (int q = 0; q < 4; ++q) {
        for (int i = 0; i < 4; ++i) {
          // Registers 0 and 2 of operand A hold a lane's slots 2q, 2q + 1, and those 8 further.
          const int slot = i / 2 * 8 + 2 * q + i % 2;
          const int in_queries = step * 16 + q * 4 + i;  // fragments.h
          const int at = place_of_input(operand, position, step % 4 * 16 + slot);
          for (int chunk = 0; chunk < tile.keys / kChunkInputs; ++chunk) {
            const int first = key_chunk(tile, position, chunk);
            if (at < first || at >= first + 16) continue;
            const int in_chunk = (at - first) / 2;
            EXPECT_EQ(dimension_of(chunk, in_chunk / 2) + in_chunk % 2, in_queries);
            ++times[static_cast<std::size_t>(in_queries)];
          }
        }
      }
    }
    EXPECT_EQ(std::ranges::count(times, 1), 192);
  }
}

TEST(CudaWideAttentionTest, ExponentialsMeetTheirPositionsOfValues) {
  const WideTile tile = {128, 128, 128};
  for (const int column : {0, 9, 127}) {
    for (int position = 0; position < tile.positions; ++position) {
      const int operand =
          key_bytes_of(tile) + position / kRowInputs * tile.values * kSharedRowBytes;
      EXPECT_EQ(place_of_input(operand, column, position % kRowInputs),
                value_chunk(tile, column, position / kChunkInputs) + position % kChunkInputs * 2);
    }
  }
}

TEST(CudaWideAttentionTest, ACacheHasTheSmallestTileThatTakesIt) {
  EXPECT_EQ(wide_tile({.key_dim = 64, .value_dim = 64}), kWideTiles[0]);
  EXPECT_EQ(wide_tile({.key_dim = 64, .value_dim = 80}), kWideTiles[1]);
  EXPECT_EQ(wide_tile({.key_dim = 192, .value_dim = 128}), kWideTiles[2]);
  EXPECT_EQ(wide_tile({.key_dim = 208, .value_dim = 16}), kWideTiles[3]);
  EXPECT_TRUE(has_wide_attention(9, {.key_dim = 256, .value_dim = 128}));
  EXPECT_FALSE(has_wide_attention(9, {.key_dim = 576, .value_dim = 512}));
  EXPECT_FALSE(has_wide_attention(9, {.key_dim = 128, .value_dim = 144}));
  EXPECT_FALSE(has_wide_attention(8, {.key_dim = 128, .value_dim = 128}));
  EXPECT_FALSE(has_wide_attention(10, {.key_dim = 128, .value_dim = 128}));
}

// Prompts of several sequences, one head of keys each, planned for few processors.
struct Prompts {
  struct Sequence {
    int past;
    int tokens;
  };
  std::vector<TokenPlace> places;
  std::vector<std::int32_t> tables = std::vector<std::int32_t>(kLanes);  // one for each sequence
  std::vector<AttentionItem> items;
  AttentionParams params{.heads = 4, .kv = {.heads = 2, .key_dim = 128, .value_dim = 128}};
  AttentionPlan plan;
  WideAttentionPlan wide;

  Prompts(const std::vector<Sequence>& sequences, std::int64_t most_tiles) {
    for (std::size_t s = 0; s < sequences.size(); ++s) {
      const auto begin = static_cast<int>(places.size()) * params.heads;
      for (int t = 0; t < sequences[s].tokens; ++t) places.push_back({sequences[s].past + t, 0});
      const auto end = static_cast<int>(places.size()) * params.heads;
      for (int h = 0; h < params.kv.heads; ++h) {
        for (int at = begin; at < end; at += kAttentionRows) {
          items.push_back({at, std::min(end, at + kAttentionRows), &tables[s], h});
        }
      }
    }
    params.places = places.data();
    params.items = items.data();
    params.item_count = static_cast<int>(items.size());
    plan_attention(params, 2, 227 << 10, false, plan);
    plan_wide_attention(params, most_tiles * bytes_of(wide_tile(params.kv)), plan, wide);
  }

  // Of (token, KV head) pairs.
  void expect_all_rows_once() const {
    std::vector<int> seen(places.size() * 8);
    const auto see = [&](const AttentionItem& item) {
      for (int row = item.row_begin; row < item.row_end; ++row) {
        ++seen[static_cast<std::size_t>(row * 2 + item.kv_head)];
      }
    };
    std::ranges::for_each(plan.prompts, see);
    std::ranges::for_each(plan.rest, see);
    for (const WideItem& item : wide.items) see(item.rows);
    EXPECT_EQ(std::ranges::count(seen, 1), std::ssize(seen));
  }
};

TEST(CudaWideAttentionTest, APartHoldsWhatItsItemsAttendTo) {
  const Prompts prompts({{0, 128}, {300, 70}, {0, 100}}, 8);
  prompts.expect_all_rows_once();
  EXPECT_TRUE(prompts.plan.prompts.empty());
  ASSERT_EQ(prompts.wide.pasts.size(), 6U);
  EXPECT_GT(prompts.wide.parts.size(), 1U);
  int pasts = 0;
  int items = 0;
  for (const WideAttentionPart& part : prompts.wide.parts) {
    EXPECT_EQ(part.first_past, pasts);
    EXPECT_EQ(part.first_item, items);
    int tiles = 0;
    int most = 0;
    for (int i = 0; i < part.past_count; ++i, ++pasts) {
      const WidePast& past = prompts.wide.pasts[static_cast<std::size_t>(pasts)];
      EXPECT_EQ(past.first_tile, tiles);
      tiles += tiles_of(prompts.wide.tile, past.positions);
      most = std::max(most, tiles_of(prompts.wide.tile, past.positions));
    }
    EXPECT_LE(tiles, 8);
    EXPECT_EQ(part.most_tiles, most);
    int before = 1 << 30;
    for (int i = 0; i < part.item_count; ++i, ++items) {
      const WideItem& item = prompts.wide.items[static_cast<std::size_t>(items)];
      const auto its = std::ranges::find_if(
          prompts.wide.pasts.begin() + part.first_past, prompts.wide.pasts.begin() + pasts,
          [&](const WidePast& past) {
            return past.block_table == item.rows.block_table && past.kv_head == item.rows.kv_head;
          });
      ASSERT_NE(its, prompts.wide.pasts.begin() + pasts);
      EXPECT_EQ(item.first_tile, its->first_tile);
      const int last = last_position(prompts.params, item.rows);
      EXPECT_LT(last, its->positions);
      EXPECT_LE(last, before) << "those that see most first";
      before = last;
    }
  }
  EXPECT_EQ(pasts, 6);
  EXPECT_EQ(items, std::ssize(prompts.wide.items));
}

TEST(CudaWideAttentionTest, PastsOfFewRowsOrTooManyPositionsAreLeft) {
  // 63 tokens are 252 rows of a KV head.
  const Prompts few({{500, 63}, {0, 64}}, 100);
  few.expect_all_rows_once();
  EXPECT_EQ(few.wide.pasts.size(), 2U);
  for (const WidePast& past : few.wide.pasts) EXPECT_EQ(past.block_table, &few.tables[1]);
  EXPECT_FALSE(few.plan.prompts.empty());
  const Prompts tall({{1000, 64}, {0, 64}}, 8);
  tall.expect_all_rows_once();
  EXPECT_EQ(tall.wide.pasts.size(), 2U) << "1,064 positions are nine tiles";
  const Prompts none({{1000, 64}}, 8);
  EXPECT_TRUE(none.wide.parts.empty());
}

}  // namespace
}  // namespace dsm::kernels::cuda
