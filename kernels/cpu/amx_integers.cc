// The operators of integer_ops.h with AMX.
#include "kernels/cpu/amx_integers.h"

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/tables.h"

namespace dsm::kernels {
namespace {

struct Amx : Avx512 {
  using Integers = AmxIntegers;
};

}  // namespace

constinit const IntegerOps kAmxIntegerOps = Kernels<Amx>::integer_table("amx");

}  // namespace dsm::kernels
