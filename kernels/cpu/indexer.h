// DeepSeek-V3.2's lightning indexer: the keys it caches, its scores of a token's past, and the best
// of them as bits. kernels.h says why nothing here may be shared between instruction sets.
//
// The selection depends on the scores alone and on ties in positions, and a score is one chain over
// heads of chains over the key's elements, so it is the same on every rank and however the work was
// divided.
#pragma once

#include "kernels/cpu/product.h"
#include "kernels/cpu/rotate.h"

namespace dsm::kernels {
namespace {

static_assert(kKvBlock == 64, "a word of a selection is a block");

template <class V>
struct Indexer {
  using F = typename V::F;

  static void layer_norm(const float* x, const float* weight, const float* bias, float* y,
                         int width, float eps) {
    F sum = V::set(0.0F);
    for (int i = 0; i < width; i += kLanes) sum = V::add(sum, V::load(x + i));
    const F mean = V::set(sum16<V>(sum) / static_cast<float>(width));
    F squares = V::set(0.0F);
    for (int i = 0; i < width; i += kLanes) {
      const F from_mean = V::sub(V::load(x + i), mean);
      squares = V::fma(from_mean, from_mean, squares);
    }
    const float variance = sum16<V>(squares) / static_cast<float>(width);
    const F inverse = V::set(1.0F / __builtin_sqrtf(variance + eps));
    for (int i = 0; i < width; i += kLanes) {
      const F normed = V::mul(V::sub(V::load(x + i), mean), inverse);
      V::store(y + i, V::fma(normed, V::load(weight + i), V::load(bias + i)));
    }
  }

  static void write(const IndexWriteParams& p, int begin, int end) {
    alignas(64) float row[kMaxIndexDim];
    const int dim = p.keys.dim;
    for (int t = begin; t < end; ++t) {
      const TokenPlace place = p.places[t];
      layer_norm(p.x + static_cast<std::int64_t>(t) * dim, p.weight, p.bias, row, dim, p.eps);
      rotate(row, row, 1, p.rope, place.position);
      float* key = p.keys.keys + static_cast<std::int64_t>(place.block) * kKvBlock * dim +
                   place.position % kKvBlock;
      for (int i = 0; i < dim; ++i) key[i * kKvBlock] = row[i];
    }
  }

  static float* scores_of(const IndexSelectParams& p, int token) {
    return p.scores + token % kIndexRows * p.ld_scores;
  }

  static void scores(const IndexSelectParams& p, int token, int begin, int end) {
    alignas(64) float dots[kMaxIndexHeads][kKvBlock];
    const int dim = p.keys.dim;
    const float* query = p.query + static_cast<std::int64_t>(token) * p.heads * dim;
    const float* weights = p.weights + static_cast<std::int64_t>(token) * p.heads;
    ProductRows heads;
    for (int h = 0; h < p.heads; ++h) heads.add(query + h * dim, dots[h]);
    for (int b = begin; b < end; ++b) {
      const int left = p.places[token].position + 1 - b * kKvBlock;
      const int vectors = (left < kKvBlock ? left + kLanes - 1 : kKvBlock) / kLanes;
      const std::int64_t block = p.block_tables[token][b];
      const Columns keys{reinterpret_cast<const char*>(p.keys.keys + block * kKvBlock * dim),
                         kKvBlock * 4, vectors, dim};
      product<V, DType::kF32>(keys, heads, false);
      float* score = scores_of(p, token) + static_cast<std::int64_t>(b) * kKvBlock;
      for (int v = 0; v < vectors * kLanes; v += kLanes) {
        F sum = V::set(0.0F);
        for (int h = 0; h < p.heads; ++h) {
          const F positive = V::max(V::load(dots[h] + v), V::set(0.0F));
          sum = V::fma(V::set(weights[h] * p.scale), positive, sum);
        }
        V::store(score + v, sum);
      }
    }
  }

  // Rises with x; the two zeros are one.
  static std::uint32_t key_of(float x) {
    const auto bits = __builtin_bit_cast(std::uint32_t, x + 0.0F);
    return bits ^ (bits >> 31 != 0 ? 0xffffffffU : 0x80000000U);
  }

  // The key of the highest scores' last, found byte by byte; `ties` becomes how many scores with
  // this key are among them.
  static std::uint32_t last_key(const float* score, int count, int top_k, int& ties) {
    std::uint32_t found = 0;
    std::uint32_t known = 0;  // bits of `found` that are
    int wanted = top_k;
    for (int shift = 24; shift >= 0; shift -= 8) {
      int histogram[256] = {};
      for (int i = 0; i < count; ++i) {
        const std::uint32_t key = key_of(score[i]);
        if ((key & known) == found) ++histogram[key >> shift & 255U];
      }
      std::uint32_t digit = 255;
      for (; histogram[digit] < wanted; --digit) wanted -= histogram[digit];
      found |= digit << shift;
      known |= 255U << shift;
    }
    ties = wanted;
    return found;
  }

  static void select(const IndexSelectParams& p, int token) {
    const int count = p.places[token].position + 1;
    std::uint64_t* words = p.selection.words + token * p.selection.ld;
    const bool all = count <= p.top_k;
    const float* score = scores_of(p, token);
    int ties = 0;
    const std::uint32_t last = all ? 0 : last_key(score, count, p.top_k, ties);
    for (int begin = 0; begin < count; begin += kKvBlock) {
      std::uint64_t word = 0;
      for (int i = 0; i < kKvBlock && begin + i < count; ++i) {
        const std::uint32_t key = all ? 1 : key_of(score[begin + i]);
        const bool taken = key > last || (key == last && ties-- > 0);
        word |= std::uint64_t{taken} << i;
      }
      words[begin / kKvBlock] = word;
    }
  }
};

}  // namespace
}  // namespace dsm::kernels
