// The Xids that come into GPUs' files from now on: an event set of NVML. One thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>

namespace dsm::emulation {

class XidEvents {
 public:
  // Of files in gpu_folder().
  XidEvents();
  ~XidEvents();
  XidEvents(const XidEvents&) = delete;
  XidEvents& operator=(const XidEvents&) = delete;

  bool works() const { return changes_ >= 0; }
  // What its file has already is past.
  void listen_to(const std::string& address);

  enum class Came { kXid, kLost, kNothing };
  struct Event {
    Came came = Came::kNothing;
    std::string address;
    std::uint64_t xid = 0;
  };
  // An Xid, else kLost when a GPU is, else kNothing after this time.
  Event wait(std::chrono::milliseconds time);

 private:
  Event look();
  bool wait_for_change(std::chrono::steady_clock::time_point until) const;

  int changes_ = -1;                         // inotify's descriptor
  std::map<std::string, std::size_t> told_;  // Xids of each GPU's file
};

}  // namespace dsm::emulation
