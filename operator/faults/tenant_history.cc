#include "operator/faults/tenant_history.h"

#include <array>

#include "operator/faults/tenant_promise.h"

namespace dsm::faults {
namespace {

constexpr const char* kGpu = "example.com/gpu";
constexpr const char* kShared = "c1";

struct Home {
  const char* ns;
  const char* model;
};
constexpr std::array<Home, 5> kHomes = {
    {{"a1", "m1"}, {"a1", "m2"}, {"a2", "m3"}, {"b1", "m4"}, {kShared, "m5"}}};

runtime::ModelLoopOptions with_tenants() {
  runtime::ModelLoopOptions options = Replica::loop_options();
  options.tenants = runtime::TenantOptions{
      .plan = {.owner_role = "tenant-owner", .operator_namespace = "operator"}, .metrics = nullptr};
  return options;
}

class TenantHistory {
 public:
  TenantHistory(unsigned seed, plan::Harm harm)
      : stage_(seed, harm, with_tenants()), promises_(stage_.world) {
    stage_.world.also_check = [this] { promises_.check_second(); };
    stage_.world.excused = [this](const Json& model) { return promises_.is_cramped(model); };
  }

  HistoryResult run() {
    return play(stage_, {.begin = [this] { begin(); },
                         .every = 4,
                         .act = [this] { act(); },
                         .end = [this] { become_quiet(); }});
  }

 private:
  ApiServer& server() { return stage_.server(); }
  void log(const std::string& what) { stage_.log(what); }
  bool one_in(int n) { return stage_.one_in(n); }
  int below(int end) { return stage_.below(end); }

  void begin() {
    for (const char* const ns : {"a1", "a2", "b1", kShared}) {
      make(kube::kNamespaces, {{"metadata", {{"name", ns}}}});
    }
    make_tenant("a");
    make_tenant("b");
    for (const Home& home : kHomes) make_model(home);
  }

  void make(const kube::Resource& resource, Json object) {
    object["apiVersion"] = resource.api_version();
    object["kind"] = resource.kind;
    server().answer(kube::create_request(resource, "", object.dump(), "user"));
  }
  const Json* tenant(const std::string& name) {
    return server().objects().find(kube::kDeepSeekTenants, name);
  }

  // ---- tenants

  // Of the one resource that all models ask for, sometimes of their CPUs, which they do not say,
  // and sometimes of models.
  Json some_budget() {
    Json budget = {{"resources", {{kGpu, std::to_string(2 + below(9))}, {"cpu", nullptr}}},
                   {"models", nullptr}};
    if (one_in(4)) budget["resources"]["cpu"] = std::to_string(2 + below(8)) + "00m";
    if (one_in(4)) budget["models"] = 1 + below(3);
    return budget;
  }

  static Json own_namespaces(const std::string& name) {
    return name == "a" ? Json({"a1", "a2"}) : Json::array({"b1"});
  }

  void make_tenant(const std::string& name) {
    Json spec = {{"namespaces", own_namespaces(name)}};
    spec.merge_patch({{"budget", some_budget()}});
    log("make tenant " + name + " " + spec.dump());
    make(kube::kDeepSeekTenants, {{"metadata", {{"name", name}}}, {"spec", std::move(spec)}});
  }

  void edit_tenant(const std::string& name, const Json& patch) {
    log("tenant " + name + " " + patch.dump());
    server().answer(kube::merge_patch_request(kube::kDeepSeekTenants, "", name,
                                              Json{{"spec", patch}}.dump(), "user"));
  }

  void remove_tenant(const std::string& name) {
    log("delete tenant " + name);
    server().answer(kube::delete_request(kube::kDeepSeekTenants, "", name, {}));
  }

  void act_on_a_tenant() {
    const std::string name = one_in(3) ? "b" : "a";
    if (tenant(name) == nullptr) return make_tenant(name);
    switch (below(9)) {
      case 0:
        return remove_tenant(name);
      case 1:
      case 2: {
        Json namespaces = own_namespaces(name);
        if (one_in(2)) namespaces.push_back(kShared);
        return edit_tenant(name, {{"namespaces", std::move(namespaces)}});
      }
      case 3:
        return edit_tenant(name, {{"owners", {{{"kind", "User"}, {"name", "u"}}}}});
      case 4:
        return edit_tenant(name, {{"owners", nullptr}, {"priority", {{"value", 1 + below(2)}}}});
      default:
        return edit_tenant(name, {{"budget", some_budget()}});
    }
  }

  // ---- models

  static std::string key(const Home& home) { return std::string(home.ns) + "/" + home.model; }

  void make_model(const Home& home) {
    log("make " + key(home));
    server().make_model(home.ns, home.model,
                        {{"model", {{"uri", "image:///models/deepseek-tiny"}}},
                         {"parallelism", {{"tensor", 1 + below(2)}}},
                         {"replicas", 1 + below(2)},
                         {"template", {{"resources", {{"requests", {{kGpu, "1"}}}}}}}});
  }

  void edit(const Home& home, const Json& patch) {
    log(key(home) + " " + patch.dump());
    server().edit_model(key(home), patch);
  }

  void act_on_a_model() {
    const Home& home = stage_.one_of(kHomes);
    const Json* const model = server().objects().find(kube::kDeepSeekModels, key(home));
    if (model == nullptr) return make_model(home);
    if (model->at("metadata").contains("deletionTimestamp")) return;
    switch (below(10)) {
      case 0:
      case 1:
      case 2:
        return edit(home, {{"replicas", below(4)}});
      case 3:
      case 4:
        return edit(home, {{"image", "worker:" + std::to_string(1 + below(4))}});
      case 5: {
        const std::string gpus = std::to_string(1 + below(2));
        return edit(home, {{"template", {{"resources", {{"requests", {{kGpu, gpus}}}}}}}});
      }
      case 6:
        return edit(home, {{"parallelism", {{"tensor", 1 + below(2)}}}});
      case 7: {
        const int surge = below(3);
        const int unavailable = surge == 0 ? 1 : below(2);
        return edit(home, {{"rollout", {{"maxSurge", surge}, {"maxUnavailable", unavailable}}}});
      }
      case 8:
        return edit(home, {{"rollout", {{"paused", one_in(2)}}}});
      default: {
        const bool foreground = one_in(2);
        log(std::string(foreground ? "delete in the foreground " : "delete ") + key(home));
        return server().delete_model(key(home), foreground);
      }
    }
  }

  void act() {
    if (one_in(3)) return act_on_a_tenant();
    if (one_in(8)) return stage_.troubles.empty_or_mend_a_node();
    if (stage_.world.harm && one_in(4)) return stage_.troubles.harm_a_pod();
    act_on_a_model();
  }

  // ---- the end

  bool rest(const std::string& when) {
    stage_.world.run(Seconds(400), Seconds(1));  // what waits for room is tried again meanwhile
    return stage_.rest(when);
  }

  void become_quiet() {
    stage_.end_faults();
    for (const Home& home : kHomes) {
      server().edit_model(key(home), {{"rollout", {{"paused", false}}}});
    }
    stage_.world.run(Seconds(60));  // whoever stands still goes on
    if (!rest("with its budgets")) return;
    promises_.check_end();
    for (const char* const name : {"a", "b"}) {
      if (tenant(name) != nullptr)
        edit_tenant(
            name,
            {{"budget", {{"resources", {{kGpu, "1000"}, {"cpu", nullptr}}}, {"models", nullptr}}}});
    }
    if (!rest("with room for all")) return;
    stage_.check_stillness();
    promises_.check_end();
    stage_.world.check_end();
    for (const char* const name : {"a", "b"}) remove_tenant(name);
    if (!rest("without tenants")) return;
    promises_.check_end();
    stage_.world.check_end();
  }

  Stage stage_;
  TenantPromises promises_;
};

}  // namespace

HistoryResult play_tenant_history(unsigned seed, plan::Harm harm) {
  return TenantHistory(seed, harm).run();
}

}  // namespace dsm::faults
