// Products with weights in integers on a CPU, by rows as integers (kernels/cpu/integer_ops.h): the
// memory of these, which are made once for all columns, and how the work is divided. The bits are
// those of the backend's table. For the backend's thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/cpu/integer_ops.h"
#include "worker/device/thread_pool.h"

namespace dsm::device {

class CpuIntegerProducts {
 public:
  CpuIntegerProducts(const kernels::IntegerOps& ops, ThreadPool& pool) : ops_(ops), pool_(pool) {}

  // Whether the operator was computed; else, as none of its weights are integers, it is the
  // table's.
  bool linear(const kernels::LinearParams& p);
  bool gate_up(const kernels::GateUpParams& p);
  bool row_parallel(const kernels::RowParallelParams& p);

 private:
  // Rows of a product of the batch, or slots of a group.
  struct Rows {
    int which = 0;
    int begin = 0;
    int end = 0;
    int pieces = 0;  // none: their weights are of another type
  };
  // Makes integers of rows_, which are made of what describe(rows) says but for their number and
  // place; made_ has them.
  template <class Describe>
  void make(const Describe& describe);
  // Calls work(item) for all items, on all threads or the caller's alone.
  template <class Work>
  void run(bool fork, int items, const Work& work);
  // Panels that one work item takes, one after the other, where so many blocks of rows share them.
  int panels_each(int panels, int blocks) const;
  // The item that is the number-th to be claimed, as in the backend: threads read far apart.
  int apart(int number, int items) const;
  // Sets rows_ of each group to its slots of tokens [begin, end).
  void slots_of(std::span<const kernels::Group> groups, const std::int32_t* token, int begin,
                int end);
  // All rows of a group by `count` panels.
  void multiply(const kernels::GateUpParams& p, const Rows& rows, int panel, int count) const;

  struct Free {
    void operator()(std::byte* memory) const;
  };
  const kernels::IntegerOps& ops_;
  ThreadPool& pool_;
  std::vector<Rows> rows_;
  std::vector<kernels::IntegerRows> made_;  // of each of rows_
  std::vector<kernels::PieceFactor> factors_;
  std::unique_ptr<std::byte[], Free> numbers_;
  std::int64_t bytes_ = 0;
};

}  // namespace dsm::device
