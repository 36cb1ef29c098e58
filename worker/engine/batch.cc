#include "worker/engine/batch.h"

namespace dsm::engine {

bool Row::operator==(const Row&) const = default;
bool Batch::operator==(const Batch&) const = default;

std::size_t Batch::token_count() const {
  std::size_t count = 0;
  for (const Row& row : rows) {
    count += row.tokens.size();
  }
  return count;
}

}  // namespace dsm::engine
