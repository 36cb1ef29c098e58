// The product with weights in integers (integer_ops.h has its definition), piece by piece: what is
// the same for every instruction set, and the way of those without products of bytes, in which
// pairs of inputs are multiplied as numbers of 16 bits. Internal linkage, as kernels.h says.
//
// A vector type V says how it multiplies: V::Integers has make(), which writes a piece's integers
// in an order of its own, and multiply<kType>().
#pragma once

#include "kernels/cpu/integer_ops.h"
#include "kernels/cpu/lanes.h"

namespace dsm::kernels {
namespace {

constexpr int kPartBytes = 64;  // of a row, side by side with those of other rows

// Inputs of a matrix that have one scale.
struct Piece {
  int begin;  // inputs
  int count;
  int lead;  // places of its first word that mean nothing
  int word;  // its first one, of the column
  int words;
};

inline Piece piece_of(const PackedMatrix& w, int number) {
  const int inputs = inputs_per_word(w.dtype);
  const int first = number * kScaleBlock - w.scale_phase;
  const int begin = first < 0 ? 0 : first;
  const int end = first + kScaleBlock < w.k ? first + kScaleBlock : w.k;
  const int lead = number == 0 ? lead_of(w) : 0;
  const int word = number == 0 ? 0 : (lead_of(w) + begin) / inputs;
  return {begin, end - begin, lead, word, (lead + end - begin + inputs - 1) / inputs};
}

// A piece's numbers and scales in a panel.
struct PieceColumns {
  const char* words;  // [words][64]
  int count;          // words
  const float* scales;
  int vectors;  // of 16 columns, that there are
};

// The same piece of some rows, `first` being the number of the first one among those that stand
// together.
struct PieceRows {
  const std::byte* numbers;
  const PieceFactor* factors;
  std::int64_t stride;  // from the numbers of `together` rows to those of the next as many
  int together;
  int pieces;  // from a row's factor to the next one's
  int first;
  int count;

  // The parts of row r's numbers stand part() apart.
  const std::byte* row(int r) const {
    const int at = first + r;
    return numbers + at / together * stride + at % together * kPartBytes;
  }
  std::int64_t part() const { return std::int64_t{together} * kPartBytes; }
  const PieceFactor& factor(int r) const { return factors[std::int64_t{first + r} * pieces]; }
};

// The largest magnitude of a piece, as its bits -> the power of two that its integers are times,
// as bits of FP32's exponent; 0: there are none, since a value is not finite.
inline std::uint32_t power_of(std::uint32_t magnitude) {
  if (magnitude >= 0x7f800000U) return 0;
  // 32,576 / 16,384 = 2 - 0x18000 / 2^23.
  const std::uint32_t exponent = (magnitude + 0x18000U) >> 23;
  return exponent > 15 ? exponent - 14 : 1;
}

// The integers of a piece as they follow each other.
inline PieceFactor round_piece(const float* x, int count, std::int16_t* to) {
  std::uint32_t magnitude = 0;
  for (int i = 0; i < count; ++i) {
    const std::uint32_t bits = __builtin_bit_cast(std::uint32_t, x[i]) & 0x7fffffffU;
    magnitude = bits > magnitude ? bits : magnitude;
  }
  const std::uint32_t power = power_of(magnitude);
  if (power == 0) {
    for (int i = 0; i < count; ++i) to[i] = 0;
    return {__builtin_nanf(""), 0};
  }
  const auto inverse = __builtin_bit_cast(float, (254 - power) << 23);
  PieceFactor factor{__builtin_bit_cast(float, power << 23), 0};
  for (int i = 0; i < count; ++i) {
    // Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
    const auto number = static_cast<std::int32_t>(
        __builtin_bit_cast(std::uint32_t, x[i] * inverse + 12582912.0F) - 0x4b400000U);
    to[i] = static_cast<std::int16_t>(number);
    factor.sum += number;
  }
  return factor;
}

// By pairs of 16 bits. A row's numbers are in the order of its inputs, 32 in each part; a word's
// neighbours i and i + 1 stand in its halves, so they meet a pair of the row's.
template <class V>
struct PairIntegers {
  static PieceFactor make(DType, const float* x, const Piece& piece, std::byte* to,
                          std::int64_t part) {
    std::int16_t numbers[kScaleBlock] = {};
    const PieceFactor factor = round_piece(x + piece.begin, piece.count, numbers + piece.lead);
    for (int i = 0; i < kPieceBytes / kPartBytes; ++i) {
      __builtin_memcpy(to + i * part, numbers + i * (kPartBytes / 2), kPartBytes);
    }
    return factor;
  }

  template <DType kType, int kRows, int kVectors>
  static void tile(const PieceColumns& w, const PieceRows& rows, int row, int vector,
                   float* const* y) {
    constexpr int kPairs = inputs_per_word(kType) / 2;
    constexpr int kWordsOfPart = kPartBytes / 4 / kPairs;
    typename V::I acc[kRows][kVectors];
    const std::byte* numbers[kRows];
    for (int m = 0; m < kRows; ++m) {
      numbers[m] = rows.row(row + m);
      for (int v = 0; v < kVectors; ++v) acc[m][v] = V::set_int(0);
    }
    const char* words = w.words + vector * 64;
    for (int first = 0; first < w.count; first += kWordsOfPart) {
      const int end = first + kWordsOfPart < w.count ? kWordsOfPart : w.count - first;
      for (int j = 0; j < end; ++j, words += kPanel * 4) {
        typename V::Words word[kVectors];
        for (int v = 0; v < kVectors; ++v) {
          word[v] = V::load_words(words + v * 64);
          __builtin_prefetch(words + v * 64 + kBytesAhead);
        }
#pragma GCC unroll 4
        for (int pair = 0; pair < kPairs; ++pair) {
          typename V::I weights[kVectors];
          for (int v = 0; v < kVectors; ++v) weights[v] = V::template pairs<kType>(word[v], pair);
          for (int m = 0; m < kRows; ++m) {
            std::int32_t two = 0;
            __builtin_memcpy(&two, numbers[m] + (j * kPairs + pair) * 4, 4);
            const auto both = V::set_int(two);
            for (int v = 0; v < kVectors; ++v) {
              acc[m][v] = V::multiply_pairs(weights[v], both, acc[m][v]);
            }
          }
        }
      }
      for (int m = 0; m < kRows; ++m) numbers[m] += rows.part();
    }
    for (int m = 0; m < kRows; ++m) {
      const PieceFactor& factor = rows.factor(row + m);
      const auto power = V::set(factor.power);
      // Of INT4 what stands there is the number plus 8.
      const auto more = V::set_int(kType == DType::kInt4 ? -8 * factor.sum : 0);
      for (int v = 0; v < kVectors; ++v) {
        float* const to = y[row + m] + (vector + v) * kLanes;
        const auto scale = V::mul(V::load(w.scales + (vector + v) * kLanes), power);
        V::store(to, V::fma(V::to_float(V::add_int(acc[m][v], more)), scale, V::load(to)));
      }
    }
  }

  template <DType kType>
  static void multiply(const PieceColumns& w, const PieceRows& rows, float* const* y) {
    for (int v = 0; v < w.vectors; ++v) {
      int r = 0;
      for (; r + 4 <= rows.count; r += 4) tile<kType, 4, 1>(w, rows, r, v, y);
      for (; r < rows.count; ++r) tile<kType, 1, 1>(w, rows, r, v, y);
    }
  }
};

// Rows [begin, end) of a matrix's pieces, from `piece` of the rows' on.
template <class V>
inline void make_pieces(const PackedMatrix& w, const float* x, const IntegerRows& to, int row,
                        int piece) {
  std::byte* numbers =
      to.numbers +
      (std::int64_t{row / to.together} * to.pieces + piece) * piece_stride(to.together) +
      row % to.together * kPartBytes;
  PieceFactor* factors = to.factors + std::int64_t{row} * to.pieces + piece;
  for (int b = 0; b < pieces_of(w); ++b, numbers += piece_stride(to.together)) {
    factors[b] = V::Integers::make(w.dtype, x, piece_of(w, b), numbers,
                                   std::int64_t{to.together} * kPartBytes);
  }
}

template <class V>
inline void make_rows(const RowsToIntegers& p, int row_begin, int row_end) {
  for (int row = row_begin; row < row_end; ++row) {
    const float* x = p.x + (p.index != nullptr ? p.index[row] : row) * p.ldx;
    if (p.segments == nullptr) {
      make_pieces<V>(*p.matrix, x, p.to, row, 0);
      continue;
    }
    int piece = 0;
    for (int s = 0; s < p.segments->count; ++s) {
      const PackedMatrix& part = p.segments->part[s];
      make_pieces<V>(part, x + p.segments->offset[s], p.to, row, piece);
      piece += pieces_of(part);
    }
  }
}

// Rows of a product that are integers already: numbers `first` and following of `rows`, their
// pieces from `piece` on.
struct MadeRows {
  const IntegerRows* rows = nullptr;
  int first = 0;
  int piece = 0;
};

// Adds the sums of a panel's columns to y[r].
template <class V, DType kType>
__attribute__((noinline)) void integer_product(const PackedMatrix& w, int panel,
                                               const float* const* x, float* const* y, int count,
                                               const MadeRows& made) {
  const int left = w.n - panel * kPanel;
  const char* words = static_cast<const char*>(w.data) + panel * kPanel * column_bytes(w);
  const float* scales = w.scales + std::int64_t{panel} * scale_blocks(w) * kPanel;
  const int vectors = (left < kPanel ? left + kLanes - 1 : kPanel) / kLanes;
  for (int b = 0; b < pieces_of(w); ++b, scales += kPanel) {
    const Piece piece = piece_of(w, b);
    const PieceColumns columns{words + std::int64_t{piece.word} * kPanel * 4, piece.words, scales,
                               vectors};
    if (made.rows != nullptr) {
      const IntegerRows& rows = *made.rows;
      const std::int64_t stride = piece_stride(rows.together);
      V::Integers::template multiply<kType>(
          columns,
          {rows.numbers + (made.piece + b) * stride, rows.factors + made.piece + b,
           rows.pieces * stride, rows.together, rows.pieces, made.first, count},
          y);
      continue;
    }
    alignas(64) std::byte numbers[kRowBlock * kPieceBytes];
    PieceFactor factors[kRowBlock];
    const int together = rows_together(count);
    const std::int64_t stride = piece_stride(together);
    for (int r = 0; r < count; ++r) {
      factors[r] = V::Integers::make(kType, x[r], piece,
                                     numbers + r / together * stride + r % together * kPartBytes,
                                     std::int64_t{together} * kPartBytes);
    }
    V::Integers::template multiply<kType>(columns,
                                          {numbers, factors, stride, together, 1, 0, count}, y);
  }
}

}  // namespace
}  // namespace dsm::kernels
