// Who has touched each byte of watched memory last, as far as a kernel's threads have.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

namespace dsm::emulation {

enum TouchKind : std::uint16_t {
  kWrites = 1,
  kStrong = 2,    // as a whole, beside others' (an atomic operation)
  kAsync = 4,     // by what copies and multiplies beside the threads, through the async proxy
  kConstant = 8,  // a read through a cache that sees no writes of the kernel
};

struct Touch {
  std::uint32_t group = 0;
  std::uint32_t clock = 0;
  std::uint32_t place = 0;  // in the program, from where place_of() counts
  std::uint16_t actor = 0;
  std::uint16_t kind = 0;
};

// The last write, and reads since then: enough of them that with so many words in a buffer one that
// comes too early is among them.
struct Cell {
  static constexpr std::size_t kReads = 3;
  Touch write;
  std::array<Touch, kReads> reads;
};

inline constexpr std::size_t kPageBytes = 4096;

// Words have a cell each; where bytes or halves of words were touched, these do.
struct Page {
  unsigned shift = 2;
  bool shared = false;  // a block's memory
  std::vector<Cell> cells;

  explicit Page(bool is_shared) : shared(is_shared), cells(kPageBytes >> shift) {}
  void split_to(unsigned smaller);
};

class Shadow {
 public:
  // Before each kernel; `stays` says of a page's address whether it is still what it was. The
  // numbers of a kernel's groups are no other one's, which is why what is kept of those may stay.
  template <class Stays>
  void begin_kernel(const Stays& stays) {
    recent_ = {};
    if (pages_.size() > kMostPages) pages_.clear();
    std::erase_if(pages_, [&](const auto& page) {
      return page.second == nullptr || !(page.second->shared || stays(page.first * kPageBytes));
    });
  }
  // Of the page at `address`; null: not watched. `watch` says of a page what it is.
  template <class Watch>
  Page* page(std::uintptr_t address, const Watch& watch) {
    const std::uintptr_t number = address / kPageBytes;
    Recent& recent = recent_[number % recent_.size()];
    if (recent.number != number) {
      auto at = pages_.find(number);
      if (at == pages_.end()) at = pages_.emplace(number, watch(number * kPageBytes)).first;
      recent = {number, at->second.get()};
    }
    return recent.page;
  }

 private:
  static constexpr std::size_t kMostPages = 8192;
  struct Recent {
    std::uintptr_t number = 0;
    Page* page = nullptr;
  };
  std::unordered_map<std::uintptr_t, std::unique_ptr<Page>> pages_;  // null: not watched
  std::array<Recent, 1024> recent_;
};

}  // namespace dsm::emulation
