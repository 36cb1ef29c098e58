// Attention over the blocks of a KV cache: softmax of the scores over a row's past, block by block.
// kernels.h says why nothing here may be shared between instruction sets.
#pragma once

#include "kernels/cpu/kv_cache.h"
#include "kernels/cpu/product.h"

namespace dsm::kernels {
namespace {

template <class V>
struct Attention {
  using F = typename V::F;

  // The running maximum of a row that has attended to nothing yet: below every score, and finite,
  // so that differences are numbers.
  static constexpr float kNothing = -1e30F;

  // Which positions of block b a row at `position` attends to, as bits.
  static std::uint64_t block_mask(int position, int b, const std::uint64_t* selected) {
    const int seen = position - b * kKvBlock + 1;
    if (seen <= 0) return 0;
    if (selected != nullptr) return selected[b];
    return seen < kKvBlock ? (std::uint64_t{1} << seen) - 1 : ~std::uint64_t{0};
  }

  static void fill_outside(float* score, int count, std::uint64_t mask, float value) {
    if (mask == ~std::uint64_t{0}) return;
    for (int i = 0; i < count; ++i) {
      if ((mask >> i & 1) == 0) score[i] = value;
    }
  }

  // Scores of a block's first `vectors` * 16 positions.
  static void multiply_keys(const KvLayer& kv, std::int64_t block, int vectors, ProductRows& rows) {
    const char* keys = static_cast<const char*>(kv.keys) + block * key_block_bytes(kv);
    if (kv.dtype == DType::kF32) {
      product<V, DType::kF32>({keys, kKvBlock * 4, vectors, kv.key_dim}, rows, false);
    } else if (kv.dtype == DType::kBF16) {
      product<V, DType::kBF16>({keys, kKvBlock * 4, vectors, kv.key_dim}, rows, false);
    } else {
      const int scaled = kv.key_dim - kv.plain_dim;
      const float* scales = kv.key_scales + block * key_scales_of(kv) * kKvBlock;
      product<V, DType::kF8E4M3>({keys, kKvBlock, vectors, scaled, scales, kScaleBlock}, rows,
                                 false);
      if (kv.plain_dim == 0) return;
      for (int r = 0; r < rows.count; ++r) rows.x[r] += scaled;
      product<V, DType::kBF16>({keys + scaled * kKvBlock, kKvBlock * 4, vectors, kv.plain_dim},
                               rows, true);
    }
  }

  // Dimensions of values from `from` on, and positions of a block that are seen.
  struct ValuePart {
    int from;
    int vectors;
    int seen;
  };
  // Sums over a block's positions. FP8 has a scale for each of them, so it is widened first.
  static void multiply_values(const KvLayer& kv, std::int64_t block, ValuePart part,
                              ProductRows& rows) {
    const char* values = static_cast<const char*>(kv.values) + block * value_block_bytes(kv);
    const std::int64_t width = kv.value_dim;
    if (kv.dtype == DType::kF32) {
      product<V, DType::kF32>({values + part.from * 4, width * 4, part.vectors, part.seen}, rows,
                              false);
    } else if (kv.dtype == DType::kBF16) {
      product<V, DType::kBF16>({values + part.from * 4, width * 4, part.vectors, part.seen}, rows,
                               false);
    } else {
      alignas(64) float widened[kKvBlock][kPanel];
      const float* scales =
          kv.value_scales + (block * value_scales_of(kv) + part.from / kScaleBlock) * kKvBlock;
      for (int at = 0; at < part.seen; ++at) {
        for (int v = 0; v < part.vectors * kLanes; v += kLanes) {
          V::store(widened[at] + v,
                   V::mul(V::load_e4m3(values + at * width + part.from + v), V::set(scales[at])));
        }
      }
      product<V, DType::kF32>(
          {reinterpret_cast<const char*>(widened), kPanel * 4, part.vectors, part.seen}, rows,
          false);
    }
  }

  static void attend(const AttentionParams& p, int which) {
    const AttentionItem& item = p.items[which];
    const int rows = item.row_end - item.row_begin;
    const int dim = p.kv.key_dim;
    const int width_out = p.kv.value_dim;
    alignas(64) float score[kAttentionRows][kKvBlock];
    alignas(64) float fresh[kAttentionRows][kPanel];  // this block's part of the output
    alignas(64) float best[kAttentionRows];           // running maximum
    alignas(64) float total[kAttentionRows];          // running denominator
    alignas(64) float block_best[kAttentionRows];
    alignas(64) float block_total[kAttentionRows];
    alignas(64) float keep[kAttentionRows];  // factor of what stands
    alignas(64) float take[kAttentionRows];  // factor of the new block
    const float* query[kAttentionRows];
    float* out[kAttentionRows];
    int position[kAttentionRows];
    const std::uint64_t* selected[kAttentionRows];
    std::uint64_t mask[kAttentionRows];  // the block's positions that a row attends to
    for (int r = 0; r < rows; ++r) {
      const int token = (item.row_begin + r) / p.heads;
      const int head = (item.row_begin + r) % p.heads;
      const std::int64_t at =
          (static_cast<std::int64_t>(token) * p.kv.heads + item.kv_head) * p.heads + head;
      query[r] = p.query + at * dim;
      out[r] = p.out + at * width_out;
      position[r] = p.places[token].position;
      const std::uint64_t* words = p.selection.words;
      selected[r] = words != nullptr ? words + token * p.selection.ld : nullptr;
    }
    const int last = position[rows - 1];  // rows rise in position

    bool first = true;  // no block has been taken in yet
    for (int b = 0; b * kKvBlock <= last; ++b) {
      std::uint64_t any = 0;
      for (int r = 0; r < rows; ++r) {
        mask[r] = block_mask(position[r], b, selected[r]);
        any |= mask[r];
      }
      if (any == 0) continue;
      const std::int64_t block =
          static_cast<std::int64_t>(item.block_table[b]) * p.kv.heads + item.kv_head;
      // Positions of this block that some row sees: slots past them may hold another sequence's
      // data.
      const int seen = last - b * kKvBlock + 1 < kKvBlock ? last - b * kKvBlock + 1 : kKvBlock;
      const int vectors = (seen + kLanes - 1) / kLanes;
      ProductRows scores;
      for (int r = 0; r < rows; ++r) scores.add(query[r], score[r]);
      multiply_keys(p.kv, block, vectors, scores);

      for (int r = 0; r < rows; ++r) {
        if (mask[r] == 0) {
          for (int i = 0; i < vectors * kLanes; ++i) score[r][i] = 0.0F;
          block_best[r] = first ? kNothing : best[r];
          block_total[r] = 0.0F;
          continue;
        }
        fill_outside(score[r], vectors * kLanes, mask[r], -__builtin_inff());
        F top = V::set(-__builtin_inff());
        for (int i = 0; i < vectors * kLanes; i += kLanes) {
          const F s = V::mul(V::load(score[r] + i), V::set(p.scale));
          V::store(score[r] + i, s);
          top = V::max(top, s);
        }
        block_best[r] = max16<V>(top);
        for (int i = 0; i < vectors * kLanes; i += kLanes) {
          V::store(score[r] + i, exp16<V>(V::sub(V::load(score[r] + i), V::set(block_best[r]))));
        }
        fill_outside(score[r], vectors * kLanes, mask[r], 0.0F);
        F sum = V::set(0.0F);
        for (int i = 0; i < vectors * kLanes; i += kLanes) sum = V::add(sum, V::load(score[r] + i));
        block_total[r] = sum16<V>(sum);
      }

      if (!first) {
        for (int r = rows; r < (rows + kLanes - 1) / kLanes * kLanes; ++r) {
          best[r] = block_best[r] = total[r] = block_total[r] = 0.0F;
        }
        for (int r = 0; r < rows; r += kLanes) {
          const F top = V::max(V::load(best + r), V::load(block_best + r));
          const F old_factor = exp16<V>(V::sub(V::load(best + r), top));
          const F new_factor = exp16<V>(V::sub(V::load(block_best + r), top));
          V::store(best + r, top);
          V::store(keep + r, old_factor);
          V::store(take + r, new_factor);
          V::store(total + r, V::fma(V::load(block_total + r), new_factor,
                                     V::mul(V::load(total + r), old_factor)));
        }
      } else {
        for (int r = 0; r < rows; ++r) {
          best[r] = block_best[r];
          total[r] = block_total[r];
        }
      }

      for (int from = 0; from < width_out; from += kPanel) {
        const int width = width_out - from < kPanel ? width_out - from : kPanel;
        ProductRows sums;
        for (int r = 0; r < rows; ++r) sums.add(score[r], first ? out[r] + from : fresh[r]);
        multiply_values(p.kv, block, {from, width / kLanes, seen}, sums);
        for (int r = 0; !first && r < rows; ++r) {
          float* to = out[r] + from;
          for (int i = 0; i < width; i += kLanes) {
            V::store(to + i, V::fma(V::load(fresh[r] + i), V::set(take[r]),
                                    V::mul(V::load(to + i), V::set(keep[r]))));
          }
        }
      }
      first = false;
    }
    for (int r = 0; r < rows; ++r) {
      for (int i = 0; i < width_out; i += kLanes) {
        V::store(out[r] + i, V::div(V::load(out[r] + i), V::set(total[r])));
      }
    }
  }
};

}  // namespace
}  // namespace dsm::kernels
