#include "kernels/cuda/emulation/shadow.h"

namespace dsm::emulation {

void Page::split_to(unsigned smaller) {
  const std::size_t each = std::size_t{1} << (shift - smaller);
  std::vector<Cell> parts;
  parts.reserve(cells.size() * each);
  for (const Cell& cell : cells) parts.insert(parts.end(), each, cell);
  cells = std::move(parts);
  shift = smaller;
}

}  // namespace dsm::emulation
