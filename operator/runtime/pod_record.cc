#include "operator/runtime/pod_record.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>

#include "operator/api/reasons.h"

namespace dsm::runtime {
namespace {

// Calls `visit` with every field in one order: a field that is added and not named here does not
// compile.
template <typename Pod, typename Visit>
void each_field(Pod& pod, Visit visit) {
  auto& [name, uid, owner_uid, revision, group, index, phase, node, ip, created, deletion, ready,
         ready_at, running, restarts, started, scheduled, sandboxed, gate, queued, bound_together,
         drain, unschedulable_since, unschedulable_message, waiting_reason, waiting_message,
         exit_reason, exit_code, exit_message, exit_why, status_reason, status_message] = pod;
  const auto visit_all = [&](auto&... fields) { (visit(fields), ...); };
  visit_all(name, uid, owner_uid, revision, group, index, phase, node, ip, created, deletion, ready,
            ready_at, running, restarts, started, scheduled, sandboxed, gate, queued,
            bound_together, drain, unschedulable_since, unschedulable_message, waiting_reason,
            waiting_message, exit_reason, exit_code, exit_message, exit_why, status_reason,
            status_message);
}

struct Writer {
  std::string& out;

  template <typename T>
    requires std::is_trivially_copyable_v<T>
  void raw(const T& value) {
    out.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void operator()(bool value) { raw(value); }
  void operator()(int value) { raw(value); }
  void operator()(const WallTime& value) { raw(value); }
  void operator()(const std::optional<WallTime>& value) {
    raw(value.has_value());
    if (value) raw(*value);
  }
  // Short ones, which is nearly all, have one byte for their length.
  void operator()(const std::string& value) {
    std::size_t size = value.size();
    for (; size > 0x7f; size >>= 7) out.push_back(static_cast<char>(size | 0x80));
    out.push_back(static_cast<char>(size));
    out += value;
  }
  // One of the worker's reasons, or none.
  void operator()(const std::string_view& reason) {
    const auto at = std::ranges::find(api::kWorkerReasons, reason);
    raw(static_cast<std::uint8_t>(at - api::kWorkerReasons.begin()));
  }
};

struct Reader {
  std::string_view in;

  template <typename T>
    requires std::is_trivially_copyable_v<T>
  T raw() {
    T value;
    std::memcpy(&value, in.data(), sizeof value);
    in.remove_prefix(sizeof value);
    return value;
  }
  void operator()(bool& value) { value = raw<bool>(); }
  void operator()(int& value) { value = raw<int>(); }
  void operator()(WallTime& value) { value = raw<WallTime>(); }
  void operator()(std::optional<WallTime>& value) {
    if (raw<bool>()) value = raw<WallTime>();
  }
  void operator()(std::string& value) {
    std::size_t size = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = raw<std::uint8_t>();
      size |= static_cast<std::size_t>(byte & 0x7f) << shift;
      if (byte <= 0x7f) break;
    }
    value = in.substr(0, size);
    in.remove_prefix(size);
  }
  void operator()(std::string_view& reason) {
    const auto at = raw<std::uint8_t>();
    if (at < api::kWorkerReasons.size()) reason = api::kWorkerReasons[at];
  }
};

}  // namespace

std::string pod_record(const plan::PodView& pod) {
  std::string record;
  record.reserve(256);
  each_field(pod, Writer{record});
  record.shrink_to_fit();
  return record;
}

plan::PodView pod_of_record(std::string_view record) {
  plan::PodView pod;
  each_field(pod, Reader{record});
  return pod;
}

}  // namespace dsm::runtime
