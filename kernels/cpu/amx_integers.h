// Products with weights in integers with AMX: one instruction multiplies a digit of 16 rows and 64
// inputs by 16 columns of them. Words of INT8 are the right-hand operand as they stand; those of
// INT4 become bytes first, a piece at a time. Digits are those of byte_integers.h.
// Internal linkage, as kernels.h says.
#pragma once

#include "kernels/cpu/amx_session.h"
#include "kernels/cpu/byte_integers.h"

namespace dsm::kernels {
namespace {

// From so many rows on: a tile takes its time however few there are. On a Xeon 4 rows by 64 columns
// of 1,536 inputs were 14 us by both ways, 8 were 15 and 27.
constexpr int kFewestRows = 5;

struct AmxIntegers {
  static constexpr int kRowBytes = kPanel * 4;  // from one word of a column to the next
  static constexpr int kTileWords = 16;
  static constexpr int kStepBytes = kTileWords * kRowBytes;  // of 64 inputs

  static PieceFactor make(DType type, const float* x, const Piece& piece, std::byte* to,
                          std::int64_t part) {
    return ByteIntegers::make(type, x, piece, to, part);
  }

  // A piece's weights as signed bytes: both steps of 16 words; where they stand or, if they are not
  // whole or of INT4, made in `made`.
  template <DType kType>
  static const char* operand(const PieceColumns& w, char* made) {
    constexpr int kWords = kScaleBlock / inputs_per_word(kType);
    if constexpr (kType == DType::kInt8) {
      if (w.count == kWords) return w.words;
      for (int i = 0; i < kWords * kRowBytes; i += 64) {
        const bool there = i < w.count * kRowBytes;
        _mm512_store_si512(made + i,
                           there ? _mm512_loadu_si512(w.words + i) : _mm512_setzero_si512());
      }
    } else {
      const __m512i four_bits = _mm512_set1_epi8(15);
      const __m512i eight = _mm512_set1_epi8(8);
      for (int i = 0; i < kWords * kRowBytes; i += 64) {
        __m512i words = _mm512_setzero_si512();
        if (i < w.count * kRowBytes) words = _mm512_loadu_si512(w.words + i);
        _mm512_store_si512(made + i, _mm512_sub_epi8(_mm512_and_si512(words, four_bits), eight));
        _mm512_store_si512(
            made + kStepBytes + i,
            _mm512_sub_epi8(_mm512_and_si512(_mm512_srli_epi32(words, 4), four_bits), eight));
      }
    }
    return made;
  }

  // 16 rows by 32 columns: sums of the high digits, then of the low ones, of each 16 columns.
  struct alignas(64) Sums {
    std::int32_t of[2][2][16][kLanes];
  };

  static void multiply_tiles(const std::byte* rows, std::int64_t stride, const char* w,
                             Sums& sums) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
#pragma GCC unroll 2
    for (int step = 0; step < 2; ++step) {
      _tile_loadd(4, rows + step * stride, kPartBytes);
      _tile_loadd(6, w + step * kStepBytes, kRowBytes);
      _tile_dpbssd(0, 4, 6);
      _tile_loadd(7, w + step * kStepBytes + 64, kRowBytes);
      _tile_dpbssd(1, 4, 7);
      _tile_loadd(5, rows + (2 + step) * stride, kPartBytes);
      _tile_dpbssd(2, 5, 6);
      _tile_dpbssd(3, 5, 7);
    }
    _tile_stored(0, sums.of[0][0], 64);
    _tile_stored(1, sums.of[0][1], 64);
    _tile_stored(2, sums.of[1][0], 64);
    _tile_stored(3, sums.of[1][1], 64);
  }

  // Of rows that begin with `row` of those of a tile, which is `tile`'s.
  static void add(const Sums& sums, const PieceColumns& w, const PieceRows& rows, int tile,
                  int vector, float* const* y) {
    const int begin = tile * kMostTogether - rows.first;  // row in which the tile begins
    const int last = begin + kMostTogether < rows.count ? begin + kMostTogether : rows.count;
    const bool two = vector + 1 < w.vectors;
    const __m512 left = Avx512::load(w.scales + vector * kLanes);
    const __m512 right = Avx512::load(w.scales + (vector + 1) * kLanes);
    for (int r = begin < 0 ? 0 : begin; r < last; ++r) {
      const __m512 power = _mm512_set1_ps(rows.factor(r).power);
      const auto sum = [&](int v) {
        const __m512i high = _mm512_load_si512(sums.of[0][v][r - begin]);
        const __m512i low = _mm512_load_si512(sums.of[1][v][r - begin]);
        return _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(high, 8), low));
      };
      float* const to = y[r] + vector * kLanes;
      Avx512::store(to, Avx512::fma(sum(0), Avx512::mul(left, power), Avx512::load(to)));
      if (!two) continue;
      Avx512::store(to + kLanes,
                    Avx512::fma(sum(1), Avx512::mul(right, power), Avx512::load(to + kLanes)));
    }
  }

  template <DType kType>
  static void multiply(const PieceColumns& w, const PieceRows& rows, float* const* y) {
    if (rows.count < kFewestRows || rows.together != kMostTogether) {
      return ByteIntegers::multiply<kType>(w, rows, y);
    }
    alignas(64) char made[2 * kStepBytes];
    const char* const words = operand<kType>(w, made);
    const int tile_begin = rows.first / kMostTogether;
    const int tile_end = (rows.first + rows.count + kMostTogether - 1) / kMostTogether;
    const TileSession session;
    // While one place's sums are added the other's are on their way.
    Sums sums[2];
    int count = 0;
    int previous_tile = 0;
    int previous_vector = 0;
    // The next piece's words, a few with each product.
    constexpr int kLines = 2 * kStepBytes / 64 / (kType == DType::kInt8 ? 1 : 2);
    const int turns = (tile_end - tile_begin) * (kPanel / kLanes / 2);
    const int lines = (kLines + turns - 1) / turns;
    const char* ahead = w.words + kLines * 64;
    for (int vector = 0; vector < w.vectors; vector += 2) {
      for (int tile = tile_begin; tile < tile_end; ++tile, ++count) {
        for (int i = 0; i < lines; ++i, ahead += 64) _mm_prefetch(ahead, _MM_HINT_T0);
        multiply_tiles(rows.numbers + tile * rows.stride, rows.part(), words + vector * 64,
                       sums[count % 2]);
        if (count > 0) add(sums[(count - 1) % 2], w, rows, previous_tile, previous_vector, y);
        previous_tile = tile;
        previous_vector = vector;
      }
    }
    add(sums[(count - 1) % 2], w, rows, previous_tile, previous_vector, y);
  }
};

}  // namespace
}  // namespace dsm::kernels
