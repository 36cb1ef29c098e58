// The operators, written once over a vector type V of 16 lanes and compiled once per instruction
// set (generic.cc, avx2.cc, avx512.cc). kernels/ops.h says why all of them give the same bits.
//
// Everything here has internal linkage, and no header with inline functions is included: code
// compiled for AVX-512 must not be merged by the linker with the same function compiled for a plain
// processor.
#pragma once

#include "kernels/cpu/attention.h"
#include "kernels/cpu/indexer.h"
#include "kernels/cpu/kv_cache.h"
#include "kernels/cpu/product.h"
#include "kernels/cpu/quantise.h"
#include "kernels/cpu/rotate.h"
#include "kernels/cpu/router.h"
#include "kernels/ops.h"

namespace dsm::kernels {
namespace {

template <class V>
struct Kernels {
  using F = typename V::F;

  // A column of the packed matrix, whose words and scales stand kPanel apart.
  template <DType kType>
  static void embedding_of_integers(const EmbeddingParams& p, std::int64_t row, float* y) {
    constexpr int kInputs = inputs_per_word(kType);
    constexpr int kBits = 32 / kInputs;
    constexpr int kZero = kType == DType::kInt4 ? 8 : 0;
    const PackedMatrix w{.dtype = kType, .k = p.width};
    const std::int64_t panel = row / kPanel * kPanel;
    const std::int64_t lane = row % kPanel;
    const auto* word = static_cast<const std::uint32_t*>(p.table) + panel * words_of(w) + lane;
    const float* scales = p.scales + panel * scale_blocks(w) + lane;
    for (int i = 0; i < p.width; i += kInputs, word += kPanel) {
      const float scale = scales[i / kScaleBlock * kPanel];
      for (int number = 0; number < kInputs && i + number < p.width; ++number) {
        const std::uint32_t bits = *word >> place_in_word(kType, number) * kBits;
        const int value = kType == DType::kInt8 ? static_cast<std::int8_t>(bits & 255U)
                                                : static_cast<int>(bits & 15U) - kZero;
        y[i + number] = static_cast<float>(value) * scale;
      }
    }
  }

  static void embedding(const EmbeddingParams& p, int begin, int end) {
    for (int r = begin; r < end; ++r) {
      const std::int64_t from = static_cast<std::int64_t>(p.tokens[r]) * p.width;
      float* y = p.y + static_cast<std::int64_t>(r) * p.width;
      if (p.tokens[r] < 0) {
        for (int i = 0; i < p.width; ++i) y[i] = 0.0F;
      } else if (p.dtype == DType::kInt8) {
        embedding_of_integers<DType::kInt8>(p, p.tokens[r], y);
      } else if (p.dtype == DType::kInt4) {
        embedding_of_integers<DType::kInt4>(p, p.tokens[r], y);
      } else if (p.dtype == DType::kBF16) {
        const auto* row = static_cast<const std::uint16_t*>(p.table) + from;
        for (int i = 0; i < p.width; ++i) {
          y[i] = __builtin_bit_cast(float, static_cast<std::uint32_t>(row[i]) << 16);
        }
      } else {
        const auto* row = static_cast<const float*>(p.table) + from;
        for (int i = 0; i < p.width; ++i) y[i] = row[i];
      }
    }
  }

  static float inverse_norm(const float* x, int width, float eps) {
    F sum = V::set(0.0F);
    for (int i = 0; i < width; i += kLanes) {
      const F value = V::load(x + i);
      sum = V::fma(value, value, sum);
    }
    return 1.0F / __builtin_sqrtf(sum16<V>(sum) / static_cast<float>(width) + eps);
  }

  static void norm_row(const float* x, const float* weight, float* y, int width, float eps) {
    const float inverse = inverse_norm(x, width, eps);
    for (int i = 0; i < width; i += kLanes) {
      V::store(y + i, V::mul(V::load(weight + i), V::mul(V::load(x + i), V::set(inverse))));
    }
  }

  static void rms_norm(const RmsNormParams& p, int begin, int end) {
    for (int r = begin; r < end; ++r) {
      const std::int64_t from = p.row_index != nullptr ? p.row_index[r] : r;
      norm_row(p.x + from * p.ldx, p.weight, p.y + r * p.ldy, p.width, p.eps);
    }
  }

  static void norm_heads(const NormHeadsParams& p, int begin, int end) {
    for (int t = begin; t < end; ++t) {
      for (int h = 0; h < p.queries + p.keys; ++h) {
        float* x = p.x + t * p.ldx + static_cast<std::int64_t>(h) * p.dim;
        norm_row(x, h < p.queries ? p.query_weight : p.key_weight, x, p.dim, p.eps);
      }
    }
  }

  static MadeRows made_rows(const IntegerRows* made, int row, int piece) {
    if (made == nullptr) return {};
    return {made, row - made->first, piece};
  }

  static void linear(const LinearParams& p, int which, int begin, int end, int panel) {
    linear_of(p, which, nullptr, begin, end, panel);
  }
  // `made`: the rows as integers; null: they are not there.
  static void linear_of(const LinearParams& p, int which, const IntegerRows* made, int begin,
                        int end, int panel) {
    const float* x = p.x + which * p.x_step;
    float* y = p.y + which * p.y_step + panel * kPanel;
    const int width = p.w[which].n - panel * kPanel;
    // Those by integers are added to for each piece of the inputs, so they stand side by side.
    const bool whole = (width >= kPanel || width % kLanes == 0) && !is_integer(p.w[which].dtype);
    alignas(64) float sums[kRowBlock][kPanel];  // or the last vector must not be stored whole
    for (int row = begin; row < end; row += kRowBlock) {
      ProductRows rows;
      rows.made = made_rows(made, row, 0);
      for (int r = row; r < end && r < row + kRowBlock; ++r) {
        rows.add(x + r * p.ldx, whole ? y + r * p.ldy : sums[r - row]);
      }
      for (int r = 0; p.accumulate && !whole && r < rows.count; ++r) {
        for (int i = 0; i < kPanel; ++i) sums[r][i] = i < width ? y[(row + r) * p.ldy + i] : 0.0F;
      }
      panel_product<V>(p.w[which], panel, rows, p.accumulate);
      for (int r = 0; !whole && r < rows.count; ++r) {
        copy(sums[r], width < kPanel ? width : kPanel, y + (row + r) * p.ldy);
      }
      for (int r = 0; p.bias != nullptr && r < rows.count; ++r) {
        for (int i = 0; i < width && i < kPanel; ++i) {
          y[(row + r) * p.ldy + i] += p.bias[panel * kPanel + i];
        }
      }
    }
  }

  static void gate_up(const GateUpParams& p, int group, int begin, int end, int panel) {
    gate_up_of(p, group, nullptr, begin, end, panel);
  }
  static void gate_up_of(const GateUpParams& p, int group, const IntegerRows* made, int begin,
                         int end, int panel) {
    constexpr int kHalf = kPanel / 2;
    const bool begun = group == 0 && p.start != nullptr;
    alignas(64) float sums[kRowBlock][kPanel];
    for (int slot = begin; slot < end; slot += kRowBlock) {
      ProductRows rows;
      rows.made = made_rows(made, slot, 0);
      for (int s = slot; s < end && s < slot + kRowBlock; ++s) {
        rows.add(p.x + p.token[s] * p.ldx, sums[s - slot]);
        for (int i = 0; begun && i < kPanel; i += kLanes) {
          V::store(sums[s - slot] + i, V::load(p.start + s * p.lds + panel * kPanel + i));
        }
      }
      panel_product<V>(p.w[group], panel, rows, begun);
      for (int r = 0; r < rows.count; ++r) {
        float* h = p.h + (slot + r) * p.ldh + panel * kHalf;
        const F weight = V::set(p.weight[slot + r]);
        for (int i = 0; i < kHalf; i += kLanes) {
          const F gate = V::load(sums[r] + i);
          const F silu = V::mul(gate, sigmoid16<V>(gate));
          V::store(h + i, V::mul(V::mul(silu, V::load(sums[r] + kHalf + i)), weight));
        }
      }
    }
  }

  // The first slot of [begin, end) whose token is not below `token`.
  static int slot_of(const std::int32_t* tokens, int begin, int end, int token) {
    while (begin < end) {
      const int middle = begin + (end - begin) / 2;
      if (tokens[middle] < token) {
        begin = middle + 1;
      } else {
        end = middle;
      }
    }
    return begin;
  }

  // Slots of one group, as a row-parallel product takes them.
  struct GroupInput {
    const float* h;
    std::int64_t ldh;
    const std::int32_t* token;
    Group group;
    const SegmentedMatrix* w;
    const IntegerRows* made = nullptr;
  };
  // Continues the sums of tokens [begin, end) with segment s of a group, whose integers begin with
  // `piece` of a row's; the sums begin when `go_on` is false.
  static void add_group(const GroupInput& from, int s, int piece, int begin, int end, int panel,
                        float (*sums)[kPanel], bool go_on) {
    const int first = slot_of(from.token, from.group.begin, from.group.end, begin);
    const int last = slot_of(from.token, first, from.group.end, end);
    const float* h = from.h + from.w->offset[s];
    ProductRows rows;
    rows.made = made_rows(from.made, first, piece);
    for (int slot = first; slot < last; ++slot) {
      rows.add(h + slot * from.ldh, sums[from.token[slot] - begin]);
    }
    panel_product<V>(from.w->part[s], panel, rows, go_on);
  }

  static void row_parallel(const RowParallelParams& p, int begin, int end, int panel) {
    row_parallel_of(p, nullptr, begin, end, panel);
  }
  static void row_parallel_of(const RowParallelParams& p, const IntegerRows* made, int begin,
                              int end, int panel) {
    // Partial sums on their way up the tree: a finished subtree waits for its sibling, so
    // log2(segments) + 1 suffice.
    constexpr int kDepth = 4;
    static_assert(kSegments <= 1 << (kDepth - 1));
    alignas(64) float waiting[kDepth][kRowBlock][kPanel];
    int depth = 0;
    const int left = p.w[0].part[0].n - panel * kPanel;
    const int vectors = (left < kPanel ? left + kLanes - 1 : kPanel) / kLanes;
    const int segments = p.w[0].count;
    for (int s = 0; s < segments; ++s) {
      auto& sums = waiting[depth++];
      for (int g = 0; g < p.group_count; ++g) {
        int piece = 0;
        for (int before = 0; made != nullptr && before < s; ++before) {
          piece += pieces_of(p.w[g].part[before]);
        }
        add_group({p.h, p.ldh, p.token, p.groups[g], &p.w[g], made != nullptr ? made + g : nullptr},
                  s, piece, begin, end, panel, sums, g > 0);
      }
      for (int a = 0; a < p.adapter_count; ++a) {
        add_group(
            {p.adapter_h, p.adapter_ldh, p.adapter_token, p.adapter_groups[a], &p.adapter_w[a]}, s,
            0, begin, end, panel, sums, true);
      }
      for (int done = s + 1; done % 2 == 0; done /= 2, --depth) {
        for (int t = 0; t < end - begin; ++t) {
          float* to = waiting[depth - 2][t];
          const float* from = waiting[depth - 1][t];
          for (int v = 0; v < vectors * kLanes; v += kLanes) {
            V::store(to + v, V::add(V::load(to + v), V::load(from + v)));
          }
        }
      }
    }
    for (int t = begin; t < end; ++t) {
      const std::int64_t at = t * p.ldy + panel * kPanel;
      for (int v = 0; v < vectors * kLanes; v += kLanes) {
        F sum = V::load(waiting[0][t - begin] + v);
        if (p.residual != nullptr) sum = V::add(V::load(p.residual + at + v), sum);
        V::store(p.y + at + v, sum);
      }
    }
  }

  static void tree_sum(const TreeSumParams& p, std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; i += kLanes) {
      F part[kSegments];
      for (int r = 0; r < p.ranks; ++r) part[r] = V::load(p.parts + r * p.count + i);
      for (int step = 1; step < p.ranks; step *= 2) {
        for (int r = 0; r < p.ranks; r += 2 * step) part[r] = V::add(part[r], part[r + step]);
      }
      V::store(p.y + i, V::add(V::load(p.residual + i), part[0]));
    }
  }

  // Calls put(first, part, count) with parts of [0, dim) as the cache takes them; fill(first,
  // part, count) computes one.
  template <class Fill, class Put>
  static void in_parts(int dim, const Fill& fill, const Put& put) {
    float part[kScaleBlock];
    for (int first = 0; first < dim; first += kScaleBlock) {
      const int count = dim - first < kScaleBlock ? dim - first : kScaleBlock;
      fill(first, part, count);
      put(first, part, count);
    }
  }

  static void kv_write(const KvWriteParams& p, int begin, int end) {
    const int latent = p.kv.value_dim;
    for (int t = begin; t < end; ++t) {
      const int position = p.places[t].position;
      const KvPlace place = place_of(p.kv, p.places[t], 0);
      const float* from = p.kv_a + t * p.ld;
      const F inverse = V::set(inverse_norm(from, latent, p.eps));
      in_parts(
          latent,
          [&](int first, float* part, int count) {
            for (int i = 0; i < count; i += kLanes) {
              V::store(part + i, V::mul(V::load(p.norm + first + i),
                                        V::mul(V::load(from + first + i), inverse)));
            }
          },
          [&](int first, const float* part, int count) {
            put_key(p.kv, place, first, part, count);
            put_value(p.kv, place, first, part, count);
          });
      in_parts(
          p.kv.key_dim - latent,
          [&](int first, float* part, int count) {
            rotate_part(from + latent, first, count, part, p.rope, position);
          },
          [&](int first, const float* part, int count) {
            put_key(p.kv, place, latent + first, part, count);
          });
    }
  }

  static void kv_write_heads(const KvWriteHeadsParams& p, int begin, int end) {
    for (int t = begin; t < end; ++t) {
      const int position = p.places[t].position;
      for (int h = 0; h < p.kv.heads; ++h) {
        const KvPlace place = place_of(p.kv, p.places[t], h);
        const float* k = p.k + t * p.ld + h * p.kv.key_dim;
        const float* v = p.v + t * p.ld + h * p.kv.value_dim;
        in_parts(
            p.kv.key_dim,
            [&](int first, float* part, int count) {
              rotate_part(k, first, count, part, p.rope, position);
            },
            [&](int first, const float* part, int count) {
              put_key(p.kv, place, first, part, count);
            });
        in_parts(
            p.kv.value_dim,
            [&](int first, float* part, int count) {
              for (int i = 0; i < count; ++i) part[i] = v[first + i];
            },
            [&](int first, const float* part, int count) {
              put_value(p.kv, place, first, part, count);
            });
      }
    }
  }

  static void latent_read(const LatentReadParams& p, int begin, int end) {
    const int rope = p.kv.key_dim - p.kv.value_dim;
    for (int r = begin; r < end; ++r) {
      const KvPlace place{p.blocks[r / kKvBlock], r % kKvBlock};
      float* to = p.latents + static_cast<std::int64_t>(r) * p.kv.value_dim;
      for (int i = 0; i < p.kv.value_dim; ++i) to[i] = value_element(p.kv, place, i);
      float* turned = p.rotated + std::int64_t{r / kKvBlock} * rope * kKvBlock;
      for (int i = 0; i < rope; ++i) {
        turned[i * kKvBlock + place.slot] = key_element(p.kv, place, p.kv.value_dim + i);
      }
    }
  }

  static void copy(const float* from, int count, float* to) {
    int i = 0;
    for (; i + kLanes <= count; i += kLanes) V::store(to + i, V::load(from + i));
    for (; i < count; ++i) to[i] = from[i];
  }

  // Some positions of a block at a time: a dimension of theirs is a cache line of keys.
  static void heads_expand(const HeadsExpandParams& p, int begin, int end) {
    int count = 0;
    for (int r = begin; r < end; r += count) {
      const int whole = kLanes - r % kLanes;
      count = end - r < whole ? end - r : whole;
      for (int h = 0; h < p.heads; ++h) expand_head(p, h, r, count);
    }
  }

  // Rows [row, row + count), at most kLanes and of one block.
  static void expand_head(const HeadsExpandParams& p, int head, int row, int count) {
    const int width = p.nope + p.value;
    const std::int64_t ldx = std::int64_t{p.heads} * width;
    const float* x = p.x + row * ldx + std::int64_t{head} * width;
    const std::int64_t block = std::int64_t{row / kKvBlock} * p.heads + head;
    const int slot = row % kKvBlock;
    float* keys = p.keys + block * (p.nope + p.rope) * kKvBlock + slot;
    alignas(64) float turning[kLanes][kLanes];
    for (int first = 0; first < p.nope; first += kLanes) {
      const int dims = p.nope - first < kLanes ? p.nope - first : kLanes;
      for (int r = 0; r < count; ++r) copy(x + r * ldx + first, dims, turning[r]);
      for (int i = 0; i < dims; ++i) {
        for (int r = 0; r < count; ++r) keys[(first + i) * kKvBlock + r] = turning[r][i];
      }
    }
    const float* rotated = p.rotated + std::int64_t{row / kKvBlock} * p.rope * kKvBlock + slot;
    for (int i = 0; i < p.rope; ++i) {
      copy(rotated + i * kKvBlock, count, keys + (p.nope + i) * kKvBlock);
    }
    float* values = p.values + (block * kKvBlock + slot) * p.value;
    for (int r = 0; r < count; ++r) copy(x + r * ldx + p.nope, p.value, values + r * p.value);
  }

  static void rope_query(const RopeQueryParams& p, int begin, int end) {
    for (int t = begin; t < end; ++t) {
      for (int h = 0; h < p.heads; ++h) {
        const std::int64_t row = static_cast<std::int64_t>(t) * p.heads + h;
        rotate(p.q + t * p.ldq + static_cast<std::int64_t>(h) * p.head_dim + p.from,
               p.query + row * p.query_dim + p.at, 1, p.rope, p.places[t].position);
      }
    }
  }

  static void linear_by(const LinearParams& p, int which, const IntegerRows& rows, int begin,
                        int end, int panel) {
    linear_of(p, which, &rows, begin, end, panel);
  }
  static void gate_up_by(const GateUpParams& p, int group, const IntegerRows& rows, int begin,
                         int end, int panel) {
    gate_up_of(p, group, &rows, begin, end, panel);
  }

  static constexpr IntegerOps integer_table(const char* name) {
    return {.name = name,
            .make = make_rows<V>,
            .linear = linear_by,
            .gate_up = gate_up_by,
            .row_parallel = row_parallel_of};
  }

  static constexpr Ops table(const char* name) {
    return {.name = name,
            .embedding = embedding,
            .rms_norm = rms_norm,
            .quantise = quantise,
            .linear = linear,
            .gate_up = gate_up,
            .row_parallel = row_parallel,
            .tree_sum = tree_sum,
            .norm_heads = norm_heads,
            .kv_write = kv_write,
            .kv_write_heads = kv_write_heads,
            .latent_read = latent_read,
            .heads_expand = heads_expand,
            .rope_query = rope_query,
            .index_write = Indexer<V>::write,
            .index_scores = Indexer<V>::scores,
            .index_select = Indexer<V>::select,
            .attention = Attention<V>::attend,
            .router = Router<V>::choose};
  }
};

}  // namespace
}  // namespace dsm::kernels
