#include "operator/plan/news.h"

#include <algorithm>
#include <array>
#include <tuple>

#include "operator/api/reasons.h"

namespace dsm::plan {
namespace {

// More than an Event takes; the writer cuts the rest off.
constexpr std::size_t kLongestMessage = 1024;

// Stations of a group on its way back: no news for a person who was told why it went.
bool on_the_way(std::string_view reason) {
  constexpr std::array kStations = {api::kCreating, api::kStarting, api::kLoadingWeights,
                                    api::kRendezvous, api::kDraining};
  return std::ranges::find(kStations, reason) != kStations.end();
}

// The condition where it is True; nullptr otherwise.
const api::Condition* true_of(const api::ModelStatus& status, std::string_view type) {
  const auto* condition = api::find_condition(status, type);
  return condition != nullptr && condition->status == api::Truth::kTrue ? condition : nullptr;
}

bool is_leaving(const api::GroupStatus& group) {
  return group.reason == api::kNodeDraining || group.reason == api::kGroupDraining;
}

// A cause that may want a person's time. What is the matter with one that has failed is told so.
bool is_trouble(const api::GroupStatus& group) {
  return !group.reason.empty() && group.phase != "Failed" && !is_leaving(group) &&
         !on_the_way(group.reason);
}

// A device has a problem that was not told of.
bool is_news(const api::DeviceStatus& device, const std::vector<api::DeviceStatus>& before) {
  const auto it = std::ranges::find_if(before, [&](const api::DeviceStatus& other) {
    return other.rank == device.rank && other.name == device.name && other.node == device.node;
  });
  return it == before.end() ||
         std::ranges::any_of(device.problems, [&](const std::string& problem) {
           return std::ranges::find(it->problems, problem) == it->problems.end();
         });
}

// What is new of the devices of a group that was told of for another one.
void add_device_news(const api::GroupStatus& before, const api::GroupStatus& after,
                     std::vector<EventNote>& out) {
  for (const api::DeviceStatus& device : after.devices) {
    if (!is_news(device, before.devices)) continue;
    std::string text = "group " + after.name + ": rank " + std::to_string(device.rank) + ": " +
                       device.name + (device.node.empty() ? "" : " of " + device.node);
    for (std::size_t i = 0; i < device.problems.size(); ++i) {
      text += (i == 0 ? ": " : ", ") + device.problems[i];
    }
    out.push_back({true, std::string(api::kDeviceDegraded), "Watch", std::move(text)});
  }
}

// What became of single groups.
void add_group_news(const api::ModelStatus& before, const api::ModelStatus& after,
                    std::vector<EventNote>& out) {
  for (const auto& group : after.groups) {
    const auto it = std::ranges::find(before.groups, group.name, &api::GroupStatus::name);
    const bool is_new = it == before.groups.end();
    if (group.phase == "Ready" && (is_new || it->phase != "Ready")) {
      out.push_back({false, "GroupReady", "Watch", "group " + group.name + " answers"});
    }
    if (group.phase == "Failed" && (is_new || it->phase != "Failed")) {
      out.push_back({true, "GroupFailed", "Watch", "group " + group.name + ": " + group.message});
    }
    if (group.reason == api::kAsleep && (is_new || it->reason != group.reason)) {
      out.push_back({false, group.reason, "Sleep", "group " + group.name + ": " + group.message});
    }
    if (is_leaving(group) && (is_new || it->reason != group.reason)) {
      out.push_back({false, group.reason, "Move", "group " + group.name + ": " + group.message});
    }
    if (is_trouble(group) && (is_new || it->reason != group.reason)) {
      out.push_back({true, group.reason, "Watch", "group " + group.name + ": " + group.message});
    }
    if (!is_new && group.reason == api::kDeviceDegraded && it->reason == group.reason) {
      add_device_news(*it, group, out);
    }
  }
}

// What became of a rollback that is asked for.
void add_rollback_news(const api::ModelStatus& before, const api::ModelStatus& after,
                       std::vector<EventNote>& out) {
  if (!after.rollback) return;
  const bool known = before.rollback && before.rollback->request == after.rollback->request;
  if (known && before.rollback->message == after.rollback->message) return;
  const bool active = after.rollback->active;
  // That it is over is what the edit of the spec was meant to do.
  const bool refused = !active && !(known && before.rollback->active);
  const char* reason = active ? "RollbackBegun" : refused ? "RollbackRefused" : "RollbackOver";
  out.push_back({refused, reason, "Roll", after.rollback->message});
}

// It was said of the group that it is about.
bool told(const std::vector<EventNote>& notes, std::string_view reason) {
  return std::ranges::any_of(
      notes, [&](const EventNote& note) { return note.warning && note.reason == reason; });
}

}  // namespace

std::vector<EventNote> news(const api::ModelStatus& before, const api::ModelStatus& after) {
  std::vector<EventNote> out;
  add_group_news(before, after, out);
  const auto* ready = true_of(after, api::kReady);
  if (ready != nullptr && true_of(before, api::kReady) == nullptr) {
    out.push_back({false, "Ready", "Watch", ready->message});
  }
  if (!before.current_revision.empty() && before.current_revision != after.current_revision) {
    out.push_back({false, "RolloutComplete", "Roll",
                   "all groups run revision " + after.current_revision + "; it was " +
                       before.current_revision});
  }
  add_rollback_news(before, after, out);
  const auto* was = true_of(before, api::kDegraded);
  const auto* is = true_of(after, api::kDegraded);
  if (is != nullptr && (was == nullptr || (was->reason != is->reason && !on_the_way(is->reason))) &&
      !told(out, is->reason)) {
    out.push_back({true, is->reason, "Watch", is->message});
  }
  const auto* was_stalled = true_of(before, api::kStalled);
  const auto* stalled = true_of(after, api::kStalled);
  if (stalled != nullptr && (was_stalled == nullptr || was_stalled->reason != stalled->reason) &&
      (is == nullptr || is->reason != stalled->reason)) {
    out.push_back({true, stalled->reason, "Watch", stalled->message});
  }
  return out;
}

std::vector<EventNote> folded(std::vector<EventNote> notes) {
  std::vector<EventNote> out;
  for (EventNote& note : notes) {
    const auto alike = std::ranges::find_if(out, [&](const EventNote& other) {
      return std::tie(other.warning, other.reason, other.action) ==
             std::tie(note.warning, note.reason, note.action);
    });
    if (alike == out.end()) {
      out.push_back(std::move(note));
    } else if (alike->message.size() < kLongestMessage) {
      alike->message += "; " + note.message;
    }
  }
  return out;
}

}  // namespace dsm::plan
