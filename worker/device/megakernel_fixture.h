// What tests of steps as one kernel share.
#pragma once

#include "worker/device/backend_fixture.h"

namespace dsm::device {

// The device that is there, with steps of up to 16 tokens as one kernel or without.
inline Side side_with(bool megakernel, bool exact) {
  return {make_backend({.device = *find_device("auto"),
                        .exact = exact,
                        .kernels = {.megakernel_tokens = megakernel ? 16 : 0}})};
}

}  // namespace dsm::device
