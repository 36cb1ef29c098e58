// Which GPUs CUDA lets this program use.
#pragma once

#include <string>
#include <vector>

namespace dsm::device {

// Empty where there is a GPU that this program can use; else a sentence that says why not.
std::string cuda_problem();

// The compute capabilities ("9.0") of the GPUs that the process sees; none where none can be used.
std::vector<std::string> cuda_capabilities();

}  // namespace dsm::device
