// What a rank computes on has failed.
#pragma once

#include <stdexcept>

namespace dsm {

// There is no memory, or a device is gone: nothing that is asked of the rank will be computed until
// its process starts again. Its group is lost as if the process had ended.
class DeviceError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace dsm
