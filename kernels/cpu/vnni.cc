// The operators of integer_ops.h with AVX512-VNNI.
#include "kernels/cpu/byte_integers.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/tables.h"

namespace dsm::kernels {
namespace {

struct Vnni : Avx512 {
  using Integers = ByteIntegers;
};

}  // namespace

constinit const IntegerOps kVnniIntegerOps = Kernels<Vnni>::integer_table("vnni");

}  // namespace dsm::kernels
