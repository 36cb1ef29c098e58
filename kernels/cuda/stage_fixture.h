// What tests of stages of weights share: packed matrices, and a stage as it stands in shared
// memory.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "kernels/cpu/pack.h"
#include "kernels/cuda/stage_weights.h"
#include "kernels/random_floats.h"

namespace dsm::kernels::cuda {

inline constexpr int kTensorColumns = 700;  // of the tensor of which a matrix is a part

// A packed matrix of 64 columns and its memory.
struct Packed {
  std::vector<std::byte> storage;
  PackedMatrix w;

  explicit Packed(const WeightPiece& piece)
      : storage(packed_bytes(packed_dtype({&piece, 1}), piece.n, piece.k) + 64) {
    void* at = storage.data();
    std::size_t space = storage.size();
    std::align(64, space - 64, at, space);
    w = pack({&piece, 1}, at);
  }
};

// Inputs [first, first + k).
inline Packed packed(DType dtype, int first, int k) {
  if (dtype == DType::kF8E4M3) {
    std::mt19937 random(3);
    std::vector<std::byte> bytes(std::size_t{kPanel} * kTensorColumns);
    for (auto& byte : bytes) byte = std::byte(random() & 0xbfU);
    const auto scales = random_floats(kTensorColumns / 128 + 1, 4, 0.01F);
    return Packed({bytes.data(),
                   dtype,
                   kTensorColumns,
                   1,
                   kPanel,
                   k,
                   first,
                   {reinterpret_cast<const std::byte*>(scales.data()), DType::kF32, 128, 128,
                    kTensorColumns}});
  }
  const auto values = random_floats(std::size_t{kPanel} * kTensorColumns, 5);
  WeightPiece piece{reinterpret_cast<const std::byte*>(values.data()),
                    DType::kF32,
                    kTensorColumns,
                    1,
                    kPanel,
                    k,
                    first};
  if (dtype != DType::kBF16) {
    piece.round_to = dtype;
    return Packed(piece);
  }
  std::vector<std::uint16_t> halves(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &values[i], 4);
    halves[i] = static_cast<std::uint16_t>(bits >> 16);
  }
  piece.data = reinterpret_cast<const std::byte*>(halves.data());
  piece.dtype = DType::kBF16;
  return Packed(piece);
}

// A stage as copies bring it.
template <DType kType, class Layout = StageLayout<kType>>
struct Stage {
  alignas(8) unsigned char pieces[Layout::kPanelBytes];
  float scales[kPanel] = {};

  Stage(const PackedMatrix& w, int number) {
    std::ranges::fill(pieces, 0xff);
    const int first = number * Layout::kStageLines;
    for (int piece = 0; piece < kPieces; ++piece) {
      const int lines = Layout::lines_of_piece(Layout::lines_of(w) - first, piece);
      if (lines == 0) continue;
      constexpr int kPartLines = Layout::kPieceLines / Layout::kParts;
      for (int line = 0; line < lines; ++line) {
        std::memcpy(pieces + piece * Layout::kPieceBytes + line / kPartLines * Layout::kPartBytes +
                        line % kPartLines * Layout::kLineBytes,
                    static_cast<const unsigned char*>(w.data) +
                        (first + piece * Layout::kPieceLines + line) * Layout::kLineBytes,
                    Layout::kLineBytes);
      }
    }
    if (!Layout::kScaled) return;
    std::memcpy(scales, w.scales + scales_of_stage(w, number) * kPanel, sizeof scales);
  }
};

}  // namespace dsm::kernels::cuda
