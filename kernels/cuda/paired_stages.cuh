// What pairs of thread blocks do alike that multiply many rows by stages of 64 inputs
// (product_paired.cu, product_exact.cu): what a stage is in shared memory, who copies it there, and
// when it may be overwritten.
//
// A block has two panels, one for each of two warpgroups that multiply. Both blocks of a pair have
// the same rows, two units of them (wide_rows.h), of which each copies one for both. Four threads,
// each of a warp of its own, start copies, as far ahead as the ring of stages reaches. Of a stage
// two barriers in shared memory say that it is there, and that all warps of both blocks have read
// it. Blocks stay on their processors and take one piece of the work after the other.
#pragma once

#include "kernels/cuda/product_stage.cuh"
#include "kernels/cuda/product_wide.h"

namespace dsm::kernels::cuda::paired {

inline constexpr int kPanels = kPairedPanels / kPairedBlocks;  // of a block
inline constexpr int kGroupWarps = 4;
inline constexpr int kWorkers = kPanels * kGroupWarps;  // warps that multiply
// And a warpgroup that copies, a thread of each warp.
inline constexpr int kThreads = (kWorkers + kGroupWarps) * 32;
inline constexpr int kWorkerRegisters = 232;
inline constexpr int kCopyRegisters = 40;
static_assert(kWorkers * kWorkerRegisters + kGroupWarps * kCopyRegisters <= 65536 / 32);
inline constexpr int kRowsBytes = kPairedBlocks * kUnitStageBytes;

// A stage: rows, then panels as `Layout` has them (StageLayout), then their scales. Rows are
// aligned to 1,024 bytes.
template <class Layout>
struct Stage {
  static constexpr int kScalesAt = kRowsBytes + kPanels * Layout::kPanelBytes;
  static constexpr int kBytes =
      static_cast<int>(round_up(kScalesAt + kPanels * Layout::kScaleBytes, 1024));
};

// A pair's piece of the work, and what a block of it reads. One that is not there has no task.
struct Piece {
  const ProductTask* task;
  int row;
  int panel;                  // the block's first
  const unsigned char* rows;  // what the block copies of them: from the first stage on, each a unit
  int first_stage;
  int stages;
};

// Panel `number` of the weights, or their last: a panel past it is computed as that, for nobody.
__device__ __forceinline__ int panel_of(const PackedMatrix& w, int number) {
  const int last = (w.n + kPanel - 1) / kPanel - 1;
  return number < last ? number : last;
}
template <class Layout>
__device__ __forceinline__ const unsigned char* weights_of(const PackedMatrix& w, int number) {
  const auto* data = static_cast<const unsigned char*>(w.data);
  return data +
         static_cast<std::int64_t>(panel_of(w, number)) * Layout::lines_of(w) * Layout::kLineBytes;
}

// So many stages in shared memory, numbered through all pieces of a block, and kMoreBytes after
// them.
template <class OfStage, int kStages, int kMoreBytes>
struct Ring {
  using Layout = OfStage;
  static constexpr int kRing = kStages;
  static constexpr int kStageBytes = Stage<Layout>::kBytes;
  static constexpr int kSharedBytes = kRing * (kStageBytes + 16) + kMoreBytes + 1024;
  static_assert(kSharedBytes <= kMostHopperBytes && kMoreBytes % 16 == 0);
  unsigned char* stages;
  std::uint64_t* filled;
  std::uint64_t* read;

  static __device__ __forceinline__ Ring make() {
    auto* at = dynamic_shared<unsigned char>();
    at += (1024 - reinterpret_cast<std::uintptr_t>(at) % 1024) % 1024;
    auto* barriers = reinterpret_cast<std::uint64_t*>(at + kRing * kStageBytes + kMoreBytes);
    return {at, barriers, barriers + kRing};
  }
  __device__ __forceinline__ unsigned char* more() const { return stages + kRing * kStageBytes; }
  __device__ __forceinline__ unsigned char* stage(int i) const {
    return stages + i % kRing * kStageBytes;
  }
  static __device__ __forceinline__ int turn(int i) { return i / kRing; }
  // A warp has read stage i: in both blocks, since either copies into the other's. By one lane, to
  // whom nothing but the warp's barrier promises that the others have read their weights.
  __device__ __forceinline__ void give_back(int i, int lane) const {
    __syncwarp();
    if (lane < kPairedBlocks) arrive(read + i % kRing, lane);
  }
};

// By one thread of each warp that copies: a quarter of the block's share of the rows, for both
// blocks, and of every panel the piece of that number; the first ones also a panel's scales.
// `Pieces`: Pieces::count(wide), of the work; Pieces::of(wide, number, block) is a Piece, and of
// its units the first Pieces::rows(piece) rows are wanted.
static_assert(kPieces == kGroupWarps && kPanels <= kPieces);
template <class Pieces, class Ring>
__device__ void fill(const WideProducts& wide, const Ring& ring, int block, int piece_number) {
  using Layout = typename Ring::Layout;
  constexpr int kPartLines = Layout::kPieceLines / Layout::kParts;
  const int count = Pieces::count(wide);
  int at = 0;
  for (int number = static_cast<int>(blockIdx.x); number < count;
       number += static_cast<int>(gridDim.x)) {
    const Piece piece = Pieces::of(wide, number, block);
    if (piece.task == nullptr) continue;
    const PackedMatrix& w = piece.task->w;
    const int end = piece.first_stage + piece.stages;
    const int share = Pieces::rows(piece) * (kStageRowBytes / kPieces);
    const int rows_at = block * kUnitStageBytes + piece_number * share;
    const unsigned char* rows = piece.rows + piece_number * share;
    const unsigned char* weights[kPanels];
    const int first_line = piece.first_stage * Layout::kStageLines;
    int left = Layout::lines_of(w) - first_line;
#pragma unroll
    for (int i = 0; i < kPanels; ++i) {
      weights[i] =
          weights_of<Layout>(w, piece.panel + i) +
          (first_line + piece_number * Layout::kPieceLines) * std::int64_t{Layout::kLineBytes};
    }
    const bool scaled = Layout::kScaled && piece_number < kPanels;
    const float* scales = nullptr;
    if (scaled) {
      scales = w.scales + static_cast<std::int64_t>(panel_of(w, piece.panel + piece_number)) *
                              splits_of(w) * kPanel;
    }
    for (int stage = piece.first_stage; stage < end; ++stage, ++at) {
      unsigned char* to = ring.stage(at);
      std::uint64_t* filled = ring.filled + at % Ring::kRing;
      const int lines = Layout::lines_of_piece(left, piece_number);
      const int scale_bytes = scaled ? Layout::kScaleBytes : 0;
      if (at >= Ring::kRing) arrivals_wait(ring.read + at % Ring::kRing, Ring::turn(at) - 1);
      copies_expect(filled,
                    kPairedBlocks * share + kPanels * lines * Layout::kLineBytes + scale_bytes);
      copy_bytes_to_cluster(to + rows_at, rows, share, filled, kPairedBlocks);
      rows += kUnitStageBytes;
      if (scaled) {
        copy_bytes(to + Stage<Layout>::kScalesAt + piece_number * Layout::kScaleBytes,
                   scales + static_cast<std::int64_t>(scales_of_stage(w, stage)) * kPanel,
                   scale_bytes, filled);
      }
      to += kRowsBytes + piece_number * Layout::kPieceBytes;
#pragma unroll
      for (int i = 0; i < kPanels; ++i) {
#pragma unroll
        for (int part = 0; part < Layout::kParts; ++part) {
          const int more = lines - part * kPartLines;
          if (more <= 0) continue;
          copy_bytes(to + i * Layout::kPanelBytes + part * Layout::kPartBytes,
                     weights[i] + part * kPartLines * Layout::kLineBytes,
                     (more < kPartLines ? more : kPartLines) * Layout::kLineBytes, filled);
        }
        weights[i] += Layout::kStageLines * Layout::kLineBytes;
      }
      left -= Layout::kStageLines;
    }
  }
}

// What a kernel of pairs is: work(block, warp, lane) by the warps that multiply, while the others
// copy.
template <class Pieces, class Ring, class Work>
__device__ __forceinline__ void work_in_pairs(const WideProducts& wide, const Ring& ring,
                                              const Work& work) {
  const int block = block_of_cluster();
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (threadIdx.x == 0) {
    for (int i = 0; i < Ring::kRing; ++i) {
      copies_begin(ring.filled + i, kPieces);
      arrivals_begin(ring.read + i, kPairedBlocks * kWorkers);
    }
  }
  cluster_barrier();  // barriers have begun in both
  if (warp < kWorkers) {
    take_registers<kWorkerRegisters>();
    work(block, warp, lane);
  } else {
    leave_registers<kCopyRegisters>();
    if (lane == 0) fill<Pieces>(wide, ring, block, warp - kWorkers);
    __syncwarp();
  }
  cluster_barrier();  // the other one copies nothing here any more, nor comes to a barrier
}

template <class... Params>
void launch_pairs(void (*kernel)(Params...), const WideProducts& wide, int pieces, int shared_bytes,
                  Stream stream) {
  const int pairs = wide.processors / kPairedBlocks;
  const dim3 grid(static_cast<unsigned>(pieces < pairs ? pieces : pairs), kPairedBlocks);
  launch_clusters(kPairedBlocks, kernel, grid, kThreads, shared_bytes, stream, wide);
}

}  // namespace dsm::kernels::cuda::paired
