// plan_tenant() as tables: what is written for which tenant in which world.
#include "operator/plan/tenant.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/random.h"
#include "operator/api/names.h"
#include "operator/api/tenant_status.h"
#include "operator/plan/new_child.h"
#include "operator/plan/tenant_keys.h"

namespace dsm::plan {
namespace {

using nlohmann::json;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

TenantPointer tenant(const std::string& name, const json& spec, const std::string& created = "05") {
  return std::make_shared<const TenantView>(
      tenant_view({{"apiVersion", api::kApiVersion},
                   {"kind", api::kTenantKind},
                   {"metadata",
                    {{"name", name},
                     {"uid", "uid-" + name},
                     {"generation", 1},
                     {"creationTimestamp", "2026-01-" + created + "T00:00:00Z"}}},
                   {"spec", spec}}));
}

json ns(const std::string& name, const json& labels = json::object()) {
  return {{"metadata", {{"name", name}, {"uid", "uid-" + name}, {"labels", labels}}}};
}

// A world that takes what a plan writes, as the API server would.
class World : public testing::Test {
 protected:
  World() {
    seen.name = "a";
    seen.config = {.owner_role = "tenant-owner", .operator_namespace = "system"};
    seen.now = from_rfc3339("2026-02-01T00:00:00Z");
    seen.namespaces = {ns("team-a", {{"kubernetes.io/metadata.name", "team-a"}})};
    be({{"namespaces", {"team-a"}}});
  }

  void be(const json& spec) {
    const json status = seen.tenant ? seen.tenant->object.value("status", json()) : json();
    json object = tenant("a", spec)->object;
    if (!status.is_null()) object["status"] = status;
    seen.tenant = std::make_shared<const TenantView>(tenant_view(object));
  }

  // One look, carried out; "verb Kind name" of each write.
  std::vector<std::string> look() {
    const TenantPlan plan = plan_tenant(seen);
    std::vector<std::string> done;
    for (const TenantRemoval& removal : plan.remove) {
      done.push_back("remove " + removal.kind + " " + removal.ns + "/" + removal.name);
      std::erase_if(seen.children, [&](const json& child) {
        return child["kind"] == removal.kind && child["metadata"]["uid"] == removal.uid;
      });
    }
    for (const ChildWrite& write : plan.writes) {
      const bool merge = write.verb == ChildWrite::Verb::kMerge;
      const bool create = makes(write);
      done.push_back((create  ? "create "
                      : merge ? "merge "
                              : "apply ") +
                     write.kind + " " + object_name(write.object));
      json object = write.object;
      if (merge) {
        object = child(write.kind, write.name);
        object.merge_patch(write.object);
      }
      take(std::move(object));
    }
    if (plan.status) {
      json object = seen.tenant->object;
      object["status"] = *plan.status;
      seen.tenant = std::make_shared<const TenantView>(tenant_view(object));
    }
    requeue_after = plan.requeue_after;
    return done;
  }

  void settle() {
    for (int i = 0; i < 5; ++i) {
      if (plan_tenant(seen).quiet()) return;
      look();
    }
    FAIL() << "it never rests";
  }

  std::string ready() const {
    const api::TenantStatus status = status_of();
    for (const auto& condition : status.conditions) {
      if (condition.type == api::kReady) {
        return std::string(api::to_string(condition.status)) + "/" + condition.reason;
      }
    }
    return "";
  }
  std::string message() const {
    const api::TenantStatus status = status_of();
    return status.conditions.empty() ? "" : status.conditions.front().message;
  }
  api::TenantStatus status_of() const {
    return api::parse_tenant_status(seen.tenant->object.value("status", json()));
  }
  json& child(const std::string& kind, const std::string& name) {
    for (json& object : seen.children) {
      if (object["kind"] == kind && object["metadata"]["name"] == name) return object;
    }
    throw std::runtime_error("no " + kind + " " + name);
  }

  TenantObserved seen;
  Millis requeue_after{0};

 private:
  void take(json object) {
    if (object["kind"] == "Namespace") {
      for (json& space : seen.namespaces) {
        if (space["metadata"]["name"] != object["metadata"]["name"]) continue;
        json& labels = space["metadata"]["labels"];
        // What this manager does not say any more goes.
        labels.erase(std::string(api::kTenantLabel));
        labels.erase(std::string(api::kPodSecurityLabel));
        labels.update(object["metadata"].value("labels", json::object()));
      }
      return;
    }
    const std::string name = object_name(object);
    std::erase_if(seen.children, [&](const json& other) {
      return other["kind"] == object["kind"] && object_name(other) == name;
    });
    object["metadata"]["uid"] = "uid-" + name;
    seen.children.push_back(std::move(object));
  }
};

TEST_F(World, a_namespace_gets_labels_and_walls_and_then_nothing_is_written) {
  EXPECT_THAT(look(), ElementsAre("apply Namespace /team-a",
                                  "create NetworkPolicy team-a/deepseek-tenant-default-deny",
                                  "create NetworkPolicy team-a/deepseek-tenant-serving",
                                  "create NetworkPolicy team-a/deepseek-tenant-clients"));
  EXPECT_EQ(ready(), "Unknown/Applying");
  EXPECT_THAT(look(), IsEmpty());
  EXPECT_EQ(ready(), "True/AllNamespacesReady");
  EXPECT_TRUE(plan_tenant(seen).quiet());
  EXPECT_EQ(seen.namespaces[0]["metadata"]["labels"],
            json({{"kubernetes.io/metadata.name", "team-a"},
                  {"deepseek-operator.io/tenant", "a"},
                  {"pod-security.kubernetes.io/enforce", "restricted"}}));
  EXPECT_EQ(status_of().namespaces, "1/1");
}

TEST_F(World, budget_and_owners_have_objects_of_their_own) {
  be({{"namespaces", {"team-a"}},
      {"budget", {{"resources", {{"nvidia.com/gpu", 4}, {"cpu", "1000m"}}}}},
      {"owners",
       {{{"name", "alice"}}, {{"kind", "ServiceAccount"}, {"name", "ci"}, {"namespace", "x"}}}}});
  settle();
  EXPECT_EQ(child("ResourceQuota", "deepseek-tenant")["spec"]["hard"],
            json({{"requests.nvidia.com/gpu", "4"}, {"requests.cpu", "1000m"}}));
  EXPECT_EQ(child("LimitRange", "deepseek-tenant")["spec"]["limits"][0]["defaultRequest"],
            json({{"cpu", "100m"}}));
  const json& binding = child("RoleBinding", "deepseek-tenant-owners");
  EXPECT_EQ(binding["roleRef"]["name"], "tenant-owner");
  EXPECT_EQ(binding["subjects"][0]["apiGroup"], "rbac.authorization.k8s.io");
  EXPECT_EQ(binding["subjects"][1]["namespace"], "x");
  for (const json& object : seen.children) {
    EXPECT_EQ(object["metadata"]["ownerReferences"][0]["uid"], "uid-a");
  }
  // The API server writes quantities in a form of its own.
  child("ResourceQuota", "deepseek-tenant")["spec"]["hard"]["requests.cpu"] = "1";
  EXPECT_TRUE(plan_tenant(seen).quiet());
}

TEST_F(World, drift_is_mended) {
  be({{"namespaces", {"team-a"}},
      {"budget", {{"resources", {{"cpu", "1"}}}}},
      {"owners", {{{"name", "alice"}}}}});
  settle();
  child("ResourceQuota", "deepseek-tenant")["spec"]["hard"]["requests.cpu"] = "100";
  EXPECT_THAT(look(), ElementsAre("apply ResourceQuota team-a/deepseek-tenant"));
  child("NetworkPolicy", "deepseek-tenant-default-deny")["spec"]["podSelector"] = {
      {"matchLabels", {{"nobody", "here"}}}};
  EXPECT_THAT(look(), ElementsAre("apply NetworkPolicy team-a/deepseek-tenant-default-deny"));
  child("RoleBinding", "deepseek-tenant-owners")["subjects"].push_back({{"name", "mallory"}});
  EXPECT_THAT(look(), ElementsAre("apply RoleBinding team-a/deepseek-tenant-owners"));
  child("RoleBinding", "deepseek-tenant-owners")["roleRef"]["name"] = "cluster-admin";
  EXPECT_THAT(look(), ElementsAre("remove RoleBinding team-a/deepseek-tenant-owners"));
  EXPECT_THAT(look(), ElementsAre("create RoleBinding team-a/deepseek-tenant-owners"));
  seen.namespaces[0]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = "privileged";
  EXPECT_THAT(look(), ElementsAre("apply Namespace /team-a"));
}

TEST_F(World, serving_needs_these_paths_and_no_others) {
  be({{"namespaces", {"team-a"}},
      {"clients", {{"namespaces", {"ingress"}}, {"cidrs", {"10.0.0.0/8"}}}}});
  settle();
  const json deny = child("NetworkPolicy", "deepseek-tenant-default-deny")["spec"];
  EXPECT_EQ(deny, json({{"podSelector", json::object()}, {"policyTypes", {"Ingress", "Egress"}}}));
  const json in = child("NetworkPolicy", "deepseek-tenant-serving")["spec"]["ingress"];
  ASSERT_EQ(in.size(), 3u);
  EXPECT_EQ(in[0], json::parse(R"({"from": [{"podSelector": {"matchLabels":
                     {"app.kubernetes.io/name": "deepseek-worker"}}}]})"));
  EXPECT_EQ(in[1], json::parse(R"({"from": [{"namespaceSelector": {"matchLabels":
                     {"kubernetes.io/metadata.name": "system"}}, "podSelector": {"matchLabels":
                     {"app.kubernetes.io/name": "deepseek-operator"}}}],
                     "ports": [{"port": 8001, "protocol": "TCP"}]})"));
  EXPECT_EQ(in[2]["ports"], json::parse(R"([{"port": 8000, "protocol": "TCP"},
                                             {"port": 50051, "protocol": "TCP"}])"));
  EXPECT_EQ(in[2]["from"], json::parse(R"([
      {"namespaceSelector": {"matchLabels": {"deepseek-operator.io/tenant": "a"}}},
      {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}},
      {"ipBlock": {"cidr": "10.0.0.0/8"}}])"));
}

TEST_F(World, a_resource_that_leaves_the_budget_leaves_the_quota) {
  be({{"namespaces", {"team-a"}},
      {"budget", {{"resources", {{"cpu", 32}, {"nvidia.com/gpu", 8}}}}}});
  settle();
  json& quota = child("ResourceQuota", "deepseek-tenant");
  quota["spec"]["hard"]["pods"] = "10";  // of somebody else
  be({{"namespaces", {"team-a"}}, {"budget", {{"resources", {{"cpu", 32}}}}}});
  EXPECT_THAT(look(), Contains("merge ResourceQuota team-a/deepseek-tenant"));
  EXPECT_EQ(child("ResourceQuota", "deepseek-tenant")["spec"]["hard"],
            (json{{"requests.cpu", "32"}, {"pods", "10"}}));
  settle();
}

TEST_F(World, a_priority_with_a_value_is_a_class_that_is_made_again_for_another_value) {
  be({{"namespaces", {"team-a"}}, {"priority", {{"value", 5}}}});
  settle();
  EXPECT_EQ(child("PriorityClass", "deepseek-tenant-a")["value"], 5);
  be({{"namespaces", {"team-a"}}, {"priority", {{"value", 6}}}});
  EXPECT_THAT(look(), ElementsAre("remove PriorityClass /deepseek-tenant-a"));
  EXPECT_THAT(look(), ElementsAre("create PriorityClass /deepseek-tenant-a"));
  be({{"namespaces", {"team-a"}}, {"priority", {{"className", "high"}}}});
  EXPECT_THAT(look(), ElementsAre("remove PriorityClass /deepseek-tenant-a"));
  EXPECT_EQ(priority_class_of(*seen.tenant), "high");
}

TEST_F(World, a_namespace_that_is_not_named_any_more_is_let_go) {
  seen.namespaces.push_back(ns("team-b"));
  be({{"namespaces", {"team-a", "team-b"}}});
  settle();
  be({{"namespaces", {"team-a"}}});
  EXPECT_THAT(look(),
              UnorderedElementsAre("apply Namespace /team-b",
                                   "remove NetworkPolicy team-b/deepseek-tenant-default-deny",
                                   "remove NetworkPolicy team-b/deepseek-tenant-serving",
                                   "remove NetworkPolicy team-b/deepseek-tenant-clients"));
  settle();
  EXPECT_EQ(seen.namespaces[1]["metadata"]["labels"], json::object());
}

TEST_F(World, a_tenant_that_is_gone_leaves_no_labels) {
  settle();
  seen.tenant = nullptr;
  seen.children.clear();  // the garbage collector's work
  const TenantPlan plan = plan_tenant(seen);
  EXPECT_FALSE(plan.status);
  ASSERT_EQ(plan.writes.size(), 1u);
  EXPECT_EQ(plan.writes[0].object,
            json({{"apiVersion", "v1"},
                  {"kind", "Namespace"},
                  {"metadata", {{"name", "team-a"}, {"uid", "uid-team-a"}}}}))
      << "an apply that says no label takes ours off";
  EXPECT_THAT(look(), ElementsAre("apply Namespace /team-a"));
  EXPECT_TRUE(plan_tenant(seen).quiet());
}

TEST_F(World, what_is_missing_or_somebody_elses_is_said) {
  be({{"namespaces", {"team-a", "absent"}}});
  settle();
  EXPECT_EQ(ready(), "False/NamespaceMissing");
  EXPECT_THAT(message(), HasSubstr("absent"));
  EXPECT_EQ(status_of().namespaces, "1/2");

  seen.owned_by_other["team-a"] = "older";
  EXPECT_THAT(look(), testing::Contains("apply Namespace /team-a")) << "its label is not ours";
  settle();
  EXPECT_EQ(ready(), "False/NamespaceOwnedByOther");
  EXPECT_THAT(message(), HasSubstr("tenant older"));
  EXPECT_THAT(seen.children, IsEmpty());

  seen.owned_by_other.clear();
  be({{"namespaces", {"team-a"}}, {"budget", {{"models", -1}}}});
  settle();
  EXPECT_EQ(ready(), "False/InvalidSpec");
  EXPECT_THAT(message(), HasSubstr("spec.budget.models"));

  be({{"namespaces", {"system"}}});
  seen.namespaces.push_back(ns("system"));
  settle();
  EXPECT_EQ(ready(), "False/InvalidSpec");
  EXPECT_THAT(message(), HasSubstr("the operator itself"));
}

TEST_F(World, a_wrong_spec_leaves_the_walls_standing) {
  settle();
  const auto before = seen.children.size();
  be({{"namespaces", {"team-a"}}, {"keys", 5}});
  EXPECT_THAT(look(), IsEmpty());
  EXPECT_EQ(seen.children.size(), before);
}

TEST_F(World, somebody_elses_object_of_the_name_is_left_alone) {
  json foreign = {
      {"apiVersion", "networking.k8s.io/v1"},
      {"kind", "NetworkPolicy"},
      {"metadata", {{"name", "deepseek-tenant-serving"}, {"namespace", "team-a"}, {"uid", "x"}}},
      {"spec", {{"podSelector", json::object()}}}};
  seen.children.push_back(foreign);
  settle();
  EXPECT_EQ(ready(), "False/NameConflict");
  EXPECT_EQ(child("NetworkPolicy", "deepseek-tenant-serving"), foreign);
  look();
  EXPECT_EQ(requeue_after, Millis(15'000));
}

TEST_F(World, a_refused_write_is_said_and_tried_again_later) {
  seen.failures.push_back({"NetworkPolicy", "team-a/deepseek-tenant-serving", ErrorKind::kDenied,
                           "no", seen.now - Seconds(5)});
  EXPECT_THAT(look(), testing::Not(testing::Contains(HasSubstr("serving"))));
  EXPECT_EQ(ready(), "False/WriteRefused");
  EXPECT_EQ(requeue_after, Millis(10'000));
  seen.now += Seconds(10);
  EXPECT_THAT(look(), ElementsAre("create NetworkPolicy team-a/deepseek-tenant-serving"));
}

TEST_F(World, keys_that_open_nothing_are_said) {
  seen.key_mistakes = {"Secret team-a/deepseek-api-keys: entry x opens nothing"};
  settle();
  EXPECT_EQ(ready(), "False/InvalidKeys");
}

TEST(Tenancy, a_namespace_is_the_oldest_tenants_that_names_it) {
  const std::vector<TenantPointer> tenants = {tenant("young", {{"namespaces", {"x", "y"}}}, "09"),
                                              tenant("old", {{"namespaces", {"x"}}}, "02"),
                                              tenant("twin", {{"namespaces", {"x"}}}, "02")};
  EXPECT_EQ(tenant_of(tenants, "x")->name, "old");
  EXPECT_EQ(tenant_of(tenants, "y")->name, "young");
  EXPECT_EQ(tenant_of(tenants, "z"), nullptr);
}

TEST(Tenancy, a_refusal_names_the_field_and_the_tenant) {
  const auto strict =
      tenant("a", {{"namespaces", {"x"}},
                   {"allowed", {{"models", {"pvc://weights/*"}}, {"accelerators", {"cpu"}}}},
                   {"priority", {{"value", 1}}}});
  api::Spec spec;
  spec.model.uri = "pvc://weights/r1";
  EXPECT_EQ(not_allowed(*strict, spec), "");
  spec.placement.priority_class_name = "deepseek-tenant-a";
  EXPECT_EQ(not_allowed(*strict, spec), "");
  spec.placement.priority_class_name = "high";
  EXPECT_THAT(not_allowed(*strict, spec), HasSubstr("spec.placement.priorityClassName: high"));
  const auto plain = tenant("b", {{"namespaces", {"y"}}});
  spec.placement.priority_class_name = "deepseek-tenant-a";
  EXPECT_THAT(not_allowed(*plain, spec), HasSubstr("leave it out: the tenant has none"));
  spec.placement.priority_class_name = "high";
  spec.accelerator.resource = "nvidia.com/gpu";
  EXPECT_THAT(not_allowed(*strict, spec), HasSubstr("spec.accelerator.resource: nvidia.com/gpu"));
  spec.model.uri = "image:///models/tiny";
  EXPECT_THAT(not_allowed(*strict, spec), HasSubstr("spec.model.uri: image:///models/tiny"));
  EXPECT_THAT(not_allowed(*strict, spec), HasSubstr("tenant a"));
  spec.model.uri = "pvc://weights/r1";
  spec.adapters = {{"sql", "pvc://weights/sql"}, {"law", "pvc://others/law"}};
  EXPECT_THAT(not_allowed(*strict, spec), HasSubstr("spec.adapters[1].uri: pvc://others/law"));
  const auto wrong = tenant("b", {{"namespaces", {"x"}}, {"budget", 5}});
  EXPECT_THAT(not_allowed(*wrong, spec), HasSubstr("spec of tenant b is wrong"));
  EXPECT_THAT(wrong->namespaces, ElementsAre("x"));
}

TEST(TenantKeys, a_message_has_hashes_and_never_a_key) {
  const auto owner = tenant("a", {{"namespaces", {"x"}}});
  const ApiKeys keys = api_keys("x", {{"alice", "sk-0123456789abcdef\n"}, {"short", "123"}});
  ASSERT_EQ(keys.hashes.size(), 1u);
  EXPECT_EQ(keys.hashes.at("alice"), sha256_hex("sk-0123456789abcdef"));
  EXPECT_THAT(keys.mistakes, ElementsAre(HasSubstr("entry short opens nothing")));
  const KeyMessage message = key_message(owner.get(), &keys, "token");
  EXPECT_THAT(message.body, testing::Not(HasSubstr("sk-0123456789abcdef")));
  EXPECT_THAT(message.body, testing::Not(HasSubstr(keys.hashes.at("alice"))));
  const json body = json::parse(message.body);
  EXPECT_EQ(body["digest"], message.digest);
  EXPECT_EQ(body["required"], true);
  EXPECT_EQ(body["keys"][0],
            hmac_sha256_hex(body["hashSalt"].get<std::string>(), keys.hashes.at("alice")));
  // The same as long as nothing changed, another for another model or tenant.
  EXPECT_EQ(key_message(owner.get(), &keys, "token").body, message.body);
  EXPECT_NE(json::parse(key_message(owner.get(), &keys, "other").body)["cacheSalt"],
            body["cacheSalt"]);
  EXPECT_NE(json::parse(key_message(tenant("b", {{"namespaces", {"x"}}}).get(), &keys, "token")
                            .body)["cacheSalt"],
            body["cacheSalt"]);
}

TEST(TenantKeys, a_leader_is_told_when_it_reports_something_else) {
  const auto owner = tenant("a", {{"namespaces", {"x"}}});
  const KeyMessage closed = key_message(owner.get(), nullptr, "token");
  EXPECT_EQ(json::parse(closed.body)["keys"], json::array());
  EXPECT_TRUE(must_be_told(closed, ""));
  EXPECT_TRUE(must_be_told(closed, std::string(kKeysAwaited)));
  EXPECT_FALSE(must_be_told(closed, closed.digest));
  const KeyMessage open = key_message(nullptr, nullptr, "token");
  EXPECT_FALSE(must_be_told(open, "")) << "it answers everybody already";
  EXPECT_TRUE(must_be_told(open, std::string(kKeysAwaited)));
  EXPECT_TRUE(must_be_told(open, closed.digest)) << "its namespace has left the tenant";
  EXPECT_FALSE(must_be_told(open, open.digest));
  const auto lenient = tenant("a", {{"namespaces", {"x"}}, {"keys", {{"required", false}}}});
  const json body = json::parse(key_message(lenient.get(), nullptr, "token").body);
  EXPECT_EQ(body["required"], false);
  EXPECT_FALSE(body["cacheSalt"].get<std::string>().empty());
}

}  // namespace
}  // namespace dsm::plan
