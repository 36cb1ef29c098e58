// NVIDIA's management library, found at run time: the functions that are used, as a table. It is
// filled from libnvidia-ml.so.1, which comes with a driver, or by hand in tests. Types and numbers
// are those of nvml.h, which have been the same since its second version.
#pragma once

#include <memory>

#include "base/result.h"

namespace dsm::health::nvml {

struct DeviceTag;
using Device = DeviceTag*;
struct EventSetTag;
using EventSet = EventSetTag*;

using Return = int;
inline constexpr Return kSuccess = 0;
inline constexpr Return kNotSupported = 3;
inline constexpr Return kTimeout = 10;
inline constexpr Return kGpuIsLost = 15;
inline constexpr Return kResetRequired = 16;

struct Utilisation {
  unsigned gpu;  // percent
  unsigned memory;
};
struct Memory {
  unsigned long long total;
  unsigned long long free;
  unsigned long long used;
};
struct EventData {
  Device device;
  unsigned long long type;
  unsigned long long data;  // the number of an Xid
  unsigned gpu_instance;
  unsigned compute_instance;
};

inline constexpr unsigned long long kXidEvent = 0x8;
inline constexpr int kGpuTemperature = 0;
inline constexpr int kSmClock = 1;
inline constexpr int kMemoryClock = 2;
inline constexpr int kCorrected = 0;
inline constexpr int kUncorrected = 1;
inline constexpr int kSinceDriverLoad = 0;           // as opposed to the device's whole life
inline constexpr unsigned kMostLinks = 36;           // 18 up to CUDA 13.0
inline constexpr int kLinkErrorKinds[] = {0, 1, 2};  // replays, recoveries, checksums of flits

struct Api {
  Return (*init)();
  Return (*shutdown)();
  const char* (*error_string)(Return);
  Return (*device_by_bus)(const char* bus, Device*);
  Return (*minor_number)(Device, unsigned*);
  Return (*utilisation)(Device, Utilisation*);
  Return (*memory)(Device, Memory*);
  Return (*temperature)(Device, int sensor, unsigned* celsius);
  Return (*power)(Device, unsigned* milliwatts);
  Return (*clock)(Device, int kind, unsigned* mhz);
  Return (*throttle)(Device, unsigned long long* reasons);
  Return (*ecc_errors)(Device, int kind, int since, unsigned long long* count);
  Return (*remapped_rows)(Device, unsigned* corrected, unsigned* uncorrected, unsigned* pending,
                          unsigned* failed);
  Return (*link_state)(Device, unsigned link, int* up);
  Return (*link_errors)(Device, unsigned link, int kind, unsigned long long* count);
  Return (*event_set_create)(EventSet*);
  Return (*register_events)(Device, unsigned long long types, EventSet);
  Return (*event_set_wait)(EventSet, EventData*, unsigned milliseconds);
  Return (*event_set_free)(EventSet);
};

// The library is closed with the last copy. kNotFound: there is none; kInvalid: it lacks a
// function, which the message names.
Result<std::shared_ptr<const Api>> load(const char* library = "libnvidia-ml.so.1");

}  // namespace dsm::health::nvml
