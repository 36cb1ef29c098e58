#include "ctl/observe.h"

#include <algorithm>
#include <memory>

#include "ctl/objects.h"
#include "ctl/tenant_grant.h"
#include "operator/api/names.h"
#include "operator/plan/children.h"

namespace dsm::ctl {
namespace {

using nlohmann::json;
using Objects = std::vector<json>;

// What plan() calls the image of models that name none; it is shown, never pulled.
constexpr const char* kSomeImage = "the-operators-default";
// Whose an API is that is not ours: its listing does not say.
constexpr const char* kSomebody = "another server";

class Observer {
 public:
  Observer(Cluster& cluster, const json& model) : cluster_(cluster), model_(model) {
    o_.model = model;
    o_.now = cluster.client().clock().wall_now();
    o_.config.worker_image = kSomeImage;
    o_.config.worker_image_cuda = kSomeImage;
  }

  Result<Seen> observe() {
    for (const auto& step : {&Observer::own_objects, &Observer::metrics, &Observer::pod_groups,
                             &Observer::queue, &Observer::tenant}) {
      if (Status done = (this->*step)(); !done) return std::unexpected(done.error());
    }
    return Seen{std::move(o_), std::move(notes_)};
  }

 private:
  void add(const Objects& objects) {
    o_.children.insert(o_.children.end(), objects.begin(), objects.end());
  }
  bool asks_for(const char* pointer) const { return !part(model_, pointer).is_null(); }

  // What may not be read is noted, and `otherwise` stands in its place.
  template <typename T>
  Result<T> or_note(Result<T> read, T otherwise, const std::string& unknown) {
    if (read || read.error().kind != ErrorKind::kDenied) return read;
    notes_.push_back(unknown + ": " + read.error().message);
    return otherwise;
  }

  Status own_objects() {
    const std::string name = name_of(model_);
    const auto pods = cluster_.pods(name);
    if (!pods) return std::unexpected(pods.error());
    for (const json& pod : *pods) o_.pods.push_back(plan::pod_view(pod));
    const auto services = cluster_.services(name);
    if (!services) return std::unexpected(services.error());
    const auto revisions = cluster_.revisions(name);
    if (!revisions) return std::unexpected(revisions.error());
    add(*services);
    add(*revisions);
    Result<json> secret = cluster_.token_secret(name);
    if (!secret && secret.error().kind == ErrorKind::kDenied) {
      // Many may look after models but not at Secrets. It is taken as there, which it nearly always
      // is.
      secret = plan::token_secret_json({name, cluster_.ns(), uid_of(model_)}, "");
    }
    if (!secret) return std::unexpected(secret.error());
    if (!secret->is_null()) o_.children.push_back(*std::move(secret));
    return {};
  }

  Status metrics() {
    const auto there = or_note(cluster_.autoscaler(name_of(model_)), json(),
                               "whether there is a HorizontalPodAutoscaler (taken as absent)");
    if (!there) return std::unexpected(there.error());
    if (!there->is_null()) add({*there});
    if (there->is_null() && !asks_for("/spec/scaling")) return {};
    using Names = std::optional<std::vector<std::string>>;
    const Result<Names> external = cluster_.resources_of("external.metrics.k8s.io/v1beta1");
    const Result<Names> custom = cluster_.resources_of("custom.metrics.k8s.io/v1beta2");
    if (external && custom) {
      o_.metrics_api = metrics_api_of(*external, *custom);
    } else {
      notes_.push_back("who serves the metrics of autoscalers, so whether one is made: " +
                       (external ? custom : external).error().message);
    }
    return {};
  }

  Status pod_groups() {
    if (text_at(model_, "/spec/placement/schedulerName").empty()) return {};
    const auto kinds = cluster_.resources_of(kube::kPodGroups.api_version());
    if (!kinds) return std::unexpected(kinds.error());
    o_.pod_groups =
        *kinds && std::ranges::find(**kinds, kube::kPodGroups.plural) != (*kinds)->end();
    if (!o_.pod_groups) return {};
    const auto groups = or_note(cluster_.of_model(kube::kPodGroups, name_of(model_)), Objects(),
                                "which PodGroups there are (taken as none)");
    if (!groups) return std::unexpected(groups.error());
    add(*groups);
    return {};
  }

  Status queue() {
    const std::string queue = text_at(model_, "/spec/placement/queueName");
    if (queue.empty()) return {};
    const auto kueue = cluster_.resources_of(kube::kOldWorkloads.api_version());
    const auto newer = cluster_.resources_of(kube::kWorkloads.api_version());
    if (!kueue || !newer) return std::unexpected((kueue ? newer : kueue).error());
    notes_.push_back(*kueue || *newer ? "when queue " + queue + " of Kueue admits the groups"
                                      : "queue " + queue + ": there is no Kueue in this cluster");
    return {};
  }

  Status tenant() {
    const auto objects = or_note(cluster_.tenants(), Objects(),
                                 "whether a tenant lets it run and has room (taken as so)");
    if (!objects) return std::unexpected(objects.error());
    std::vector<plan::TenantPointer> tenants;
    for (const json& object : *objects) {
      tenants.push_back(std::make_shared<const plan::TenantView>(plan::tenant_view(object)));
    }
    TenantWorld world{plan::tenant_of(tenants, cluster_.ns()), {}, {}, {}};
    if (!world.tenant) return {};
    for (const std::string& ns : world.tenant->namespaces) {
      const plan::TenantPointer owner = plan::tenant_of(tenants, ns);
      if (owner != world.tenant) continue;
      if (Status read = read_namespace(ns, world); !read) return read;
    }
    o_.tenant = grant_of(world, model_, o_.now);
    return {};
  }

  Status read_namespace(const std::string& ns, TenantWorld& world) {
    Cluster there = cluster_.in(ns);
    const std::string unknown =
        "what tenant " + world.tenant->name + " uses in namespace " + ns + " (taken as nothing)";
    auto models = or_note(there.models(false), Objects(), unknown);
    if (!models) return std::unexpected(models.error());
    auto pods = or_note(there.pods(""), Objects(), unknown);
    if (!pods) return std::unexpected(pods.error());
    auto revisions = or_note(there.revisions(""), Objects(), unknown);
    if (!revisions) return std::unexpected(revisions.error());
    const auto append = [](Objects& to, Objects& from) {
      std::ranges::move(from, std::back_inserter(to));
    };
    append(world.models, *models);
    append(world.pods, *pods);
    append(world.revisions, *revisions);
    return {};
  }

  Cluster& cluster_;
  const json& model_;
  plan::Observed o_;
  std::vector<std::string> notes_;
};

}  // namespace

Result<Seen> observe(Cluster& cluster, const json& model) {
  return Observer(cluster, model).observe();
}

plan::MetricsApi metrics_api_of(const std::optional<std::vector<std::string>>& external,
                                const std::optional<std::vector<std::string>>& custom) {
  using State = plan::MetricsApi::State;
  const std::string queue(api::kQueueDepthMetric);
  const std::string of_models =
      std::string(api::kPlural) + "." + std::string(api::kGroup) + "/" + queue;
  const auto lists = [](const auto& names, const std::string& name) {
    return names && std::ranges::find(*names, name) != names->end();
  };
  if (lists(external, queue)) return {State::kOurs};
  if (lists(custom, of_models)) return {State::kCustom, kSomebody};
  if (external && custom) return {State::kForeign, kSomebody, kSomebody};
  return {State::kOff};  // an operator that serves metrics would have taken the one that is free
}

}  // namespace dsm::ctl
