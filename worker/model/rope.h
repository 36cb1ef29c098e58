// Rotary position angles, scaled as the configuration says, as tables of cosines and sines.
#pragma once

#include <vector>

#include "worker/model/config.h"

namespace dsm::model {

struct RopeAngles {
  std::vector<float> cos;  // [max_positions, rope / 2]
  std::vector<float> sin;
};
RopeAngles rope_angles(const ModelConfig& config);

// What multiplies query . key: 1 / sqrt(head dimension), and YaRN's temperature squared.
float attention_scale(const ModelConfig& config);

}  // namespace dsm::model
