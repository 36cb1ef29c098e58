// AMX: a tile is 16 rows of 64 bytes, and one instruction multiplies 16 rows of 32 inputs by 16
// columns of them. A packed panel is the right-hand operand as it stands: 16 pairs of inputs, 256
// bytes apart, of 16 columns side by side. Internal linkage, as kernels.h says.
#pragma once

#include <immintrin.h>

#include "kernels/cpu/amx_session.h"
#include "kernels/cpu/bf16_operands.h"

namespace dsm::kernels {
namespace {

// Lines that are wanted soon, from the third-level cache or memory, a few with each step of a
// product: a tile that waits for them holds up all that come after it, and so do many at once.
struct Prefetched {
  const char* at = nullptr;
  int lines = 0;  // at a time; 0: none

  void some() {
    for (int i = 0; i < lines; ++i, at += 64) _mm_prefetch(at, _MM_HINT_T1);
  }
};

// Columns of pairs of inputs, and the sums that they are multiplied into.
struct RightHand {
  const char* at;
  std::int64_t pair_bytes;  // from one pair of inputs to the next
};
struct TileSums {
  float* at;
  std::int64_t row;    // floats from one row to the next
  std::int64_t right;  // to the next 16 columns
  std::int64_t below;  // to the next 16 rows
};
constexpr TileSums sums_in_rows(float* at, std::int64_t row) {
  return {at, row, kLanes, kTileRows * row};
}

// Where rows' operands are kept once they have been read. In the first-level cache where there are
// few and they are wanted again soon; those that only pass by would push out the weights, which are
// wanted again, so they are asked for as TILELOADDT1 does: in the second-level one.
enum class Rows : std::uint8_t { kStay, kPass };

// 16 rows of operands by 32 columns. kTwo: 32 rows, `stride` from one tile of operands to the next;
// each operand is loaded once for two products.
template <bool kTwo, Rows kRows>
inline __attribute__((always_inline)) void multiply_tiles(const std::uint16_t* a,
                                                          std::int64_t stride, RightHand b,
                                                          int steps, const TileSums& to, bool go_on,
                                                          Prefetched& prefetched) {
  constexpr int kRowBytes = kStepInputs * 2;
  const std::int64_t sum_bytes = to.row * 4;
  float* const sums = to.at;
  float* const below = sums + to.below;
  if (go_on) {
    _tile_loadd(0, sums, sum_bytes);
    _tile_loadd(1, sums + to.right, sum_bytes);
    if constexpr (kTwo) {
      _tile_loadd(2, below, sum_bytes);
      _tile_loadd(3, below + to.right, sum_bytes);
    }
  } else {
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (kTwo) {
      _tile_zero(2);
      _tile_zero(3);
    }
  }
  for (int step = 0; step < steps; ++step) {
    prefetched.some();
    if constexpr (kRows == Rows::kPass) {
      _tile_stream_loadd(4, a, kRowBytes);
    } else {
      _tile_loadd(4, a, kRowBytes);
    }
    _tile_loadd(6, b.at, b.pair_bytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b.at + kRowBytes, b.pair_bytes);
    _tile_dpbf16ps(1, 4, 7);
    if constexpr (kTwo) {
      if constexpr (kRows == Rows::kPass) {
        _tile_stream_loadd(5, a + stride, kRowBytes);
      } else {
        _tile_loadd(5, a + stride, kRowBytes);
      }
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    a += kTileRows * kStepInputs;
    b.at += kStepInputs / 2 * b.pair_bytes;
  }
  _tile_stored(0, sums, sum_bytes);
  _tile_stored(1, sums + to.right, sum_bytes);
  if constexpr (kTwo) {
    _tile_stored(2, below, sum_bytes);
    _tile_stored(3, below + to.right, sum_bytes);
  }
}

// All tiles of rows by 32 columns.
template <Rows kRows>
inline void multiply_columns(const std::uint16_t* rows, std::int64_t stride, int tiles, RightHand b,
                             int steps, TileSums to, bool go_on, Prefetched& prefetched) {
  int tile = 0;
  for (; tile + 2 <= tiles; tile += 2, to.at += 2 * to.below) {
    multiply_tiles<true, kRows>(rows + tile * stride, stride, b, steps, to, go_on, prefetched);
  }
  if (tile < tiles) {
    multiply_tiles<false, kRows>(rows + tile * stride, stride, b, steps, to, go_on, prefetched);
  }
}

// Tiles of rows by steps of a panel, begun at zero or, with go_on, at what the sums hold; `half`:
// floats from the first 32 columns' to the others'. `next`: where as many steps stand that come
// after these; null: nowhere.
template <Rows kRows>
inline void multiply_panel(const std::uint16_t* rows, std::int64_t stride, int tiles,
                           const char* panel, int steps, TileSums sums, std::int64_t half,
                           bool go_on, const char* next) {
  // A step's lines are divided among the pairs of tiles of both halves.
  const int turns = (tiles + 1) / 2 * 2;
  Prefetched prefetched{next, next != nullptr ? (kStepBytes / 64 + turns - 1) / turns : 0};
  for (int i = 0; i < 2; ++i, sums.at += half) {
    multiply_columns<kRows>(rows, stride, tiles, {panel + i * kPanel * 2, kPanel * 4}, steps, sums,
                            go_on, prefetched);
  }
}

}  // namespace
}  // namespace dsm::kernels
