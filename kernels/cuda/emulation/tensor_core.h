// Products of a warp's tensor core: sums are added one by one in FP32, in rising order of inputs. A
// real one adds several at a time and keeps more bits between.
#pragma once

#include <cstdint>

namespace dsm::emulation {

struct LaneOperands {
  float* d;
  const std::uint32_t* a;
  const std::uint32_t* b;
};

// WarpActions: D[16 x 8] += A[16 x 16] B[16 x 8] in BF16, and A[16 x 32] B[32 x 8] in E4M3, with
// the lanes' registers as PTX numbers them.
void multiply_bf16(void* const (&lanes)[32], unsigned taking_part);
void multiply_e4m3(void* const (&lanes)[32], unsigned taking_part);

// A warp's 16 lines of a warpgroup's product: D[16 x rows] += A[16 x 16] B[16 x rows] in BF16 or
// A[16 x 32] B[32 x rows] in E4M3, with 32 bytes from 32 step on of rows that are swizzled in
// shared memory (SharedRows of ptx.cuh).
struct WarpgroupOperands {
  float* d;
  const std::uint32_t* a;
  const void* shared;
  int rows;
  int step;
  const void* place;  // in the program
};
void multiply_shared_rows(void* const (&lanes)[32], unsigned taking_part);
void multiply_shared_e4m3(void* const (&lanes)[32], unsigned taking_part);

// For tests: as long as it lives warpgroups' products add a step's inputs in falling order, as a
// GPU's might whose two kinds of products differ.
class OtherOrder {
 public:
  OtherOrder();
  ~OtherOrder();
  OtherOrder(const OtherOrder&) = delete;
  OtherOrder& operator=(const OtherOrder&) = delete;
};

// What a lane brings to a load of matrices and takes from it (load_transposed of ptx.cuh).
struct MatrixLines {
  const void* line;
  std::uint32_t* v;
};
void transpose_matrices(void* const (&lanes)[32], unsigned taking_part);

}  // namespace dsm::emulation
