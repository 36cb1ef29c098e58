// Products and attention of many rows on a CPU in the loose mode, by the processor's instructions
// for BF16 (kernels/cpu/bf16_ops.h): which of them are taken, how they are divided into work, and
// the memory of products' operands. What gate_up gives is kept as operands where row_parallel alone
// reads it (RmsNormParams' for_products). For the backend's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "kernels/cpu/bf16_ops.h"
#include "worker/device/thread_pool.h"

namespace dsm::device {

class CpuBf16Products {
 public:
  CpuBf16Products(const kernels::Bf16Ops& ops, ThreadPool& pool) : ops_(ops), pool_(pool) {}

  // Whether the operator was computed; else it is the table's of all rows.
  bool linear(const kernels::LinearParams& p);
  bool gate_up(const kernels::GateUpParams& p);
  bool row_parallel(const kernels::RowParallelParams& p);

  // Items of attention that are one work item, by the instructions for BF16 or, one, by the table.
  struct Attended {
    int first = 0;
    int items = 1;
    bool in_bf16 = false;
  };
  std::span<const Attended> attended(const kernels::AttentionParams& p);
  void attend(const kernels::AttentionParams& p, const Attended& some) const {
    ops_.attention(p, some.first, some.items);
  }

 private:
  // Rows [begin, end) of a product of the batch or slots of a group, up to kItemRows.
  struct Chunk {
    int which = 0;
    int begin = 0;
    int end = 0;
    kernels::OperandRows rows = {};
  };
  void add_chunks(int which, int begin, int end, int steps, int rows_each);
  // Rows of a chunk: as many as there may be, or fewer where threads would be without work.
  int rows_each(int rows, int groups, int panels) const;

  struct Work {
    std::function<kernels::RowsToPack(const Chunk&)> rows;
    std::function<void(const Chunk&, int panel_begin, int panel_end)> multiply;
    int panels = 0;        // of the widest
    bool in_turn = false;  // chunks add to the same sums
    // Whole tiles of all rows that are operands already; none: they are made.
    kernels::OperandRows made = {};
  };
  // Makes operands of as many of chunks_ as there is memory for, multiplies them, and goes on.
  void run(const Work& work);
  // Sets the operands of chunks from `first` on; which of them still have some.
  std::size_t take(std::size_t first);

  // Multiplies chunks whose operands there are.
  void multiply(const Work& work, std::span<const Chunk> chunks);

  class Operands {
   public:
    // At least so many; what was there is lost.
    std::uint16_t* take(std::int64_t count);

   private:
    struct Free {
      void operator()(std::uint16_t* memory) const;
    };
    std::unique_ptr<std::uint16_t[], Free> memory_;
    std::int64_t count_ = 0;
  };

  // Rows that gate_up has kept as operands.
  struct Kept {
    const float* of = nullptr;  // what their place is in FP32; null: there are none
    int rows = 0;
    kernels::OperandRows operands = {};
  };
  // Where gate_up keeps what it gives; without data: in h.
  kernels::OperandRows keep(const kernels::GateUpParams& p, int panels);
  // The kept rows with each segment's inputs beginning a step.
  kernels::OperandRows in_segments(const Kept& kept, const kernels::SegmentedMatrix& w);

  const kernels::Bf16Ops& ops_;
  ThreadPool& pool_;
  std::vector<Chunk> chunks_;  // of the operator under way
  std::vector<Attended> attended_;
  Operands operands_;
  Operands kept_memory_;
  Kept kept_;
};

}  // namespace dsm::device
