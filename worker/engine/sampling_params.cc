#include "worker/engine/sampling_params.h"

#include <string>

namespace dsm::engine {

// Each test is written so that a NaN fails it.
Status validate(const SamplingParams& params) {
  if (!(params.temperature >= 0.0F && params.temperature <= 2.0F)) {
    return fail(ErrorKind::kInvalid, "temperature must be between 0 and 2");
  }
  if (params.top_k < 0) {
    return fail(ErrorKind::kInvalid, "top_k must be 0 (off) or more");
  }
  if (!(params.top_p > 0.0F && params.top_p <= 1.0F)) {
    return fail(ErrorKind::kInvalid, "top_p must be above 0 and at most 1");
  }
  if (!(params.min_p >= 0.0F && params.min_p <= 1.0F)) {
    return fail(ErrorKind::kInvalid, "min_p must be between 0 and 1");
  }
  return {};
}

}  // namespace dsm::engine
