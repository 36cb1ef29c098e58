// AMX: a tile is 16 rows of 64 bytes, and one instruction multiplies 16 rows of 32 inputs by 16
// columns of them. A packed panel is the right-hand operand as it stands: 16 pairs of inputs, 256
// bytes apart, of 16 columns side by side. Internal linkage, as kernels.h says.
#pragma once

#include <immintrin.h>

#include "kernels/cpu/bf16_operands.h"

namespace dsm::kernels {
namespace {

// All eight tiles whole, for as long as it is there; Intel's manual, volume 1, 18.2.
class TileSession {
 public:
  TileSession() {
    Configuration configuration;
    for (int tile = 0; tile < 8; ++tile) {
      configuration.row_bytes[tile] = 64;
      configuration.rows[tile] = kTileRows;
    }
    _tile_loadconfig(&configuration);
  }
  TileSession(const TileSession&) = delete;
  TileSession& operator=(const TileSession&) = delete;
  ~TileSession() { _tile_release(); }

 private:
  struct alignas(64) Configuration {
    std::uint8_t palette = 1;
    std::uint8_t start_row = 0;
    std::uint8_t reserved[14] = {};
    std::uint16_t row_bytes[16] = {};
    std::uint8_t rows[16] = {};
  };
};

// Lines that are wanted soon, from the third-level cache or memory, a few at a time: a tile that
// waits for them holds up all that come after it.
struct Prefetched {
  const char* at = nullptr;  // null: none
  int lines = 0;             // at a time

  void some() {
    if (at == nullptr) return;
    for (int i = 0; i < lines; ++i, at += 64) _mm_prefetch(at, _MM_HINT_T1);
  }
};

// 16 rows of operands by 32 columns of a panel, with sums [16][64] for all of its columns. kTwo: 32
// rows, `stride` from one tile of operands to the next; each operand is loaded once for two
// products.
template <bool kTwo>
inline void multiply_tiles(const std::uint16_t* a, std::int64_t stride, const char* b, int steps,
                           float* sums, bool go_on) {
  constexpr int kRowBytes = kStepInputs * 2;
  constexpr int kPanelBytes = kPanel * 4;  // of a pair of inputs, and of a row of sums
  float* const below = sums + kTileRows * kPanel;
  if (go_on) {
    _tile_loadd(0, sums, kPanelBytes);
    _tile_loadd(1, sums + kLanes, kPanelBytes);
    if constexpr (kTwo) {
      _tile_loadd(2, below, kPanelBytes);
      _tile_loadd(3, below + kLanes, kPanelBytes);
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
    _tile_loadd(4, a, kRowBytes);
    _tile_loadd(6, b, kPanelBytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b + kRowBytes, kPanelBytes);
    _tile_dpbf16ps(1, 4, 7);
    if constexpr (kTwo) {
      _tile_loadd(5, a + stride, kRowBytes);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    a += kTileRows * kStepInputs;
    b += kStepBytes;
  }
  _tile_stored(0, sums, kPanelBytes);
  _tile_stored(1, sums + kLanes, kPanelBytes);
  if constexpr (kTwo) {
    _tile_stored(2, below, kPanelBytes);
    _tile_stored(3, below + kLanes, kPanelBytes);
  }
}

// Tiles of rows by steps of a panel, begun at zero or, with go_on, at what sums [tiles * 16][64]
// hold. `next`: where as many steps stand that come after these; null: nowhere.
inline void multiply_panel(const std::uint16_t* rows, std::int64_t stride, int tiles,
                           const char* panel, int steps, float* sums, bool go_on,
                           const char* next) {
  constexpr int kHalfBytes = kPanel * 2;
  Prefetched prefetched{next, (steps * kStepBytes / 64 + tiles - 1) / tiles};
  for (int half = 0; half < 2; ++half) {
    const char* const b = panel + half * kHalfBytes;
    float* const to = sums + half * 2 * kLanes;
    int tile = 0;
    for (; tile + 2 <= tiles; tile += 2) {
      prefetched.some();
      multiply_tiles<true>(rows + tile * stride, stride, b, steps, to + tile * kTileRows * kPanel,
                           go_on);
    }
    if (tile < tiles) {
      multiply_tiles<false>(rows + tile * stride, stride, b, steps, to + tile * kTileRows * kPanel,
                            go_on);
    }
  }
}

}  // namespace
}  // namespace dsm::kernels
