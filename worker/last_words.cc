#include "worker/last_words.h"

#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <string_view>

namespace dsm::worker {
namespace {

constexpr const char* kTerminationLog = "/dev/termination-log";  // there in a pod
constexpr std::string_view kBusError =
    "DeviceError: bus error: a file of the weights was cut, or its volume is gone\n";

// Safe in a signal handler.
void write_all(int to, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(to, text.data(), text.size());
    if (written <= 0) return;  // there is nobody left to tell
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

void write_where_others_look(std::string_view text) {
  write_all(STDERR_FILENO, "deepseek-worker: ");
  write_all(STDERR_FILENO, text);
  const int log = ::open(kTerminationLog, O_WRONLY | O_CLOEXEC | O_TRUNC);
  if (log < 0) return;
  write_all(log, text);
  ::close(log);
}

}  // namespace

void say_last(const std::string& message) {
  write_where_others_look(message + "\n");
}

void explain_bus_errors() {
  struct sigaction action = {};
  // The access is repeated when the handler returns, now without one.
  action.sa_handler = [](int) { write_where_others_look(kBusError); };
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, nullptr);
}

}  // namespace dsm::worker
