#include "ctl/log_pods.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "ctl/objects.h"
#include "operator/api/names.h"
#include "operator/plan/observed.h"

namespace dsm::ctl {
namespace {

using nlohmann::json;

struct Candidate {
  plan::PodView pod;
  int first_rank = 0;
  int last_rank = 0;
};

// The number after a flag in the container's arguments; `otherwise` when it is not given.
int number_after(const json& pod, std::string_view flag, int otherwise) {
  const json& args = part(pod, "/spec/containers/0/args");
  if (!args.is_array()) return otherwise;
  for (std::size_t i = 0; i + 1 < args.size(); ++i) {
    if (args[i] != json(flag) || !args[i + 1].is_string()) continue;
    const std::string text = args[i + 1];
    const bool digits = !text.empty() && text.size() < 6 &&
                        std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
    return digits ? std::stoi(text) : otherwise;
  }
  return otherwise;
}

Candidate candidate_of(const json& pod) {
  Candidate out{plan::pod_view(pod)};
  const int tensor = std::max(1, number_after(pod, "--tensor-parallel", 1));
  const int in_pod = std::max(1, number_after(pod, "--ranks-per-pod", tensor));
  out.first_rank = out.pod.index * in_pod;
  out.last_rank = out.first_rank + in_pod - 1;
  return out;
}

bool is_of(const Candidate& candidate, const json& model, const LogChoice& choice) {
  const plan::PodView& pod = candidate.pod;
  const std::string number = std::to_string(pod.group);
  const bool group = choice.group.empty() || choice.group == number ||
                     choice.group == pod.revision + "-" + number ||
                     choice.group == api::group_name(name_of(model), pod.revision, pod.group);
  const bool rank = choice.rank < 0 ||
                    (candidate.first_rank <= choice.rank && choice.rank <= candidate.last_rank);
  return group && rank;
}

std::string prefix_of(const Candidate& candidate, bool with_revision) {
  std::string text = with_revision ? candidate.pod.revision + "-" : "";
  text += std::to_string(candidate.pod.group) + "/" + std::to_string(candidate.first_rank);
  if (candidate.last_rank > candidate.first_rank) {
    text += "-" + std::to_string(candidate.last_rank);
  }
  return text + " ";
}

}  // namespace

Result<std::vector<LogPod>> choose_log_pods(const json& model, const std::vector<json>& pods,
                                            const LogChoice& choice) {
  std::vector<Candidate> all;
  for (const json& pod : pods) {
    Candidate candidate = candidate_of(pod);
    if (candidate.pod.owner_uid != uid_of(model) || candidate.pod.group < 0) continue;
    all.push_back(std::move(candidate));
  }
  std::ranges::sort(all, {}, [](const Candidate& c) {
    return std::tuple(c.pod.revision, c.pod.group, c.pod.index);
  });
  std::set<std::string> revisions;
  for (const Candidate& candidate : all) revisions.insert(candidate.pod.revision);
  std::vector<LogPod> out;
  std::string there;
  for (const Candidate& candidate : all) {
    there += (there.empty() ? "" : ", ") + candidate.pod.name;
    if (!is_of(candidate, model, choice)) continue;
    out.push_back({candidate.pod.name, prefix_of(candidate, revisions.size() > 1)});
  }
  if (!out.empty()) return out;
  return fail(ErrorKind::kNotFound, all.empty()
                                        ? "the model has no pods"
                                        : "no pod is of that group and rank; there are: " + there);
}

std::string LinePrefixer::add(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) {
    if (c == '\n') {
      out += prefix_ + partial_ + "\n";
      partial_.clear();
      continue;
    }
    partial_ += c;
    if (partial_.size() >= kLongestLine) out += finish();
  }
  return out;
}

std::string LinePrefixer::finish() {
  if (partial_.empty()) return "";
  std::string out = prefix_ + partial_ + "\n";
  partial_.clear();
  return out;
}

}  // namespace dsm::ctl
