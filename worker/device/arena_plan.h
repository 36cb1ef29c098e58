// Where pieces of memory stand in large allocations, which are called chunks: each in the smallest
// free end of a chunk that is enough, else at the begin of a new chunk. Pure.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <vector>

namespace dsm::device {

class ArenaPlan {
 public:
  // Chunks that pieces share have `chunk` bytes at first, and grow with what there is, so that few
  // of them hold a model; 0: every piece has a chunk of its own, of its size.
  explicit ArenaPlan(std::size_t chunk) : chunk_(chunk) {}

  struct Place {
    std::size_t chunk = 0;  // its number: of the chunks that were added before it
    std::size_t offset = 0;
  };
  // Of so many bytes, from then on taken; a multiple of 256. nullopt: no chunk has so many left.
  std::optional<Place> take(std::size_t bytes);
  // Bytes of the chunk to be added then.
  std::size_t chunk_for(std::size_t bytes) const;
  void add(std::size_t chunk);
  // Bytes of all free ends.
  std::size_t free() const { return free_; }

 private:
  std::size_t chunk_;
  std::size_t all_ = 0;                          // bytes of the chunks
  std::size_t count_ = 0;                        // of chunks
  std::size_t free_ = 0;                         // bytes of their free ends
  std::multimap<std::size_t, Place> free_ends_;  // by their bytes
};

}  // namespace dsm::device
