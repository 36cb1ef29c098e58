#include <optional>

#include "ctl/commands.h"
#include "ctl/input.h"
#include "ctl/manifest.h"
#include "ctl/objects.h"
#include "ctl/observe.h"
#include "ctl/plan_text.h"
#include "ctl/rehearse.h"
#include "sizing/shape.h"

namespace dsm::ctl {
namespace {

using nlohmann::json;

Result<std::string> read_config(const std::string& file, std::istream& standard_input) {
  if (file.empty()) return "";
  auto text = read_input(file, "--config", kLongestConfig, standard_input);
  if (!text) return text;
  // A mistake is told as one of this file, not of the manifest.
  const auto shape = sizing::parse_shape(*text, "--config: " + file);
  if (!shape) return std::unexpected(shape.error());
  return text;
}

// The model as it is; null when there is none of the name.
Result<json> live_model(Cluster& cluster, const std::string& name) {
  auto model = cluster.client().get(kube::kDeepSeekModels, cluster.ns(), name);
  if (model) return std::move(*model);
  if (model.error().code == 404 && !unknown_kind(model.error())) return json();
  return std::unexpected(explained(model.error()));
}

plan::Observed nothing_but(const json& model) {
  plan::Observed seen;
  seen.model = model;
  seen.config.worker_image = "the-operators-default";
  seen.config.worker_image_cuda = "the-operators-default";
  return seen;
}

// `config`: what the spec says of the model's size, where it says nothing itself; empty: nothing.
Result<PlannedModel> plan_one(const json& manifest, const std::string& config, Cluster* cluster,
                              const std::string& ns) {
  PlannedModel planned;
  planned.name = name_of(manifest);
  planned.ns = ns;
  json live;
  if (cluster != nullptr) {
    auto found = live_model(*cluster, planned.name);
    if (!found) return std::unexpected(found.error());
    live = *std::move(found);
  }
  planned.is_new = live.is_null();
  json model = applied(live, manifest);
  model["metadata"]["namespace"] = ns;
  if (!planned.is_new) planned.changes = changes(part(live, "/spec"), part(model, "/spec"));
  if (!config.empty() && part(model, "/spec/sizing").is_null()) {
    model["spec"]["sizing"]["modelConfig"] = config;
  }
  auto seen =
      cluster == nullptr ? Result<Seen>(Seen{nothing_but(model), {}}) : observe(*cluster, model);
  if (!seen) return std::unexpected(seen.error());
  planned.notes = std::move(seen->notes);
  planned.rehearsal = rehearse(std::move(seen->observed));
  return planned;
}

}  // namespace

Result<int> run(const PlanCommand& command, Cluster* cluster, Io& io) {
  const Result<std::string> text = read_input(command.file, "-f", kLongestManifest, io.in);
  if (!text) return std::unexpected(text.error());
  const Result<std::string> config = read_config(command.config, io.in);
  if (!config) return std::unexpected(config.error());
  const Result<Manifest> manifest = parse_manifest(*text);
  if (!manifest) return wrap(manifest.error(), command.file);
  int code = kExitDone;
  json all = json::array();
  for (const json& object : manifest->models) {
    std::string ns = namespace_of(object);
    if (ns.empty()) ns = cluster == nullptr ? "default" : cluster->ns();
    std::optional<Cluster> there;
    if (cluster != nullptr) there.emplace(cluster->in(ns));
    const Result<PlannedModel> planned = plan_one(object, *config, there ? &*there : nullptr, ns);
    if (!planned) return std::unexpected(planned.error());
    if (!planned->rehearsal.problem.empty()) code = kExitProblem;
    if (command.json) {
      all.push_back(to_json(*planned));
    } else {
      io.out << plan_text(*planned, io.style);
    }
  }
  if (command.json) io.out << json{{"models", std::move(all)}}.dump(2) << "\n";
  for (const std::string& other : manifest->others) {
    if (!command.json) io.out << "not looked at: " << printable(other) << "\n";
  }
  return code;
}

}  // namespace dsm::ctl
