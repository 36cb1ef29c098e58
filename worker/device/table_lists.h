// Block tables as lists of the GPU. Rows of one sequence stand side by side and the last of them
// sees most: asked from the last row on, each table is put once.
#pragma once

#include <cstdint>

#include "worker/device/cuda_memory.h"

namespace dsm::device {

class TableLists {
 public:
  explicit TableLists(Lists& lists) : lists_(lists) {}

  // The device's copy of the first `blocks` entries, or of more.
  const std::int32_t* put(const std::int32_t* table, int blocks) {
    if (table != host_ || blocks > blocks_) {
      host_ = table;
      blocks_ = blocks;
      device_ = lists_.put(table, static_cast<std::size_t>(blocks));
    }
    return device_;
  }

 private:
  Lists& lists_;
  const std::int32_t* host_ = nullptr;
  const std::int32_t* device_ = nullptr;
  int blocks_ = 0;
};

}  // namespace dsm::device
