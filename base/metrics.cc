#include "base/metrics.h"

#include <prometheus/text_serializer.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>

namespace dsm {
namespace {

class ProcessCollector {
 public:
  explicit ProcessCollector(MetricsRegistry& registry)
      : cpu_(prometheus::BuildGauge()
                 .Name("process_cpu_seconds_total")
                 .Help("CPU time used, user and system")
                 .Register(registry)
                 .Add({})),
        resident_(prometheus::BuildGauge()
                      .Name("process_resident_memory_bytes")
                      .Help("Resident memory")
                      .Register(registry)
                      .Add({})),
        start_(prometheus::BuildGauge()
                   .Name("process_start_time_seconds")
                   .Help("Start time as Unix time")
                   .Register(registry)
                   .Add({})),
        fds_(prometheus::BuildGauge()
                 .Name("process_open_fds")
                 .Help("Open file descriptors")
                 .Register(registry)
                 .Add({})) {}

  void update() {
    std::ifstream file("/proc/self/stat");
    std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    // The second field, the program's name, may hold blanks: fields are counted behind its ')'.
    const auto name_end = text.rfind(')');
    if (name_end == std::string::npos) return;
    std::istringstream fields(text.substr(name_end + 1));
    std::string field;
    const double ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
    double cpu_ticks = 0;
    for (int number = 3; fields >> field && number <= 24; ++number) {  // numbering of proc(5)
      if (number == 14 || number == 15) cpu_ticks += std::stod(field);
      if (number == 22) start_.Set(boot_time() + std::stod(field) / ticks);
      if (number == 24)
        resident_.Set(std::stod(field) * static_cast<double>(sysconf(_SC_PAGESIZE)));
    }
    cpu_.Set(cpu_ticks / ticks);
    std::error_code error;
    std::filesystem::directory_iterator fds("/proc/self/fd", error);
    if (!error) fds_.Set(static_cast<double>(std::distance(begin(fds), end(fds))));
  }

 private:
  static double boot_time() {
    std::ifstream file("/proc/stat");
    std::string line;
    while (std::getline(file, line)) {
      if (line.starts_with("btime ")) return std::stod(line.substr(6));
    }
    return 0;
  }

  prometheus::Gauge& cpu_;
  prometheus::Gauge& resident_;
  prometheus::Gauge& start_;
  prometheus::Gauge& fds_;
};

}  // namespace

std::string metrics_text(const MetricsRegistry& registry) {
  return prometheus::TextSerializer().Serialize(registry.Collect());
}

struct ProcessMetrics::Gauges : ProcessCollector {
  using ProcessCollector::ProcessCollector;
};

ProcessMetrics::ProcessMetrics(MetricsRegistry& registry)
    : gauges_(std::make_unique<Gauges>(registry)) {}
ProcessMetrics::~ProcessMetrics() = default;
void ProcessMetrics::update() {
  gauges_->update();
}

}  // namespace dsm
