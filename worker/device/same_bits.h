// Whether two ways to multiply give the same bits on the device that is there: of the deterministic
// mode the kernel for many rows beside those for few (kernels/cuda/product_exact.h). They add up
// the same inputs in the same steps, but by two instructions, and what a tensor core does within a
// step is not documented. Models of it that were fitted to measurements say that it is the same on
// an H100; this is how a GPU is asked.
#pragma once

#include <string>

#include "worker/device/backend.h"

namespace dsm::device {

// `few` and `many`: backends in the deterministic mode of the same device, without and with the
// kernel for many rows. Products of inputs that would show a difference (exponents far apart, sums
// that cancel, numbers too small for normal ones, sums that are large from the beginning,
// infinities and NaN), of chains of all lengths and by weights of all types that the kernel takes.
// Empty where all bits are equal, NaN being like NaN; else where the first are not.
std::string different_bits(Backend& few, Backend& many);

}  // namespace dsm::device
