// A libnvidia-ml.so.1 for emulated GPUs: what worker/health asks of NVML, loaded as NVML is. How a
// GPU is stands in its file (gpu_file.h), which is read at each question.
#include <nvml.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "kernels/cuda/emulation/gpu_file.h"
#include "kernels/cuda/emulation/nvml/xid_events.h"

using dsm::emulation::GpuFile;
using dsm::emulation::XidEvents;

struct nvmlDevice_st {
  std::string address;
};
struct nvmlEventSet_st {
  XidEvents events;
  std::map<std::string, nvmlDevice_t> devices;  // by address
};

namespace {

// Handles are valid while the library is loaded.
nvmlDevice_t device_at(const std::string& address) {
  static std::mutex mutex;
  static std::map<std::string, std::unique_ptr<nvmlDevice_st>> devices;
  const std::lock_guard lock(mutex);
  auto& device = devices[address];
  if (!device) device = std::make_unique<nvmlDevice_st>(nvmlDevice_st{address});
  return device.get();
}

// What every question begins with.
nvmlReturn_t look_at(nvmlDevice_t device, GpuFile& out) {
  const auto gpu = dsm::emulation::read_gpu_file(device->address);
  if (!gpu || gpu->lost()) return NVML_ERROR_GPU_IS_LOST;
  if (gpu->value("reset_required").value_or(0) != 0) return NVML_ERROR_RESET_REQUIRED;
  out = *gpu;
  return NVML_SUCCESS;
}

template <typename T>
nvmlReturn_t tell(const GpuFile& gpu, const char* name, T* out) {
  const auto value = gpu.value(name);
  if (!value) return NVML_ERROR_NOT_SUPPORTED;
  *out = static_cast<T>(*value);
  return NVML_SUCCESS;
}

template <typename T>
nvmlReturn_t tell(nvmlDevice_t device, const char* name, T* out) {
  GpuFile gpu;
  const nvmlReturn_t there = look_at(device, gpu);
  return there == NVML_SUCCESS ? tell(gpu, name, out) : there;
}

// Success where all are.
nvmlReturn_t all(std::initializer_list<nvmlReturn_t> answers) {
  for (const nvmlReturn_t answer : answers) {
    if (answer != NVML_SUCCESS) return answer;
  }
  return NVML_SUCCESS;
}

}  // namespace

nvmlReturn_t nvmlInit_v2() {
  return dsm::emulation::gpu_folder().empty() ? NVML_ERROR_DRIVER_NOT_LOADED : NVML_SUCCESS;
}

nvmlReturn_t nvmlShutdown() {
  return NVML_SUCCESS;
}

const char* nvmlErrorString(nvmlReturn_t result) {
  switch (result) {
    case NVML_SUCCESS:
      return "Success";
    case NVML_ERROR_NOT_SUPPORTED:
      return "Not Supported";
    case NVML_ERROR_NOT_FOUND:
      return "Not Found";
    case NVML_ERROR_DRIVER_NOT_LOADED:
      return "Driver Not Loaded";
    case NVML_ERROR_TIMEOUT:
      return "Timeout";
    case NVML_ERROR_GPU_IS_LOST:
      return "GPU is lost";
    case NVML_ERROR_RESET_REQUIRED:
      return "GPU requires reset";
    default:
      return "Unknown Error";
  }
}

nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char* pciBusId, nvmlDevice_t* device) {
  const auto gpu = dsm::emulation::read_gpu_file(pciBusId);
  if (!gpu) return NVML_ERROR_NOT_FOUND;
  if (gpu->lost()) return NVML_ERROR_GPU_IS_LOST;
  *device = device_at(pciBusId);
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned* minorNumber) {
  return tell(device, "minor", minorNumber);
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t* utilization) {
  *utilization = {};
  return tell(device, "utilisation", &utilization->gpu);
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t* memory) {
  const nvmlReturn_t told = all(
      {tell(device, "memory_total", &memory->total), tell(device, "memory_used", &memory->used)});
  memory->free = memory->total - memory->used;
  return told;
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, nvmlTemperatureSensors_t sensorType,
                                      unsigned* temp) {
  if (sensorType != NVML_TEMPERATURE_GPU) return NVML_ERROR_INVALID_ARGUMENT;
  return tell(device, "temperature", temp);
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned* power) {
  return tell(device, "power", power);
}

nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, nvmlClockType_t type, unsigned* clock) {
  if (type != NVML_CLOCK_SM && type != NVML_CLOCK_MEM) return NVML_ERROR_INVALID_ARGUMENT;
  return tell(device, type == NVML_CLOCK_SM ? "sm_clock" : "memory_clock", clock);
}

nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device,
                                                    unsigned long long* clocksEventReasons) {
  return tell(device, "clock_reasons", clocksEventReasons);
}

nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, nvmlMemoryErrorType_t errorType,
                                         nvmlEccCounterType_t counterType,
                                         unsigned long long* eccCounts) {
  if (counterType != NVML_VOLATILE_ECC) return NVML_ERROR_INVALID_ARGUMENT;
  const bool corrected = errorType == NVML_MEMORY_ERROR_TYPE_CORRECTED;
  return tell(device, corrected ? "ecc_corrected" : "ecc_uncorrected", eccCounts);
}

nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned* corrRows, unsigned* uncRows,
                                       unsigned* isPending, unsigned* failureOccurred) {
  return all({tell(device, "rows_corrected", corrRows), tell(device, "rows_uncorrected", uncRows),
              tell(device, "row_pending", isPending), tell(device, "row_failed", failureOccurred)});
}

nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned link,
                                      nvmlEnableState_t* isActive) {
  GpuFile gpu;
  unsigned links = 0;
  unsigned up = 0;
  if (const nvmlReturn_t there = look_at(device, gpu); there != NVML_SUCCESS) return there;
  const nvmlReturn_t told = all({tell(gpu, "links", &links), tell(gpu, "links_up", &up)});
  if (told == NVML_SUCCESS && link >= links) return NVML_ERROR_INVALID_ARGUMENT;
  *isActive = link < up ? NVML_FEATURE_ENABLED : NVML_FEATURE_DISABLED;
  return told;
}

nvmlReturn_t nvmlDeviceGetNvLinkErrorCounter(nvmlDevice_t device, unsigned link,
                                             nvmlNvLinkErrorCounter_t counter,
                                             unsigned long long* counterValue) {
  nvmlEnableState_t active{};
  const nvmlReturn_t there = nvmlDeviceGetNvLinkState(device, link, &active);
  if (there != NVML_SUCCESS) return there;
  if (counter > NVML_NVLINK_ERROR_DL_CRC_FLIT) return NVML_ERROR_INVALID_ARGUMENT;
  return tell(device, "link_errors", counterValue);
}

nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t* set) {
  auto made = std::make_unique<nvmlEventSet_st>();
  if (!made->events.works()) return NVML_ERROR_UNKNOWN;
  *set = made.release();
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long eventTypes,
                                      nvmlEventSet_t set) {
  if (eventTypes != nvmlEventTypeXidCriticalError) return NVML_ERROR_NOT_SUPPORTED;
  set->devices[device->address] = device;
  set->events.listen_to(device->address);
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t* data, unsigned timeoutms) {
  const XidEvents::Event event = set->events.wait(std::chrono::milliseconds(timeoutms));
  if (event.came == XidEvents::Came::kLost) return NVML_ERROR_GPU_IS_LOST;
  if (event.came == XidEvents::Came::kNothing) return NVML_ERROR_TIMEOUT;
  constexpr unsigned kWhole = 0xffffffff;  // it is not cut into instances
  *data = {};
  data->device = set->devices[event.address];
  data->eventType = nvmlEventTypeXidCriticalError;
  data->eventData = event.xid;
  data->gpuInstanceId = kWhole;
  data->computeInstanceId = kWhole;
  return NVML_SUCCESS;
}

nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set) {
  delete set;
  return NVML_SUCCESS;
}
