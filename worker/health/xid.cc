#include "worker/health/xid.h"

#include <algorithm>
#include <array>

namespace dsm::health {
namespace {

constexpr std::string_view kReset = "drain the node and reset the GPU";
constexpr std::string_view kRestartNode = "restart the node; if it comes back, replace the GPU";
constexpr std::string_view kRestart =
    "the process starts again and the GPU leaves out that memory; nothing to do unless it repeats";
constexpr std::string_view kResetWhenIdle = "reset the GPU when the node is next drained";
constexpr std::string_view kLook = "look at its NVLink (nvidia-smi nvlink -e) when it repeats";
constexpr std::string_view kMechanics = "check the GPU's power cables and seat";
constexpr std::string_view kSupport = "ask the vendor to look at the GPU";

// In the order of their numbers. A link error (74) does not end the process: which of its kinds are
// harmless stands in registers that are not told here, and a link that is really lost is noticed by
// the ranks that wait for each other.
constexpr std::array kXids = {
    Xid{46, "GPU stopped processing", true, kReset},
    Xid{48, "double-bit memory error", true, kReset},
    Xid{54, "auxiliary power is missing, clocks are reduced", false, kMechanics},
    Xid{62, "power management unit halted", true, kReset},
    Xid{63, "a memory row is to be remapped", false, kResetWhenIdle},
    Xid{64, "a memory row could not be remapped", true, kReset},
    Xid{74, "NVLink error", false, kLook},
    Xid{79, "GPU has fallen off the bus", true, kRestartNode},
    Xid{92, "many corrected memory errors", false, kSupport},
    Xid{94, "contained memory error", true, kRestart},
    Xid{95, "uncontained memory error", true, kReset},
    Xid{109, "context switch timed out", true, kReset},
    Xid{110, "security fault", true, kReset},
    Xid{119, "GPU system processor does not answer", true, kReset},
    Xid{120, "GPU system processor failed", true, kReset},
    Xid{136, "NVLink training failed", true, kReset},
    Xid{140, "unrecovered memory error", true, kReset},
    Xid{143, "GPU could not be initialised", true, kReset},
    Xid{151, "key rotation failed", true, kRestartNode},
    Xid{155, "NVLink failed", true, kReset},
    Xid{156, "a resource is retired", true, kReset},
    Xid{157, "a resource could not be retired", false, kSupport},
    Xid{158, "fatal time-out of the GPU", true, kReset},
};
static_assert(std::ranges::is_sorted(kXids, {}, &Xid::number));

}  // namespace

std::span<const Xid> known_xids() {
  return kXids;
}

const Xid* find_xid(std::uint64_t number) {
  const auto* const found = std::ranges::find(kXids, number, &Xid::number);
  return found == kXids.end() ? nullptr : found;
}

bool restart_mends(const Xid& xid) {
  return xid.remedy == kRestart;
}

std::string sentence(const Xid& xid) {
  return "Xid " + std::to_string(xid.number) + " (" + std::string(xid.what) +
         "): " + std::string(xid.remedy);
}

}  // namespace dsm::health
