#include "operator/plan/devices.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "operator/plan/groups.h"

namespace dsm::plan {
namespace {

using nlohmann::json;

// Beyond what a worker of today has or says, so that one of tomorrow can.
constexpr std::size_t kMostRanks = 1024;
constexpr std::size_t kMostSick = 16;
constexpr std::size_t kMostProblems = 8;
constexpr std::size_t kLongestName = 48;
constexpr std::size_t kLongestProblem = 32;

// Null where there is none.
const json& field(const json& from, const char* name) {
  static const json kNull;
  if (!from.is_object()) return kNull;
  const auto it = from.find(name);
  return it == from.end() ? kNull : *it;
}

std::string text(const json& value) {
  return value.is_string() ? value.get<std::string>() : std::string();
}

bool is_letter_or_digit(char c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

// "RowRemapPending"
bool is_word(std::string_view text) {
  return !text.empty() && text.size() <= kLongestProblem &&
         std::ranges::all_of(text, is_letter_or_digit);
}

// "GPU 3", "GPU 0000:1B:00.0"
bool is_name(std::string_view text) {
  return !text.empty() && text.size() <= kLongestName && std::ranges::all_of(text, [](char c) {
    return is_letter_or_digit(c) || c == ' ' || c == ':' || c == '.' || c == '-';
  });
}

std::vector<std::string> problems_of(const json& device) {
  std::vector<std::string> out;
  const json& all = field(device, "problems");
  if (!all.is_array()) return out;
  for (const json& one : all) {
    if (out.size() == kMostProblems) break;
    if (const std::string word = text(one); is_word(word)) out.push_back(word);
  }
  return out;
}

// The node of a rank: pods hold as many ranks each, in the order of their indices.
std::string node_of(const Group& group, int rank, int ranks) {
  const auto pods = static_cast<int>(group.pods.size());
  if (pods == 0 || ranks % pods != 0) return "";
  const PodView* pod = group.pods[static_cast<std::size_t>(rank / (ranks / pods))];
  return pod != nullptr ? pod->node : "";
}

}  // namespace

int rank_count(const json& ranks) {
  return ranks.is_array() ? static_cast<int>(std::min(ranks.size(), kMostRanks)) : 0;
}

std::vector<SickDevice> sick_devices(const json& ranks) {
  std::vector<SickDevice> out;
  for (int rank = 0; rank < rank_count(ranks) && out.size() < kMostSick; ++rank) {
    const json& device = field(ranks[static_cast<std::size_t>(rank)], "device");
    const std::string health = text(field(device, "health"));
    if (health != "Degraded" && health != "Fatal") continue;
    const std::string name = text(field(device, "name"));
    out.push_back({.rank = rank,
                   .name = is_name(name) ? name : "device",
                   .health = health,
                   .problems = problems_of(device)});
  }
  return out;
}

std::vector<api::DeviceStatus> devices_of(const Group& group, const std::vector<std::string>& nodes,
                                          const api::GroupStatus* before) {
  if (group.leader_status == nullptr) {
    return before != nullptr && before->nodes == nodes ? before->devices
                                                       : std::vector<api::DeviceStatus>();
  }
  std::vector<api::DeviceStatus> out;
  out.reserve(group.leader_status->sick.size());
  for (const SickDevice& sick : group.leader_status->sick) {
    out.push_back({.rank = sick.rank,
                   .name = sick.name,
                   .node = node_of(group, sick.rank, group.leader_status->ranks),
                   .health = sick.health,
                   .problems = sick.problems});
  }
  return out;
}

}  // namespace dsm::plan
