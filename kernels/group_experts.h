// The definition of a router's choice as groups (GroupExpertsParams), in memory of the host.
#pragma once

#include "kernels/params.h"

namespace dsm::kernels {

void group_experts(const GroupExpertsParams& params);

}  // namespace dsm::kernels
