#include "worker/health/nvml.h"

#include <dlfcn.h>

#include <initializer_list>
#include <string>

namespace dsm::health::nvml {
namespace {

struct Library {
  void* handle = nullptr;
  Api api{};

  Library() = default;
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;
  ~Library() {
    if (handle != nullptr) dlclose(handle);
  }

  // The first of the names that the library has. `missing` collects what it does not have.
  template <typename Function>
  void find(Function*& function, std::initializer_list<const char*> names, std::string& missing) {
    for (const char* name : names) {
      function = reinterpret_cast<Function*>(dlsym(handle, name));
      if (function != nullptr) return;
    }
    missing += (missing.empty() ? "" : ", ") + std::string(*names.begin());
  }
};

std::string fill(Library& library) {
  std::string missing;
  Api& api = library.api;
  library.find(api.init, {"nvmlInit_v2"}, missing);
  library.find(api.shutdown, {"nvmlShutdown"}, missing);
  library.find(api.error_string, {"nvmlErrorString"}, missing);
  library.find(api.device_by_bus, {"nvmlDeviceGetHandleByPciBusId_v2"}, missing);
  library.find(api.minor_number, {"nvmlDeviceGetMinorNumber"}, missing);
  library.find(api.utilisation, {"nvmlDeviceGetUtilizationRates"}, missing);
  library.find(api.memory, {"nvmlDeviceGetMemoryInfo"}, missing);
  library.find(api.temperature, {"nvmlDeviceGetTemperature"}, missing);
  library.find(api.power, {"nvmlDeviceGetPowerUsage"}, missing);
  library.find(api.clock, {"nvmlDeviceGetClockInfo"}, missing);
  library.find(
      api.throttle,
      {"nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"},
      missing);
  library.find(api.ecc_errors, {"nvmlDeviceGetTotalEccErrors"}, missing);
  library.find(api.remapped_rows, {"nvmlDeviceGetRemappedRows"}, missing);
  library.find(api.link_state, {"nvmlDeviceGetNvLinkState"}, missing);
  library.find(api.link_errors, {"nvmlDeviceGetNvLinkErrorCounter"}, missing);
  library.find(api.event_set_create, {"nvmlEventSetCreate"}, missing);
  library.find(api.register_events, {"nvmlDeviceRegisterEvents"}, missing);
  library.find(api.event_set_wait, {"nvmlEventSetWait_v2"}, missing);
  library.find(api.event_set_free, {"nvmlEventSetFree"}, missing);
  return missing;
}

}  // namespace

Result<std::shared_ptr<const Api>> load(const char* library) {
  const auto loaded = std::make_shared<Library>();
  loaded->handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (loaded->handle == nullptr) {
    return fail(ErrorKind::kNotFound, std::string("no ") + library);
  }
  if (const std::string missing = fill(*loaded); !missing.empty()) {
    return fail(ErrorKind::kInvalid,
                std::string(library) + " is too old, it lacks " + missing + ": update the driver");
  }
  return std::shared_ptr<const Api>(loaded, &loaded->api);
}

}  // namespace dsm::health::nvml
