// What a device could do at best, and how long some work takes it at least: the yardstick beside
// every measured time. Pure.
#pragma once

#include <string_view>

namespace dsm::bench {

// Of NVIDIA's data sheets; products of dense matrices.
struct Peaks {
  std::string_view name;  // a part of what the driver calls the device
  double bytes_per_s = 0;
  double bf16_flops = 0;
};
// Null: a device that is not in the table.
const Peaks* peaks_of(std::string_view device);

struct Work {
  double bytes = 0;      // that have to come from the device's memory, or go there
  double flops = 0;      // two for each multiply-add
  double fp8_flops = 0;  // of FP8 by FP8, of which tensor cores do twice as many

  Work& operator+=(const Work& more) {
    bytes += more.bytes;
    flops += more.flops;
    fp8_flops += more.fp8_flops;
    return *this;
  }
};
struct Bound {
  double seconds = 0;
  bool by_memory = false;  // else by arithmetic
};
Bound bound_of(const Work& work, const Peaks& peaks);

}  // namespace dsm::bench
