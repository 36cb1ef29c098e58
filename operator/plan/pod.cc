#include "operator/plan/pod.h"

#include <algorithm>
#include <cctype>

#include "operator/api/names.h"
#include "operator/plan/accelerator.h"
#include "operator/plan/coscheduling.h"
#include "operator/plan/kueue.h"

namespace dsm::plan {
namespace {

using nlohmann::json;

constexpr const char* kModelMount = "/var/lib/deepseek/model";
constexpr const char* kAdapterMounts = "/var/lib/deepseek/adapters/";  // and the claim's name
constexpr int kMaxLoraRank = 256;  // as large as adapters are made; scratch memory of a few MiB
constexpr int kUser = 65532;

// A claim with weights. It is mounted once, however many adapters are on it.
struct Claim {
  std::string name;
  std::string volume;
  std::string mount;
};

// A spec that was parsed has readable uris.
api::ModelLocation location(const std::string& uri) {
  return api::parse_uri(uri).value();
}

std::vector<Claim> claims_of(const api::Spec& spec) {
  using Kind = api::ModelLocation::Kind;
  std::vector<Claim> claims;
  if (const auto at = location(spec.model.uri); at.kind == Kind::kClaim) {
    claims.push_back({at.claim, "model", kModelMount});
  }
  for (const api::Adapter& adapter : spec.adapters) {
    const auto at = location(adapter.uri);
    const bool known = std::ranges::find(claims, at.claim, &Claim::name) != claims.end();
    if (at.kind != Kind::kClaim || known) continue;
    // A claim may have a longer name than a volume.
    const std::string volume = "adapters-" + std::to_string(claims.size());
    claims.push_back({at.claim, volume, kAdapterMounts + at.claim});
  }
  return claims;
}

// Where the container finds what is at `uri`.
std::string folder(const std::string& uri, const std::vector<Claim>& claims) {
  const api::ModelLocation at = location(uri);
  if (at.kind == api::ModelLocation::Kind::kImage) return at.path;
  const std::string& mount = std::ranges::find(claims, at.claim, &Claim::name)->mount;
  return at.path.empty() ? mount : mount + "/" + at.path;
}

// Names and paths have no commas, names no '='.
// Null: the worker's own.
const char* kv_cache_dtype(const api::Engine& engine) {
  if (engine.kv_cache_dtype == "FP32") return "fp32";
  if (engine.kv_cache_dtype == "BF16") return "bf16";
  return engine.kv_cache_dtype == "FP8" ? "fp8" : nullptr;
}

std::string lora_modules(const api::Spec& spec, const std::vector<Claim>& claims) {
  std::string modules;
  for (const api::Adapter& adapter : spec.adapters) {
    modules += (modules.empty() ? "" : ",") + adapter.name + "=" + folder(adapter.uri, claims);
  }
  return modules;
}

std::string lower_case(std::string text) {
  std::ranges::transform(text, text.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

// The API is the leader's.
bool has_grpc(const Revision& revision, const PodPlace& place) {
  return revision.spec.engine.grpc && place.index == 0;
}

// The worker's command line. What the user left out is left to the worker.
std::vector<std::string> worker_args(const Owner& owner, const Revision& revision,
                                     const PodPlace& place, const std::vector<Claim>& claims) {
  const api::Spec& spec = revision.spec;
  const std::string group = api::group_name(owner.name, revision.name, place.group);
  std::vector<std::string> args;
  const auto add = [&](const char* flag, std::string value) {
    args.emplace_back(flag);
    args.push_back(std::move(value));
  };
  const auto add_number = [&](const char* flag, const std::optional<int>& value) {
    if (value) add(flag, std::to_string(*value));
  };
  add("--model", folder(spec.model.uri, claims));
  add("--served-name", api::served_name(spec, owner.name));
  add("--port", std::to_string(api::kHttpPort));
  add("--internal-port", std::to_string(api::kInternalPort));
  add("--internal-token-file", std::string(api::kTokenFolder) + "/" + std::string(api::kTokenKey));
  add("--tensor-parallel", std::to_string(spec.parallelism.tensor));
  if (spec.pods_per_group() > 1) {
    add("--ranks-per-pod", std::to_string(spec.ranks_per_pod()));
    add("--pod-index", std::to_string(place.index));
    add("--leader-host", group + "-0." + api::ranks_service(owner.name) + "." + owner.ns + ".svc");
    add("--advertise-host", "$(POD_IP)");
    add("--control-port", std::to_string(api::kControlPort));
  }
  add_number("--max-model-len", spec.engine.max_model_len);
  add_number("--max-num-seqs", spec.engine.max_num_seqs);
  add_number("--max-num-batched-tokens", spec.engine.max_num_batched_tokens);
  add_number("--kv-cache-tokens", spec.engine.kv_cache_tokens);
  if (const char* dtype = kv_cache_dtype(spec.engine)) add("--kv-cache-dtype", dtype);
  add("--prefix-caching", spec.engine.prefix_caching ? "true" : "false");
  add("--deterministic", spec.deterministic() ? "true" : "false");
  if (spec.engine.data_parallel_attention) add("--data-parallel-attention", "true");
  if (spec.engine.expert_parallel) add("--expert-parallel", "true");
  add("--threads", std::to_string(spec.engine.threads));
  if (spec.engine.sleep_mode) add("--sleep-mode", "true");
  if (has_grpc(revision, place)) add("--grpc-port", std::to_string(api::kGrpcPort));
  if (!spec.model.chat_template.empty()) add("--chat-template", spec.model.chat_template);
  if (spec.model.quantization != "Auto") {
    add("--weight-quantization", lower_case(spec.model.quantization));
  }
  if (spec.model.activation_quantization != "None") {
    add("--activation-quantization", lower_case(spec.model.activation_quantization));
  }
  if (!spec.adapters.empty()) {
    add("--lora-modules", lora_modules(spec, claims));
    add("--max-loras", std::to_string(spec.adapters.size()));
    add("--max-lora-rank", std::to_string(kMaxLoraRank));
  }
  if (const api::Speculation& guess = spec.engine.speculation; !guess.method.empty()) {
    add("--speculative-method", guess.method == "Mtp" ? "mtp" : "ngram");
    add("--speculative-tokens", std::to_string(guess.tokens));
  }
  add("--drain-timeout", std::to_string(spec.drain_seconds));
  add("--log-format", "json");
  add("--model-name", owner.name);
  add("--namespace", owner.ns);
  add("--group", group);
  add("--revision", revision.name);
  add("--pod-name", group + "-" + std::to_string(place.index));
  return args;
}

// The worker answers health on threads of its own, so a busy engine does not time a probe out.
json probe(const char* path, int period, int timeout, int failures) {
  return {{"httpGet", {{"path", path}, {"port", "http"}}},
          {"periodSeconds", period},
          {"timeoutSeconds", timeout},
          {"failureThreshold", failures}};
}

json container(const Owner& owner, const Revision& revision, const PodPlace& place,
               const std::vector<Claim>& claims, const std::string& pull_policy) {
  const api::Template& wanted = revision.spec.pod_template;
  json env = json::array();
  env.push_back(
      {{"name", "POD_IP"}, {"valueFrom", {{"fieldRef", {{"fieldPath", "status.podIP"}}}}}});
  for (const auto& variable : wanted.env) {
    env.push_back({{"name", variable.name}, {"value", variable.value}});
  }
  json mounts = json::array();
  mounts.push_back({{"name", "tmp"}, {"mountPath", "/tmp"}});
  mounts.push_back({{"name", "internal"}, {"mountPath", api::kTokenFolder}, {"readOnly", true}});
  for (const Claim& claim : claims) {
    mounts.push_back({{"name", claim.volume}, {"mountPath", claim.mount}, {"readOnly", true}});
  }
  json ports = {{{"name", "http"}, {"containerPort", api::kHttpPort}},
                {{"name", "internal"}, {"containerPort", api::kInternalPort}},
                {{"name", "control"}, {"containerPort", api::kControlPort}}};
  if (has_grpc(revision, place)) {
    ports.push_back({{"name", "grpc"}, {"containerPort", api::kGrpcPort}});
  }
  json resources = json::object();
  if (!wanted.requests.empty()) resources["requests"] = wanted.requests;
  if (!wanted.limits.empty()) resources["limits"] = wanted.limits;
  return {{"name", "worker"},
          {"image", revision.image},
          {"imagePullPolicy", pull_policy},
          {"command", {"deepseek-worker"}},
          {"args", worker_args(owner, revision, place, claims)},
          {"env", std::move(env)},
          {"ports", std::move(ports)},
          {"resources", std::move(resources)},
          {"volumeMounts", std::move(mounts)},
          // An hour to load the weights; being ready is asked often, because an answer waits on it.
          {"startupProbe", probe("/health/startup", 1, 5, 3600)},
          {"readinessProbe", probe("/health/ready", 2, 5, 2)},
          {"livenessProbe", probe("/health/live", 10, 10, 6)},
          // What a crashed worker said last becomes the reason in the model's status.
          {"terminationMessagePolicy", "FallbackToLogsOnError"},
          {"securityContext",
           {{"allowPrivilegeEscalation", false},
            {"readOnlyRootFilesystem", true},
            {"capabilities", {{"drop", {"ALL"}}}}}}};
}

json volumes(const Owner& owner, const std::vector<Claim>& claims) {
  json out = json::array();
  out.push_back({{"name", "tmp"}, {"emptyDir", json::object()}});
  out.push_back(
      {{"name", "internal"},
       {"secret", {{"secretName", api::token_secret(owner.name)}, {"defaultMode", 0444}}}});
  for (const Claim& claim : claims) {
    out.push_back({{"name", claim.volume},
                   {"persistentVolumeClaim", {{"claimName", claim.name}, {"readOnly", true}}}});
  }
  return out;
}

json tolerations(const api::Spec& spec) {
  json out = json::array();
  for (const auto& t : tolerations_of(spec)) {
    json entry = {{"operator", t.op}};
    if (!t.key.empty()) entry["key"] = t.key;
    if (!t.value.empty()) entry["value"] = t.value;
    if (!t.effect.empty()) entry["effect"] = t.effect;
    if (t.seconds) entry["tolerationSeconds"] = *t.seconds;
    out.push_back(std::move(entry));
  }
  // A dead node's ranks are given up after 30 s instead of the cluster's 5 minutes, unless the user
  // has said something about that taint.
  for (const char* key : {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}) {
    const bool said =
        std::ranges::any_of(spec.placement.tolerations, [&](const api::Toleration& t) {
          return t.key == key || (t.key.empty() && t.op == "Exists");
        });
    if (said) continue;
    out.push_back(
        {{"key", key}, {"operator", "Exists"}, {"effect", "NoExecute"}, {"tolerationSeconds", 30}});
  }
  return out;
}

// All pods of the group in one domain. The first one matches its own term, so it may go anywhere.
json same_domain(const Owner& owner, const Revision& revision, const PodPlace& place) {
  const json labels = {{std::string(api::kModelLabel), owner.name},
                       {std::string(api::kRevisionLabel), revision.name},
                       {std::string(api::kGroupLabel), std::to_string(place.group)}};
  const json term = {{"topologyKey", revision.spec.placement.topology_key},
                     {"labelSelector", {{"matchLabels", labels}}}};
  return {{"requiredDuringSchedulingIgnoredDuringExecution", json::array({term})}};
}

json rather_not(const std::vector<std::string>& nodes) {
  json avoid = json::array();
  for (const auto& node : nodes) {
    const json field = {{"key", "metadata.name"}, {"operator", "NotIn"}, {"values", {node}}};
    avoid.push_back({{"weight", 100}, {"preference", {{"matchFields", json::array({field})}}}});
  }
  return {{"preferredDuringSchedulingIgnoredDuringExecution", std::move(avoid)}};
}

json pod_metadata(const Owner& owner, const Revision& revision, const PodPlace& place) {
  const api::Template& wanted = revision.spec.pod_template;
  json metadata =
      child_metadata(owner, api::pod_name(owner.name, revision.name, place.group, place.index));
  json& labels = metadata["labels"];
  for (const auto& [key, value] : wanted.labels) labels[key] = value;
  labels[std::string(api::kRevisionLabel)] = revision.name;
  labels[std::string(api::kGroupLabel)] = std::to_string(place.group);
  labels[std::string(api::kPodIndexLabel)] = std::to_string(place.index);
  labels[std::string(api::kRoleLabel)] = place.index == 0 ? api::kRoleLeader : api::kRoleWorker;
  if (!wanted.annotations.empty()) metadata["annotations"] = wanted.annotations;
  const std::string group = api::group_name(owner.name, revision.name, place.group);
  if (place.bound_together) labels[std::string(kPodGroupLabel)] = group;
  join_queue(revision.spec.placement.queue_name, group, revision.spec.pods_per_group(), metadata);
  return metadata;
}

}  // namespace

json pod_json(const Owner& owner, const Revision& revision, const PodPlace& place,
              const Config& config) {
  const api::Spec& spec = revision.spec;
  const std::vector<Claim> claims = claims_of(spec);
  json pod_spec = {
      // <pod>.<model>-ranks.<namespace>.svc
      {"hostname", api::pod_name(owner.name, revision.name, place.group, place.index)},
      {"subdomain", api::ranks_service(owner.name)},
      {"restartPolicy", "Always"},
      {"terminationGracePeriodSeconds", spec.drain_seconds + kGraceBeyondDrain},
      {"automountServiceAccountToken", false},
      {"enableServiceLinks", false},
      {"securityContext",
       {{"runAsNonRoot", true},
        {"runAsUser", kUser},
        {"runAsGroup", kUser},
        {"seccompProfile", {{"type", "RuntimeDefault"}}}}},
      {"tolerations", tolerations(spec)},
      {"volumes", volumes(owner, claims)},
      {"containers", json::array({container(owner, revision, place, claims, config.pull_policy)})}};
  if (!spec.placement.node_selector.empty()) {
    pod_spec["nodeSelector"] = spec.placement.node_selector;
  }
  if (!spec.placement.priority_class_name.empty()) {
    pod_spec["priorityClassName"] = spec.placement.priority_class_name;
  }
  if (!spec.placement.scheduler_name.empty()) {
    pod_spec["schedulerName"] = spec.placement.scheduler_name;
  }
  if (!place.avoid_nodes.empty()) {
    pod_spec["affinity"]["nodeAffinity"] = rather_not(place.avoid_nodes);
  }
  if (!spec.placement.topology_key.empty() && spec.pods_per_group() > 1) {
    pod_spec["affinity"]["podAffinity"] = same_domain(owner, revision, place);
  }
  ask_for_gpus(spec, config, pod_spec);
  return {{"apiVersion", "v1"},
          {"kind", "Pod"},
          {"metadata", pod_metadata(owner, revision, place)},
          {"spec", std::move(pod_spec)}};
}

}  // namespace dsm::plan
