// The operators with AVX-512 (F and BW): 16 lanes are one register.
#include "kernels/cpu/avx512_vector.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/tables.h"

namespace dsm::kernels {

constinit const Ops kAvx512Ops = Kernels<Avx512>::table("avx512");
constinit const IntegerOps kAvx512IntegerOps = Kernels<Avx512>::integer_table("avx512");

}  // namespace dsm::kernels
