#include "ctl/plan_text.h"

namespace dsm::ctl {
namespace {

using nlohmann::json;

// A long rollout repeats itself.
constexpr std::size_t kMostSteps = 30;

std::string count_of(std::size_t count, const char* what) {
  return std::to_string(count) + " " + what + (count == 1 ? "" : "s");
}

Node leaf(std::string text, Colour colour = Colour::kPlain) {
  return {Line{Span{std::move(text), colour}}, {}};
}

Node revision_node(const Rehearsal& r) {
  if (r.revision_before.empty()) return leaf("revision " + r.revision + " is made");
  if (r.revision_before == r.revision) return leaf("revision " + r.revision + " stays");
  return leaf("revision " + r.revision_before + " -> " + r.revision, Colour::kBusy);
}

std::string summary(const Rehearsal& r) {
  return count_of(r.made.size(), "group") + " made, " + std::to_string(r.removed.size()) +
         " removed, " + std::to_string(r.kept.size()) + " kept";
}

Node steps_node(const Rehearsal& r) {
  if (r.steps.empty()) return leaf("nothing would be done", Colour::kGood);
  Node node = leaf(summary(r));
  for (std::size_t i = 0; i < r.steps.size() && i < kMostSteps; ++i) {
    for (const std::string& done : r.steps[i]) {
      node.children.push_back(leaf(std::to_string(i + 1) + ". " + printable(done)));
    }
  }
  if (r.steps.size() > kMostSteps) {
    node.children.push_back(
        leaf("and " + count_of(r.steps.size() - kMostSteps, "more step") + "; all of them: -o json",
             Colour::kFaint));
  }
  return node;
}

}  // namespace

std::string plan_text(const PlannedModel& planned, const Style& style) {
  const Rehearsal& r = planned.rehearsal;
  Node root{Line{Span{planned.name}, Span{"  namespace " + planned.ns, Colour::kFaint}}, {}};
  if (planned.is_new) root.line.push_back(Span{"  new model"});
  for (const Change& change : planned.changes) root.children.push_back(leaf(to_text(change)));
  if (!r.problem.empty()) {
    root.children.push_back(leaf("wrong: " + printable(r.problem), Colour::kBad));
    return to_text(root, style);
  }
  if (!r.memory.empty()) root.children.push_back(leaf("memory: " + r.memory));
  root.children.push_back(revision_node(r));
  if (r.paused) {
    root.children.push_back(
        leaf("the rollout is paused: what follows is all before dsmctl resume " + planned.name,
             Colour::kBusy));
  }
  if (!r.waits.empty())
    root.children.push_back(leaf("waits: " + printable(r.waits), Colour::kBusy));
  root.children.push_back(steps_node(r));
  for (const std::string& note : planned.notes) {
    root.children.push_back(leaf("not known: " + printable(note), Colour::kBusy));
  }
  if (!r.settled) {
    root.children.push_back(
        leaf("this does not come to an end by itself; see the conditions with dsmctl status",
             Colour::kBad));
  }
  return to_text(root, style);
}

json to_json(const PlannedModel& planned) {
  const Rehearsal& r = planned.rehearsal;
  json differences = json::array();
  for (const Change& change : planned.changes) {
    differences.push_back(
        {{"path", change.path}, {"before", change.before}, {"after", change.after}});
  }
  return {{"name", planned.name},     {"namespace", planned.ns},
          {"new", planned.is_new},    {"changes", std::move(differences)},
          {"problem", r.problem},     {"revisionBefore", r.revision_before},
          {"revision", r.revision},   {"replicas", r.desired},
          {"groupsMade", r.made},     {"groupsRemoved", r.removed},
          {"groupsKept", r.kept},     {"steps", r.steps},
          {"paused", r.paused},       {"settled", r.settled},
          {"memory", r.memory},       {"waits", r.waits},
          {"notKnown", planned.notes}};
}

}  // namespace dsm::ctl
