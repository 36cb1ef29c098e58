// How weights are rounded to integers: symmetric, to the nearest, one scale for a block of inputs
// of a column. The scale is the block's value of largest magnitude, sign included, divided by the
// lowest integer (-128 or -8), as ggml's Q4_0 has it: that value then is exact, and all integers
// are used, which makes steps of 4 bits 1/8 finer than a scale that leaves -8 out. At the other end
// a value may count as one step less. Pure functions.
#pragma once

#include <span>

#include "kernels/params.h"

namespace dsm::kernels {

// Of a block; not finite when one of its values is not.
float integer_scale(std::span<const float> values, DType dtype);

// What times the scale is nearest to the value, on a tie the even one: -128 .. 127 or -8 .. 7. Both
// are finite.
int nearest_integer(float value, float scale, DType dtype);

}  // namespace dsm::kernels
