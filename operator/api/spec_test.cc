#include "operator/api/spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace dsm::api {
namespace {

using nlohmann::json;
using testing::HasSubstr;

json minimal() {
  return {{"model", {{"uri", "image:///models/deepseek-tiny"}}}};
}

std::string mistake(const json& spec) {
  auto parsed = parse_spec(spec);
  return parsed ? "parsed" : parsed.error().message;
}

TEST(Spec, a_model_uri_is_enough_and_the_rest_has_defaults) {
  auto spec = parse_spec(minimal());
  ASSERT_TRUE(spec) << spec.error().message;
  EXPECT_EQ(spec->parallelism.tensor, 1);
  EXPECT_EQ(spec->replicas, 1);
  EXPECT_EQ(spec->rollout.max_surge, 1);
  EXPECT_EQ(spec->rollout.max_unavailable, 0);
  EXPECT_EQ(spec->drain_seconds, 60);
  EXPECT_TRUE(spec->engine.prefix_caching);
  EXPECT_FALSE(spec->engine.max_model_len);
}

TEST(Spec, every_field_is_read) {
  json full = minimal();
  full["model"]["servedName"] = "tiny";
  full["model"]["revision"] = "2025-01";
  full["parallelism"] = {{"tensor", 4}, {"ranksPerPod", 2}};
  full["replicas"] = 3;
  full["scaling"] = {{"maxReplicas", 5},
                     {"running", 8},
                     {"schedules",
                      {{{"name", "night"},
                        {"timeZone", "Europe/Berlin"},
                        {"days", "Mon-Fri"},
                        {"from", "22:00"},
                        {"to", "06:00"},
                        {"maxReplicas", 1}}}}};
  full["image"] = "registry.example/worker:1";
  full["engine"] = {{"maxModelLen", 1024},   {"maxNumSeqs", 8},
                    {"threads", 2},          {"prefixCaching", false},
                    {"kvCacheTokens", 4096}, {"kvCacheDtype", "FP8"},
                    {"grpc", true},          {"speculation", {{"method", "Mtp"}, {"tokens", 2}}}};
  full["model"]["chatTemplate"] = "deepseek-v3.1";
  full["model"]["quantization"] = "INT4";
  full["adapters"] = {{{"name", "sql"}, {"uri", "pvc://tuned/sql"}}};
  full["placement"] = {
      {"nodeSelector", {{"disk", "fast"}}},
      {"tolerations", {{{"key", "gpu"}, {"operator", "Exists"}, {"tolerationSeconds", 5}}}},
      {"priorityClassName", "high"}};
  full["template"] = {{"labels", {{"team", "a"}}},
                      {"env", {{{"name", "LANG"}, {"value", "C"}}}},
                      {"resources", {{"requests", {{"cpu", 1}, {"memory", "256Mi"}}}}}};
  auto spec = parse_spec(full);
  ASSERT_TRUE(spec) << spec.error().message;
  EXPECT_EQ(spec->pods_per_group(), 2);
  EXPECT_EQ(spec->model.served_name, "tiny");
  EXPECT_EQ(spec->engine.max_model_len, 1024);
  EXPECT_EQ(spec->engine.kv_cache_dtype, "FP8");
  EXPECT_TRUE(spec->engine.grpc);
  EXPECT_EQ(spec->engine.speculation.method, "Mtp");
  EXPECT_EQ(spec->engine.speculation.tokens, 2);
  EXPECT_EQ(spec->model.chat_template, "deepseek-v3.1");
  EXPECT_EQ(spec->model.quantization, "INT4");
  EXPECT_EQ(spec->adapters.at(0).name, "sql");
  EXPECT_EQ(spec->adapters.at(0).uri, "pvc://tuned/sql");
  EXPECT_EQ(spec->placement.tolerations.at(0).seconds, 5);
  EXPECT_EQ(spec->pod_template.requests.at("cpu"), "1");
  EXPECT_EQ(spec->pod_template.env.at(0).value, "C");
}

TEST(Spec, a_mistake_names_the_field_and_the_remedy) {
  json spec = minimal();
  spec["parallelism"]["tensor"] = 3;
  EXPECT_EQ(mistake(spec), "spec.parallelism.tensor: is 3; use 1, 2, 4 or 8");
  spec["parallelism"] = {{"tensor", 2}, {"ranksPerPod", 4}};
  EXPECT_EQ(mistake(spec),
            "spec.parallelism.ranksPerPod: is 4; use a divisor of tensor, which is 2");
  spec = minimal();
  spec["rollout"] = {{"maxSurge", 0}};
  EXPECT_THAT(mistake(spec), HasSubstr("spec.rollout: maxSurge and maxUnavailable are both 0"));
  spec = minimal();
  spec["scaling"] = {{"minReplicas", 2}};
  EXPECT_EQ(mistake(spec), "spec.scaling.maxReplicas: is missing; it is required in scaling");
  spec["scaling"]["maxReplicas"] = 9;
  spec["scaling"]["schedules"] = {{{"name", "night"}, {"from", "22:00"}}};
  EXPECT_THAT(mistake(spec), HasSubstr("spec.scaling.schedules[0].to: is missing"));
  spec["scaling"]["schedules"][0]["to"] = "25:00";
  EXPECT_THAT(mistake(spec), HasSubstr("spec.scaling.schedules[0].to: is \"25:00\"; use a time"));
  spec["scaling"].erase("schedules");
  spec["scaling"]["maxReplicas"] = 1;
  EXPECT_EQ(mistake(spec), "spec.scaling.minReplicas: is 2; use at most maxReplicas, which is 1");
  spec = minimal();
  spec["engine"]["speculation"]["method"] = "Magic";
  EXPECT_EQ(mistake(spec), "spec.engine.speculation.method: is \"Magic\"; use Ngram or Mtp");
  spec = minimal();
  spec["engine"]["threads"] = "four";
  EXPECT_EQ(mistake(spec), "spec.engine.threads: must be a whole number");
  spec = minimal();
  spec["replicas"] = -1;
  EXPECT_EQ(mistake(spec), "spec.replicas: is -1; use 0 to 1000");
  spec = minimal();
  spec["rollout"] = {{"historyLimit", 1}};
  EXPECT_EQ(mistake(spec), "spec.rollout.historyLimit: is 1; use 2 to 100");
  spec = minimal();
  spec["recovery"] = {{"window", "later"}};
  EXPECT_THAT(mistake(spec), HasSubstr("spec.recovery.window: is \"later\"; use a whole"));
  spec["recovery"] = {{"window", "5s"}};
  EXPECT_EQ(mistake(spec), "spec.recovery.window: is \"5s\"; use 60s to 24h");
  spec = minimal();
  spec["template"]["env"] = {{{"name", "POD_IP"}}};
  EXPECT_THAT(mistake(spec), HasSubstr("spec.template.env[0].name: is \"POD_IP\"; the operator"));
  spec = minimal();
  spec["template"]["labels"] = {{"deepseek-operator.io/role", "leader"}};
  EXPECT_THAT(mistake(spec), HasSubstr("spec.template.labels: a key is"));
  EXPECT_EQ(mistake(json::object()), "spec.model.uri: is missing; it is required");
  EXPECT_EQ(mistake(json::array()), "spec: is not an object");
}

TEST(Spec, a_mistake_in_an_adapter_names_its_place_and_the_remedy) {
  const auto with = [](json adapters) {
    json spec = minimal();
    spec["adapters"] = std::move(adapters);
    return mistake(spec);
  };
  const json sql = {{"name", "sql"}, {"uri", "pvc://tuned/sql"}};
  EXPECT_EQ(with({sql, {{"name", "law"}, {"uri", "pvc://tuned/law"}}}), "parsed");
  EXPECT_EQ(with({sql, sql}),
            "spec.adapters[1].name: is \"sql\", as adapters[0] is called; use each name once");
  EXPECT_EQ(with({{{"name", "sql"}}}), "spec.adapters[0].uri: is missing; it is required");
  EXPECT_EQ(with({sql, {{"uri", "pvc://tuned/law"}}}),
            "spec.adapters[1].name: is missing; it is required");
  EXPECT_THAT(with({{{"name", "a,b"}, {"uri", "pvc://tuned/sql"}}}),
              HasSubstr("spec.adapters[0].name: is \"a,b\"; use letters, digits"));
  EXPECT_THAT(with({{{"name", "sql"}, {"uri", "hf://tuned/sql"}}}),
              HasSubstr("spec.adapters[0].uri: is \"hf://tuned/sql\"; use pvc://<claim>/<path>"));
  EXPECT_THAT(with({{{"name", "sql"}, {"uri", "pvc://tuned/../x"}}}), HasSubstr("without '..'"));
  json many = json::array();
  for (int i = 0; i < 33; ++i) {
    many.push_back({{"name", "a" + std::to_string(i)}, {"uri", "pvc://tuned/a"}});
  }
  EXPECT_EQ(with(many), "spec.adapters: has 33 entries; use at most 32");
  many.erase(0);
  EXPECT_EQ(with(many), "parsed");
}

TEST(Spec, an_adapter_is_not_called_as_the_model_is) {
  json written = minimal();
  written["adapters"] = {{{"name", "sql"}, {"uri", "pvc://tuned/sql"}},
                         {{"name", "r1"}, {"uri", "pvc://tuned/r1"}}};
  const auto spec = parse_spec(written);
  ASSERT_TRUE(spec);
  EXPECT_TRUE(check_adapter_names(*spec, "tiny"));
  const auto clash = check_adapter_names(*spec, "r1");
  ASSERT_FALSE(clash);
  EXPECT_EQ(clash.error().message,
            "spec.adapters[1].name: is \"r1\", the name that the model itself is served under; use "
            "another, or set model.servedName");
  written["model"]["servedName"] = "sql";
  EXPECT_THAT(check_adapter_names(*parse_spec(written), "r1").error().message,
              HasSubstr("spec.adapters[0].name: is \"sql\""));
  written["model"]["servedName"] = "base";
  EXPECT_TRUE(check_adapter_names(*parse_spec(written), "r1"));
}

TEST(Spec, an_unknown_field_is_refused_at_every_depth) {
  json spec = minimal();
  spec["surge"] = {{"min", 1}};
  EXPECT_THAT(mistake(spec), HasSubstr("spec.surge: is not a field of this version"));
  spec = minimal();
  spec["model"]["sha256"] = "x";
  EXPECT_THAT(mistake(spec), HasSubstr("spec.model.sha256: is not a field"));
  spec = minimal();
  spec["placement"]["tolerations"] = {{{"kei", "x"}}};
  EXPECT_THAT(mistake(spec), HasSubstr("spec.placement.tolerations[0].kei: is not a field"));
}

TEST(Spec, data_parallel_attention_needs_ranks) {
  json spec = minimal();
  spec["engine"]["dataParallelAttention"] = true;
  EXPECT_EQ(mistake(spec),
            "spec.engine.dataParallelAttention: shares out sequences to ranks and "
            "parallelism.tensor is 1; set that to 2, 4 or 8, or remove this");
  spec["parallelism"]["tensor"] = 2;
  const auto parsed = parse_spec(spec);
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_TRUE(parsed->engine.data_parallel_attention);
  spec["engine"]["dataParallelAttention"] = false;
  EXPECT_NE(revision_of(parse_spec(spec).value()), revision_of(*parsed)) << "it shapes pods";
}

TEST(Spec, whole_experts_need_ranks_and_the_loose_mode) {
  json spec = minimal();
  spec["engine"]["expertParallel"] = true;
  EXPECT_EQ(mistake(spec),
            "spec.engine.expertParallel: shares out experts to ranks and parallelism.tensor is 1; "
            "set that to 2, 4 or 8, or remove this");
  spec["parallelism"]["tensor"] = 2;
  EXPECT_EQ(mistake(spec),
            "spec.engine.expertParallel: adds experts up in another order than "
            "engine.deterministic wants; set that to false, or remove this");
  spec["engine"]["deterministic"] = false;
  ASSERT_TRUE(parse_spec(spec));
  EXPECT_TRUE(parse_spec(spec)->engine.expert_parallel);
  spec["engine"].erase("deterministic");
  spec["accelerator"]["resource"] = "nvidia.com/gpu";
  EXPECT_TRUE(parse_spec(spec)) << "GPUs are in the loose mode";
}

Spec ranks(int tensor, bool gpu, const json& ranks_per_pod) {
  json spec = minimal();
  spec["parallelism"]["tensor"] = tensor;
  if (gpu) spec["accelerator"]["resource"] = "nvidia.com/gpu";
  if (!ranks_per_pod.is_null()) spec["parallelism"]["ranksPerPod"] = ranks_per_pod;
  return *parse_spec(spec);
}

TEST(Spec, ranks_on_gpus_are_in_one_pod_and_others_alone_unless_it_is_said) {
  EXPECT_EQ(ranks(8, true, nullptr).ranks_per_pod(), 8);
  EXPECT_EQ(ranks(8, true, nullptr).pods_per_group(), 1);
  EXPECT_EQ(ranks(8, false, nullptr).ranks_per_pod(), 1);
  EXPECT_EQ(ranks(8, false, nullptr).pods_per_group(), 8);
  EXPECT_EQ(ranks(1, true, nullptr).pods_per_group(), 1);
  for (const bool gpu : {false, true}) EXPECT_EQ(ranks(8, gpu, 4).pods_per_group(), 2);
  // What is so anyway rolls nothing when it is said.
  EXPECT_EQ(revision_of(ranks(8, true, 8)), revision_of(ranks(8, true, nullptr)));
  EXPECT_EQ(revision_of(ranks(8, false, 1)), revision_of(ranks(8, false, nullptr)));
  EXPECT_NE(revision_of(ranks(8, true, 1)), revision_of(ranks(8, true, nullptr)));
}

TEST(Spec, tokens_depend_on_nothing_else_on_cpus_unless_that_is_said) {
  const auto with = [](bool gpu, const json& deterministic) {
    json spec = minimal();
    if (gpu) spec["accelerator"]["resource"] = "nvidia.com/gpu";
    if (!deterministic.is_null()) spec["engine"]["deterministic"] = deterministic;
    return *parse_spec(spec);
  };
  for (const bool gpu : {false, true}) {
    EXPECT_EQ(with(gpu, nullptr).deterministic(), !gpu);
    EXPECT_TRUE(with(gpu, true).deterministic());
    EXPECT_FALSE(with(gpu, false).deterministic());
    // What is so anyway rolls nothing when it is said.
    EXPECT_EQ(revision_of(with(gpu, !gpu)), revision_of(with(gpu, nullptr)));
    EXPECT_NE(revision_of(with(gpu, gpu)), revision_of(with(gpu, nullptr)));
    EXPECT_EQ(parse_spec(pod_shape(with(gpu, gpu)))->deterministic(), gpu);
  }
}

TEST(Spec, activations_in_fp8_are_for_weights_in_fp8) {
  json spec = minimal();
  spec["model"]["activationQuantization"] = "INT8";
  EXPECT_THAT(mistake(spec), HasSubstr("activationQuantization: is \"INT8\"; use None"));
  spec["model"]["activationQuantization"] = "FP8";
  ASSERT_TRUE(parse_spec(spec));
  spec["model"]["quantization"] = "INT4";
  EXPECT_EQ(mistake(spec),
            "spec.model.activationQuantization: is for weights in FP8 and model.quantization is "
            "INT4; set that to FP8, or remove this");
  spec["model"]["quantization"] = "FP8";
  ASSERT_TRUE(parse_spec(spec));
  spec["adapters"] = {{{"name", "a"}, {"uri", "pvc://tuned/a"}}};
  EXPECT_THAT(mistake(spec), HasSubstr("has no meaning for adapters yet"));
}

TEST(Spec, an_accelerator_is_a_cpu_or_a_gpu_and_only_a_gpu_has_more_to_say) {
  const auto with = [](json accelerator) {
    json spec = minimal();
    spec["accelerator"] = std::move(accelerator);
    const auto parsed = parse_spec(spec);
    return parsed ? "parsed" : parsed.error().message;
  };
  EXPECT_EQ(with({{"resource", "nvidia.com/gpu"},
                  {"product", {"NVIDIA-H100-80GB-HBM3", "NVIDIA-H200"}},
                  {"memory", "80Gi"},
                  {"rdma", true}}),
            "parsed");
  EXPECT_EQ(with({{"resource", "cpu"}, {"product", json::array()}, {"rdma", false}}), "parsed");
  EXPECT_EQ(with({{"resource", "amd.com/gpu"}}),
            "spec.accelerator.resource: is \"amd.com/gpu\"; use cpu or nvidia.com/gpu, or leave it "
            "out for cpu");
  EXPECT_EQ(with({{"memory", "80Gi"}}),
            "spec.accelerator.memory: speaks of GPUs and accelerator.resource is cpu; set that to "
            "nvidia.com/gpu, or remove this");
  EXPECT_THAT(with({{"rdma", true}}), HasSubstr("spec.accelerator.rdma: speaks of GPUs"));
  EXPECT_THAT(with({{"product", {"NVIDIA-A100"}}}), HasSubstr("spec.accelerator.product: speaks"));
  EXPECT_THAT(with({{"resource", "nvidia.com/gpu"}, {"product", {"H100 80GB"}}}),
              HasSubstr("spec.accelerator.product[0]: is \"H100 80GB\""));
  EXPECT_THAT(with({{"resource", "nvidia.com/gpu"}, {"memory", "80 GiB"}}),
              HasSubstr("spec.accelerator.memory: is \"80 GiB\"; use a quantity"));
}

TEST(Spec, sleep_on_gpus_needs_pods_that_were_made_for_it) {
  json spec = minimal();
  spec["sleep"] = true;
  EXPECT_TRUE(parse_spec(spec)->sleep) << "a CPU's memory can always be given back";
  spec["accelerator"]["resource"] = "nvidia.com/gpu";
  EXPECT_THAT(mistake(spec), HasSubstr("spec.sleep: is true; groups on GPUs can sleep only with "
                                       "spec.engine.sleepMode"));
  const std::string without = revision_of(*parse_spec(minimal()));
  spec["engine"]["sleepMode"] = true;
  EXPECT_TRUE(parse_spec(spec)->engine.sleep_mode);
  spec.erase("accelerator");
  EXPECT_NE(revision_of(*parse_spec(spec)), without);
  spec.erase("engine");
  EXPECT_EQ(revision_of(*parse_spec(spec)), without) << "sleep alone makes no pods anew";
}

TEST(Spec, gpus_are_asked_for_in_one_place) {
  json spec = minimal();
  spec["accelerator"]["resource"] = "nvidia.com/gpu";
  spec["template"]["resources"]["limits"] = {{"nvidia.com/gpu", 2}};
  EXPECT_THAT(mistake(spec), HasSubstr("spec.template.resources: names nvidia.com/gpu, of which"));
}

TEST(Spec, a_queue_is_named_as_a_local_queue_is) {
  json spec = minimal();
  spec["placement"]["queueName"] = "team-a.gpus";
  EXPECT_EQ(parse_spec(spec)->placement.queue_name, "team-a.gpus");
  spec["placement"]["queueName"] = "Team A";
  EXPECT_THAT(mistake(spec), HasSubstr("spec.placement.queueName: is \"Team A\"; use the name"));
}

TEST(Spec, a_scheduler_is_part_of_the_revision) {
  json spec = minimal();
  const std::string by_default = revision_of(*parse_spec(spec));
  spec["placement"]["schedulerName"] = "gang-scheduler";
  EXPECT_EQ(parse_spec(spec)->placement.scheduler_name, "gang-scheduler");
  EXPECT_NE(revision_of(*parse_spec(spec)), by_default);
  spec["placement"]["schedulerName"] = "Gang Scheduler";
  EXPECT_THAT(mistake(spec), HasSubstr("spec.placement.schedulerName: is \"Gang Scheduler\"; use"));
}

TEST(Uri, the_two_schemes_are_read) {
  auto image = parse_uri("image:///models/deepseek-tiny");
  ASSERT_TRUE(image);
  EXPECT_EQ(image->path, "/models/deepseek-tiny");
  auto claim = parse_uri("pvc://weights/r1/7b");
  ASSERT_TRUE(claim);
  EXPECT_EQ(claim->claim, "weights");
  EXPECT_EQ(claim->path, "r1/7b");
  EXPECT_TRUE(parse_uri("pvc://weights"));
}

TEST(Uri, anything_else_is_refused) {
  for (const char* uri :
       {"hf://deepseek/r1", "/models/x", "image://models/x", "image:///../etc", "pvc://Weights/x",
        "pvc:///x", "pvc://w/a/../b", "pvc://w/$(POD_IP)", "image:///", "pvc://w/a//b", ""}) {
    EXPECT_FALSE(parse_uri(uri)) << uri;
  }
}

TEST(Duration, is_a_number_with_a_unit) {
  EXPECT_EQ(parse_duration("90s"), Seconds(90));
  EXPECT_EQ(parse_duration("10m"), Seconds(600));
  EXPECT_EQ(parse_duration("1h"), Seconds(3600));
  for (const char* text : {"", "10", "m", "1d", "-1s", "1.5h", "10 m", "99999999999999999999s"}) {
    EXPECT_FALSE(parse_duration(text)) << text;
  }
}

TEST(Name, must_be_a_short_dns_1035_label) {
  EXPECT_TRUE(check_name("deepseek-tiny"));
  EXPECT_TRUE(check_name(std::string(40, 'a')));
  for (const auto& name : {std::string(41, 'a'), std::string("7b"), std::string("a.b"),
                           std::string("a-"), std::string("A"), std::string()}) {
    EXPECT_FALSE(check_name(name)) << name;
  }
}

TEST(Revision, follows_what_shapes_pods_and_nothing_else) {
  const auto revision = [](const json& spec) { return revision_of(*parse_spec(spec)); };
  const std::string base = revision(minimal());
  EXPECT_EQ(base.size(), 8U);
  json scaled = minimal();
  scaled["replicas"] = 7;
  scaled["scaling"] = {{"maxReplicas", 9}};
  scaled["rollout"] = {{"maxSurge", 2}, {"paused", true}};
  scaled["recovery"] = {{"maxRestarts", 9}};
  EXPECT_EQ(revision(scaled), base);
  json image = minimal();
  image["image"] = "other:1";
  EXPECT_NE(revision(image), base);
  json weights = minimal();
  weights["model"]["revision"] = "v2";
  EXPECT_NE(revision(weights), base);
  json adapted = minimal();
  adapted["adapters"] = {{{"name", "sql"}, {"uri", "pvc://tuned/sql"}}};
  EXPECT_NE(revision(adapted), base);
}

TEST(Revision, a_default_that_is_written_out_changes_nothing) {
  json written = minimal();
  written["parallelism"] = {{"tensor", 1}, {"ranksPerPod", 1}};
  written["engine"] = {{"prefixCaching", true}, {"threads", 0}};
  written["drainSeconds"] = 60;
  written["adapters"] = json::array();
  EXPECT_EQ(revision_of(*parse_spec(written)), revision_of(*parse_spec(minimal())));
}

TEST(Revision, is_the_same_in_every_release) {
  // Models that run would all be rolled by an upgrade if this changed.
  EXPECT_EQ(pod_shape(*parse_spec(minimal())).dump(),
            R"({"model":{"uri":"image:///models/deepseek-tiny"}})");
  EXPECT_EQ(revision_of(*parse_spec(minimal())), "95d6bc40");
}

TEST(Revision, of_ranks_alone_is_that_of_releases_that_knew_no_other_default) {
  json older = pod_shape(ranks(8, true, 1));
  EXPECT_EQ(older["parallelism"], json({{"tensor", 8}, {"ranksPerPod", 1}}));
  older["parallelism"].erase("ranksPerPod");  // as they wrote it
  const auto spec = parse_pod_shape(older);
  ASSERT_TRUE(spec) << spec.error().message;
  EXPECT_EQ(spec->pods_per_group(), 8);
  EXPECT_EQ(revision_of(*spec), "e7c14a14");
  EXPECT_EQ(revision_of(*spec), revision_of(ranks(8, true, 1)));
}

TEST(PodShape, is_read_back_as_the_same_spec) {
  json spec = minimal();
  spec["parallelism"]["tensor"] = 8;
  spec["placement"]["tolerations"] = {{{"operator", "Exists"}}};
  spec["template"]["env"] = {{{"name", "A"}, {"value", "b"}}};
  spec["adapters"] = {{{"name", "sql"}, {"uri", "pvc://tuned/sql"}}};
  spec["accelerator"] = {{"resource", "nvidia.com/gpu"}, {"product", {"NVIDIA-H100"}}};
  const auto first = parse_spec(spec);
  ASSERT_TRUE(first);
  const auto again = parse_spec(pod_shape(*first));
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(pod_shape(*again), pod_shape(*first));
}

}  // namespace
}  // namespace dsm::api
