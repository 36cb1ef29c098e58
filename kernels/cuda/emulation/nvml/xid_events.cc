#include "kernels/cuda/emulation/nvml/xid_events.h"

#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "kernels/cuda/emulation/gpu_file.h"

namespace dsm::emulation {

XidEvents::XidEvents() : changes_(inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {
  // Files that are written to, and those that take another one's name.
  constexpr std::uint32_t kChanges = IN_MODIFY | IN_MOVED_TO;
  if (changes_ >= 0 && inotify_add_watch(changes_, gpu_folder().c_str(), kChanges) < 0) {
    close(changes_);
    changes_ = -1;
  }
}

XidEvents::~XidEvents() {
  if (changes_ >= 0) close(changes_);
}

void XidEvents::listen_to(const std::string& address) {
  const auto gpu = read_gpu_file(address);
  told_[address] = gpu ? gpu->xids.size() : 0;
}

XidEvents::Event XidEvents::look() {
  bool lost = false;
  for (auto& [address, told] : told_) {
    const auto gpu = read_gpu_file(address);
    if (!gpu) continue;
    told = std::min(told, gpu->xids.size());  // a file that was begun anew
    if (told < gpu->xids.size()) return {Came::kXid, address, gpu->xids[told++]};
    lost = lost || gpu->lost();
  }
  return {lost ? Came::kLost : Came::kNothing, "", 0};
}

bool XidEvents::wait_for_change(std::chrono::steady_clock::time_point until) const {
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
  pollfd change{.fd = changes_, .events = POLLIN, .revents = 0};
  if (left.count() <= 0 || poll(&change, 1, static_cast<int>(left.count())) <= 0) return false;
  std::array<char, 4096> what{};
  while (read(changes_, what.data(), what.size()) > 0) {
  }
  return true;
}

XidEvents::Event XidEvents::wait(std::chrono::milliseconds time) {
  const auto until = std::chrono::steady_clock::now() + time;
  Event event = look();
  while (event.came == Came::kNothing && wait_for_change(until)) event = look();
  return event;
}

}  // namespace dsm::emulation
