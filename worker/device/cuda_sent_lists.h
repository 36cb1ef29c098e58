// Lists of the host that a GPU has been sent: kept ones for good, staged ones for a step.
// Staged lists stand one after the other in one buffer, and go there in one copy. Where they stand
// depends on nothing but their sizes, so what was recorded with some of them (cuda_graphs.h) can be
// repeated with others of the same sizes.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "kernels/params.h"
#include "worker/device/backend.h"
#include "worker/device/cuda_arena.h"
#include "worker/device/cuda_memory.h"

namespace dsm::device {

class SentLists {
 public:
  explicit SentLists(const Stream& stream);

  void keep(List list, DeviceArena& arena);
  void stage(std::span<const List> lists, std::span<const kernels::AttentionItem> items);
  // The host may do with the lists as it likes.
  void unstage() { staged_.clear(); }

  // Where the GPU has these bytes; null: it does not.
  const std::byte* find(const void* from, std::size_t bytes) const;
  // Bytes of the lists that are staged, and of the items.
  std::span<const std::size_t> sizes() const { return sizes_; }

 private:
  struct Sent {
    const std::byte* host;
    std::size_t bytes;
    const std::byte* device;
  };
  static const std::byte* find(const std::vector<Sent>& sent, const std::byte* from,
                               std::size_t bytes);
  void make_room(std::size_t bytes);
  // The next `bytes` of the buffer, to be written by the host.
  std::byte* take(const void* host, std::size_t bytes);

  const Stream& stream_;
  std::vector<Sent> kept_;  // by address, as staged_
  std::vector<Sent> staged_;
  std::vector<std::size_t> sizes_;
  HostMemory host_;
  DeviceMemory device_;
  std::size_t room_ = 0;
  std::size_t used_ = 0;
  Event copied_;  // what stands in host_
};

}  // namespace dsm::device
