#include "worker/health/nvml.h"

#include <string>
#include <utility>

#include "base/shared_library.h"

namespace dsm::health::nvml {
namespace {

struct Loaded {
  SharedLibrary library;
  Api api{};
};

void fill(Api& api, SharedLibrary& library) {
  library.find(api.init, "nvmlInit_v2");
  library.find(api.shutdown, "nvmlShutdown");
  library.find(api.error_string, "nvmlErrorString");
  library.find(api.device_by_bus, "nvmlDeviceGetHandleByPciBusId_v2");
  library.find(api.minor_number, "nvmlDeviceGetMinorNumber");
  library.find(api.utilisation, "nvmlDeviceGetUtilizationRates");
  library.find(api.memory, "nvmlDeviceGetMemoryInfo");
  library.find(api.temperature, "nvmlDeviceGetTemperature");
  library.find(api.power, "nvmlDeviceGetPowerUsage");
  library.find(api.clock, "nvmlDeviceGetClockInfo");
  library.find(api.throttle, {"nvmlDeviceGetCurrentClocksEventReasons",
                              "nvmlDeviceGetCurrentClocksThrottleReasons"});
  library.find(api.ecc_errors, "nvmlDeviceGetTotalEccErrors");
  library.find(api.remapped_rows, "nvmlDeviceGetRemappedRows");
  library.find(api.link_state, "nvmlDeviceGetNvLinkState");
  library.find(api.link_errors, "nvmlDeviceGetNvLinkErrorCounter");
  library.find(api.event_set_create, "nvmlEventSetCreate");
  library.find(api.register_events, "nvmlDeviceRegisterEvents");
  library.find(api.event_set_wait, "nvmlEventSetWait_v2");
  library.find(api.event_set_free, "nvmlEventSetFree");
}

}  // namespace

Result<std::shared_ptr<const Api>> load(const char* library) {
  auto found = SharedLibrary::open({library});
  if (!found) {
    return fail(ErrorKind::kNotFound, std::string("no ") + library);
  }
  const auto loaded = std::make_shared<Loaded>(std::move(*found));
  fill(loaded->api, loaded->library);
  if (const std::string& missing = loaded->library.missing(); !missing.empty()) {
    return fail(ErrorKind::kInvalid,
                std::string(library) + " is too old, it lacks " + missing + ": update the driver");
  }
  return std::shared_ptr<const Api>(loaded, &loaded->api);
}

}  // namespace dsm::health::nvml
