// Sequences with a past that tests of attention attend to.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "worker/device/backend_fixture.h"

namespace dsm::device {

// Sequences over a cache whose slots that no position has written are not numbers.
struct Past {
  int heads;  // query heads of a KV head
  kernels::KvLayer shape;
  std::vector<std::vector<std::int32_t>> tables;
  std::vector<float> keys;
  std::vector<float> values;
  float scale;

  Past(const kernels::KvLayer& kv, int query_heads, const std::vector<int>& lengths)
      : heads(query_heads), shape(kv), scale(1.0F / std::sqrt(static_cast<float>(kv.key_dim))) {
    std::int32_t blocks = 0;
    for (const int length : lengths) blocks += (length + kernels::kKvBlock - 1) / kernels::kKvBlock;
    std::int32_t block = blocks;  // from the end, so that tables do not rise
    const auto nan = std::numeric_limits<float>::quiet_NaN();
    keys.assign(size(blocks) * size(kv.heads) * size(kv.key_dim) * kernels::kKvBlock, nan);
    values.assign(size(blocks) * size(kv.heads) * size(kv.value_dim) * kernels::kKvBlock, nan);
    std::mt19937 random(26);
    std::normal_distribution<float> normal;
    for (const int length : lengths) {
      tables.emplace_back();
      for (int at = 0; at < length; ++at) {
        if (at % kernels::kKvBlock == 0) tables.back().push_back(--block);
        for (int h = 0; h < kv.heads; ++h) {
          const std::size_t head = size(block) * size(kv.heads) + size(h);
          for (int d = 0; d < kv.key_dim; ++d) {
            keys[(head * size(kv.key_dim) + size(d)) * kernels::kKvBlock +
                 size(at % kernels::kKvBlock)] = normal(random);
          }
          for (int d = 0; d < kv.value_dim; ++d) {
            values[(head * kernels::kKvBlock + size(at % kernels::kKvBlock)) * size(kv.value_dim) +
                   size(d)] = normal(random);
          }
        }
      }
    }
  }

  // As a layer of the cache has them: FP32, or BF16 with two consecutive rows side by side.
  void* stored(const Side& side, const std::vector<float>& rows, int width) const {
    if (shape.dtype == kernels::DType::kF32) return side.put(rows);
    std::vector<float> pairs(rows.size() / 2);
    for (std::size_t at = 0; at < pairs.size(); ++at) {
      const std::size_t first = at / size(width) * 2 * size(width) + at % size(width);
      const auto even = std::bit_cast<std::uint32_t>(rows[first]) >> 16;
      const auto odd = std::bit_cast<std::uint32_t>(rows[first + size(width)]) & 0xffff0000U;
      pairs[at] = std::bit_cast<float>(even | odd);
    }
    return side.put(pairs);
  }

  // Consecutive tokens of a sequence.
  struct Run {
    std::size_t sequence;
    int first_position;
    int tokens;
  };
  // out [tokens, KV heads, heads, value_dim]; `query` in the order of runs.
  std::vector<float> attend(const Side& side, const std::vector<Run>& runs,
                            const std::vector<float>& query, int item_rows, bool staged = false,
                            kernels::Selection selection = {}) const {
    std::vector<kernels::TokenPlace> places;
    std::vector<kernels::AttentionItem> items;
    for (const Run& run : runs) {
      const auto& table = tables[run.sequence];
      const auto begin = static_cast<int>(places.size()) * heads;
      for (int t = 0; t < run.tokens; ++t) {
        const int position = run.first_position + t;
        places.push_back({position, table[size(position / kernels::kKvBlock)]});
      }
      const auto end = static_cast<int>(places.size()) * heads;
      for (int h = 0; h < shape.heads; ++h) {
        for (int at = begin; at < end; at += item_rows) {
          items.push_back({at, std::min(end, at + item_rows), table.data(), h});
        }
      }
    }
    kernels::KvLayer kv = shape;
    kv.keys = stored(side, keys, kernels::kKvBlock);
    kv.values = stored(side, values, shape.value_dim);
    if (staged) {
      std::vector<List> lists = {{places.data(), places.size() * sizeof places[0]}};
      for (const auto& table : tables) lists.push_back({table.data(), table.size() * 4});
      side.backend->stage(lists, items);
    }
    const std::size_t rows = places.size() * size(shape.heads) * size(heads);
    auto* out = allocate<float>(*side.backend, rows * size(shape.value_dim));
    side.backend->attention({side.put(query), out, places.data(), items.data(),
                             static_cast<int>(items.size()), heads, kv, scale, selection});
    return side.get(out, rows * size(shape.value_dim));
  }
};

}  // namespace dsm::device
