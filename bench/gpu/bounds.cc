#include "bench/gpu/bounds.h"

namespace dsm::bench {
namespace {

// The first whose name is a part of the device's counts: longer names come first.
constexpr Peaks kPeaks[] = {
    {"A100-SXM4-40GB", 1.555e12, 312e12},
    {"A100-PCIE-40GB", 1.555e12, 312e12},
    {"A100 80GB PCIe", 1.935e12, 312e12},
    {"A100-SXM4-80GB", 2.039e12, 312e12},
    {"H100 PCIe", 2.0e12, 756e12},
    {"H100 NVL", 3.9e12, 835e12},
    {"H100", 3.35e12, 989e12},
    {"H200 NVL", 4.8e12, 835e12},
    {"H200", 4.8e12, 989e12},
    {"B200", 8.0e12, 2250e12},
};

}  // namespace

const Peaks* peaks_of(std::string_view device) {
  for (const Peaks& peaks : kPeaks) {
    if (device.find(peaks.name) != std::string_view::npos) return &peaks;
  }
  return nullptr;
}

Bound bound_of(const Work& work, const Peaks& peaks) {
  const double memory = work.bytes / peaks.bytes_per_s;
  const double arithmetic = (work.flops + work.fp8_flops / 2) / peaks.bf16_flops;
  return memory >= arithmetic ? Bound{memory, true} : Bound{arithmetic, false};
}

}  // namespace dsm::bench
