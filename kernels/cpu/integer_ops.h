// Products with weights in integers (INT8, INT4), whose rows are integers as well: sums of products
// of integers are exact, so no weight becomes a number in FP32. The definition, which every table
// of ops.h and of this file has to the bit:
//
//   A row's inputs are cut where scales of weights change and segments end, so into pieces of at
//   most 128 inputs, which do not depend on the number of ranks. A piece is integers of 16 bits
//   times a power of two, 2^(e - 14) with e the exponent of its largest magnitude, or one more
//   where an integer would be above 32,576 (two signed digits of 8 bits hold no more than 32,639);
//   at least 2^-126. Integers are the nearest, on a tie the even ones. A piece that has an infinity
//   or NaN is zeros times NaN, so all sums of its row are NaN.
//
//   A sum goes from piece to piece by one fused multiply-add in FP32: it adds the piece's integers
//   times the weights' integers, whose sum is exact in 32 bits and is rounded to FP32, times the
//   product of power and scale in FP32.
//
// The tables of ops.h make integers of rows for each panel. Those of this file are given them, made
// once for all columns, and have the processor's instructions for products of bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/ops.h"

namespace dsm::kernels {

inline constexpr int kPieceBytes = 2 * kScaleBlock;  // of a row

constexpr int pieces_of(const PackedMatrix& w) {
  return scale_blocks(w);
}
constexpr int pieces_of(const SegmentedMatrix& w) {
  int pieces = 0;
  for (int s = 0; s < w.count; ++s) pieces += pieces_of(w.part[s]);
  return pieces;
}

// What a piece of a row is besides its integers.
struct PieceFactor {
  float power = 0;       // of two
  std::int32_t sum = 0;  // of the integers
};

inline constexpr int kMostTogether = 16;

// Rows as integers, in an order of the table that made them, for weights of one type. Of as many
// rows as `together` says the same parts stand side by side, 64 bytes of each; the others follow.
struct IntegerRows {
  std::byte* numbers = nullptr;    // [rows / together, rounded up][pieces][4][together][64]
  PieceFactor* factors = nullptr;  // [rows][pieces]
  int pieces = 0;
  int together = kMostTogether;  // a power of two
  int first = 0;                 // the operator's row or slot that is the first here
};
// From 5 rows on as many as a tile of AMX has, which pays from there on.
constexpr int rows_together(int rows) {
  if (rows > 4) return kMostTogether;
  if (rows > 2) return 4;
  return rows == 2 ? 2 : 1;
}
constexpr std::int64_t piece_stride(int together) {
  return std::int64_t{together} * kPieceBytes;
}

// What is made of them, for products with `matrix` or with all segments.
struct RowsToIntegers {
  const float* x = nullptr;  // rows `to`.first and following
  std::int64_t ldx = 0;
  const std::int32_t* index = nullptr;  // [rows] rows of x to take; null: 0, 1, 2, ...
  int rows = 0;
  const PackedMatrix* matrix = nullptr;
  const SegmentedMatrix* segments = nullptr;
  IntegerRows to = {};
};

// Parts of the operators of ops.h of the same names, for rows that `rows` has all of.
struct IntegerOps {
  const char* name;  // of the table of ops.h, or vnni, amx

  // Numbers of `rows`, from 0 on. Parts that begin with a multiple of `together` are written apart.
  void (*make)(const RowsToIntegers&, int row_begin, int row_end);
  void (*linear)(const LinearParams&, int product, const IntegerRows& rows, int row_begin,
                 int row_end, int panel);
  void (*gate_up)(const GateUpParams&, int group, const IntegerRows& rows, int slot_begin,
                  int slot_end, int panel);
  // At most kRowBlock tokens; rows of each group.
  void (*row_parallel)(const RowParallelParams&, const IntegerRows* rows, int token_begin,
                       int token_end, int panel);
};

// The tables that this processor can run, slowest first; the first is always `generic`.
std::span<const IntegerOps* const> available_integer_ops();
// Beside this table of ops.h: the one of its name, or, where that is best_ops(), the last of all.
const IntegerOps& integer_ops(const Ops& ops);

}  // namespace dsm::kernels
