// What a device cannot compute of a model.
#pragma once

#include "base/result.h"
#include "worker/device/devices.h"
#include "worker/model/config.h"

namespace dsm::model {

// kInvalid: a sentence that names it.
Status check_device(const ModelConfig& config, device::Device device);

}  // namespace dsm::model
