// How a rank's device is, as bytes of the Progress message.
#pragma once

#include "worker/group/wire_bytes.h"
#include "worker/health/device_health.h"

namespace dsm::group {

// What a DeviceHealth of which nothing is known takes.
inline constexpr std::size_t kSmallestDeviceHealth = 1 + 4 + 4 + 4 + 3 * 4 + 4 * 8 + 8 + 4;

void write(Writer& w, const health::DeviceHealth& d);
void read(Reader& r, health::DeviceHealth& d);

}  // namespace dsm::group
