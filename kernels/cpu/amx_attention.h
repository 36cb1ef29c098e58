// Attention of many rows with AMX. Blocks of a cache in BF16 are operands as they stand: the keys
// of a block are a panel of 64 positions, and its values one of as many inputs. Those in FP32
// become operands block by block, for all rows of an item. Queries, and the exponentials that
// values are multiplied by, are rounded to BF16; maxima, their sums and the sums of values are
// FP32, corrected whenever a row's maximum rises. Internal linkage, as kernels.h says.
#pragma once

#include "kernels/cpu/amx_tiles.h"
#include "kernels/cpu/attention.h"

namespace dsm::kernels {
namespace {

constexpr int kAttendedTiles = tiles_of(kAttendedRows);
constexpr int kBlockSteps = kKvBlock / kStepInputs;

// The rows of an item while blocks pass by.
struct AttendedRows {
  alignas(64) std::uint16_t query[operands_of(kAttendedTiles, steps_of(kMostKeyDim))];
  alignas(64) float score[kAttendedTiles * kTileRows][kKvBlock];
  alignas(64) std::uint16_t share[kAttendedTiles][kBlockSteps][kTileRows][kStepInputs];
  alignas(64) float sums[kAttendedTiles * kTileRows * kMostValueDim];
  float best[kAttendedRows];  // of the scores in powers of two
  float total[kAttendedRows];
  float* out[kAttendedRows];
  int position[kAttendedRows];
  const std::uint64_t* selected[kAttendedRows];
};

// The nearest BF16 of both as pairs, side by side.
inline __m512i pairs_of(__m512 even, __m512 odd) {
  const __m512i low = _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(even)));
  const __m512i high = _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(odd)));
  return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

// A block's keys as operands, [pairs of dimensions][64][2]: where they stand, or made in `made`.
inline const char* keys_of(const KvLayer& kv, std::int64_t block, char* made) {
  const char* keys = static_cast<const char*>(kv.keys) + block * key_block_bytes(kv);
  if (kv.dtype == DType::kBF16) return keys;
  const auto* from = reinterpret_cast<const float*>(keys);
  char* to = made;
  for (int i = 0; i < kv.key_dim; i += 2, from += 2 * kKvBlock) {
    for (int at = 0; at < kKvBlock; at += kLanes, to += 64) {
      _mm512_store_si512(to, pairs_of(Avx512::load(from + at), Avx512::load(from + kKvBlock + at)));
    }
  }
  return made;
}

// Its values, [pairs of positions][value_dim][2]. Those of positions from `seen` on, which may be
// no numbers, are zeros, up to a whole step.
inline const char* values_of(const KvLayer& kv, std::int64_t block, int seen, char* made) {
  const char* values = static_cast<const char*>(kv.values) + block * value_block_bytes(kv);
  const bool whole = seen % kStepInputs == 0;
  if (kv.dtype == DType::kBF16 && whole) return values;
  const int width = kv.value_dim;
  char* to = made;
  for (int at = 0; at < steps_of(seen) * kStepInputs; at += 2) {
    const __mmask16 even = at < seen ? 0xffff : 0;
    const __mmask16 odd = at + 1 < seen ? 0xffff : 0;
    for (int i = 0; i < width; i += kLanes, to += 64) {
      if (kv.dtype == DType::kBF16) {
        const __m512i pair = _mm512_maskz_loadu_epi32(even, values + (at / 2 * width + i) * 4);
        _mm512_store_si512(to, odd != 0 ? pair : _mm512_and_si512(pair, _mm512_set1_epi32(0xffff)));
      } else {
        const auto* from = reinterpret_cast<const float*>(values) + at * width + i;
        _mm512_store_si512(to, pairs_of(_mm512_maskz_loadu_ps(even, from),
                                        _mm512_maskz_loadu_ps(odd, from + width)));
      }
    }
  }
  return made;
}

// 2^x, to 3e-6 of it: of the nearest whole number, and a polynomial of what is left.
inline __m512 power_of_two(__m512 x) {
  const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 rest = _mm512_sub_ps(x, whole);
  __m512 p = Avx512::set(1.3333558e-3F);
  p = Avx512::fma(p, rest, Avx512::set(9.6181291e-3F));
  p = Avx512::fma(p, rest, Avx512::set(5.5504109e-2F));
  p = Avx512::fma(p, rest, Avx512::set(2.4022651e-1F));
  p = Avx512::fma(p, rest, Avx512::set(6.9314718e-1F));
  p = Avx512::fma(p, rest, Avx512::set(1.0F));
  return _mm512_scalef_ps(p, whole);
}

// A row's scores of a block become its shares of the values, and what it has so far is made smaller
// where its maximum rises. `scale` is in powers of two.
inline void share_out(AttendedRows& rows, int r, std::uint64_t mask, float scale, int width) {
  constexpr int kVectors = kKvBlock / kLanes;
  const __m512 nothing = Avx512::set(Attention<Avx512>::kNothing);
  __m512 x[kVectors];
  __m512 top = nothing;
  for (int v = 0; v < kVectors; ++v) {
    const auto lanes = static_cast<__mmask16>(mask >> (v * kLanes));
    x[v] = _mm512_mask_mul_ps(nothing, lanes, Avx512::load(rows.score[r] + v * kLanes),
                              Avx512::set(scale));
    top = Avx512::max(top, x[v]);
  }
  const float reached = _mm512_reduce_max_ps(top);
  if (reached > rows.best[r]) {
    const __m512 keep = power_of_two(Avx512::set(rows.best[r] - reached));
    rows.best[r] = reached;
    rows.total[r] *= _mm512_cvtss_f32(keep);
    float* const sums = rows.sums + r * width;
    for (int i = 0; i < width; i += kLanes) {
      Avx512::store(sums + i, Avx512::mul(Avx512::load(sums + i), keep));
    }
  }
  __m512 sum = _mm512_setzero_ps();
  for (int v = 0; v < kVectors; ++v) {
    const auto lanes = static_cast<__mmask16>(mask >> (v * kLanes));
    x[v] = _mm512_maskz_mov_ps(lanes, power_of_two(_mm512_sub_ps(x[v], Avx512::set(rows.best[r]))));
    sum = Avx512::add(sum, x[v]);
  }
  rows.total[r] += _mm512_reduce_add_ps(sum);
  for (int step = 0; step < kBlockSteps; ++step) {
    _mm512_store_si512(
        rows.share[r / kTileRows][step][r % kTileRows],
        reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(x[2 * step + 1], x[2 * step])));
  }
}

// Adds the shares' sums of a block's values.
inline void add_values(AttendedRows& rows, int tiles, const char* values, int steps, int width) {
  constexpr std::int64_t kStride = kBlockSteps * kTileRows * kStepInputs;
  for (int column = 0; column < width; column += 2 * kLanes) {
    Prefetched none;
    multiply_columns<Rows::kStay>(rows.share[0][0][0], kStride, tiles,
                                  {values + column * 4, width * 4}, steps,
                                  sums_in_rows(rows.sums + column, width), true, none);
  }
}

inline void attend(const AttentionParams& p, int first, int items) {
  alignas(64) char made_keys[kKvBlock * kMostKeyDim * 2];
  alignas(64) char made_values[kKvBlock * kMostValueDim * 2];
  AttendedRows rows;
  const AttentionItem& item = p.items[first];
  const int row_begin = item.row_begin;
  const int count = p.items[first + items - 1].row_end - row_begin;
  const int tiles = tiles_of(count);
  const int steps = steps_of(p.kv.key_dim);
  const int width = p.kv.value_dim;
  const float scale = p.scale * 1.44269504F;
  const OperandRows queries{rows.query, steps};
  for (int r = 0; r < tiles * kTileRows; ++r) {
    std::uint16_t* const to = queries.tile(r / kTileRows) + r % kTileRows * kStepInputs;
    if (r >= count) {
      for (int step = 0; step < steps; ++step) {
        _mm512_store_si512(to + step * kTileRows * kStepInputs, _mm512_setzero_si512());
      }
      for (auto& step : rows.share[r / kTileRows]) {
        _mm512_store_si512(step[r % kTileRows], _mm512_setzero_si512());
      }
      continue;
    }
    const int token = (row_begin + r) / p.heads;
    const int head = (row_begin + r) % p.heads;
    const std::int64_t at =
        (static_cast<std::int64_t>(token) * p.kv.heads + item.kv_head) * p.heads + head;
    pack_row(p.query + at * p.kv.key_dim, p.kv.key_dim, to);
    rows.best[r] = Attention<Avx512>::kNothing;
    rows.total[r] = 0.0F;
    rows.out[r] = p.out + at * width;
    rows.position[r] = p.places[token].position;
    const std::uint64_t* words = p.selection.words;
    rows.selected[r] = words != nullptr ? words + token * p.selection.ld : nullptr;
  }
  for (int i = 0; i < tiles * kTileRows * width; i += kLanes) {
    Avx512::store(rows.sums + i, _mm512_setzero_ps());
  }
  const TileSession session;
  const int last = rows.position[count - 1];  // rows rise in position
  for (int b = 0; b * kKvBlock <= last; ++b) {
    std::uint64_t mask[kAttendedRows];
    std::uint64_t any = 0;
    for (int r = 0; r < count; ++r) {
      mask[r] = Attention<Avx512>::block_mask(rows.position[r], b, rows.selected[r]);
      any |= mask[r];
    }
    if (any == 0) continue;
    const std::int64_t block =
        static_cast<std::int64_t>(item.block_table[b]) * p.kv.heads + item.kv_head;
    const int seen = last - b * kKvBlock + 1 < kKvBlock ? last - b * kKvBlock + 1 : kKvBlock;
    multiply_panel<Rows::kStay>(
        rows.query, queries.tile(1) - queries.tile(0), tiles, keys_of(p.kv, block, made_keys),
        steps, sums_in_rows(rows.score[0], kKvBlock), kKvBlock / 2, false, nullptr);
    for (int r = 0; r < count; ++r) share_out(rows, r, mask[r], scale, width);
    add_values(rows, tiles, values_of(p.kv, block, seen, made_values), steps_of(seen), width);
  }
  for (int r = 0; r < count; ++r) {
    const __m512 total = Avx512::set(rows.total[r]);
    for (int i = 0; i < width; i += kLanes) {
      Avx512::store(rows.out[r] + i, Avx512::div(Avx512::load(rows.sums + r * width + i), total));
    }
  }
}

}  // namespace
}  // namespace dsm::kernels
