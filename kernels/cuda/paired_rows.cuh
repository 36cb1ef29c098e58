// Which rows of a tile a thread has sums of in the products by pairs of thread blocks: two of every
// eight from its first on.
#pragma once

namespace dsm::kernels::cuda {

__device__ __forceinline__ constexpr int row_of_sums(int i) {
  return i / 2 * 8 + i % 2;
}
// The last of these up to `last`, if there is one. Rows past the end are read in its place: in
// another thread's, which may be written meanwhile, nobody has to look.
__device__ __forceinline__ constexpr int own_last(int last) {
  return last % 8 == 0 ? last : last / 8 * 8 + 1;
}

}  // namespace dsm::kernels::cuda
