// The one description of the spec's fields: name, type and bounds of each. visit_spec() walks it
// with a visitor; parsing, writing and listing are three visitors (spec.cc), so a field that is
// added here is known to all of them. Private to operator/api.
//
// A visitor has: object(name, body), list(name, values, max, body), text(name, value, TextRule),
// texts(name, values, max, TextRule), number(name, value, min, max), truth(name, value),
// map(name, values, MapRule).
#pragma once

#include "operator/api/spec.h"

namespace dsm::api {

using TextCheck = dsm::Status (*)(std::string_view);

struct TextRule {
  std::size_t max_length;
  bool required = false;
  TextCheck check = nullptr;  // of a text that is not empty
};

struct MapRule {
  std::size_t max_entries;
  std::size_t max_length;  // of a value
  TextCheck check_key;
  TextCheck check_value;
  bool numbers_too = false;  // a value may be written as an integer (quantities)
};

inline constexpr std::size_t kMaxAdapters = 32;

dsm::Status check_uri(std::string_view text);
dsm::Status check_served_name(std::string_view text);
dsm::Status check_model_revision(std::string_view text);
dsm::Status check_chat_template(std::string_view text);
dsm::Status check_quantization(std::string_view text);
dsm::Status check_activation_quantization(std::string_view text);
dsm::Status check_kv_cache_dtype(std::string_view text);
dsm::Status check_speculation_method(std::string_view text);
dsm::Status check_image(std::string_view text);
dsm::Status check_label_key(std::string_view text);  // any valid key
dsm::Status check_label_value(std::string_view text);
dsm::Status check_own_label_key(std::string_view text);  // and not one of the operator's
dsm::Status check_any_text(std::string_view text);
dsm::Status check_quantity(std::string_view text);
dsm::Status check_env_name(std::string_view text);
dsm::Status check_toleration_op(std::string_view text);
dsm::Status check_toleration_effect(std::string_view text);
dsm::Status check_dns_name(std::string_view text);
dsm::Status check_queue_name(std::string_view text);
dsm::Status check_resource(std::string_view text);
dsm::Status check_window(std::string_view text);
dsm::Status check_model_config(std::string_view text);
dsm::Status check_schedule_name(std::string_view text);
dsm::Status check_days(std::string_view text);
dsm::Status check_time_of_day(std::string_view text);
dsm::Status check_any_zone(std::string_view text);  // whether it exists is known where it is used

// The part that shapes pods.
template <typename Visitor>
void visit_pod_shape(Visitor& v, Spec& s) {
  v.object("model", [&] {
    v.text("uri", s.model.uri, {.max_length = 512, .required = true, .check = check_uri});
    v.text("servedName", s.model.served_name, {.max_length = 128, .check = check_served_name});
    v.text("revision", s.model.revision, {.max_length = 63, .check = check_model_revision});
    v.text("chatTemplate", s.model.chat_template, {.max_length = 63, .check = check_chat_template});
    v.text("quantization", s.model.quantization, {.max_length = 4, .check = check_quantization});
    v.text("activationQuantization", s.model.activation_quantization,
           {.max_length = 4, .check = check_activation_quantization});
  });
  v.list("adapters", s.adapters, kMaxAdapters, [&](Adapter& a) {
    v.text("name", a.name, {.max_length = 128, .required = true, .check = check_served_name});
    v.text("uri", a.uri, {.max_length = 512, .required = true, .check = check_uri});
  });
  v.object("parallelism", [&] {
    v.number("tensor", s.parallelism.tensor, 1, 8);
    v.number("ranksPerPod", s.parallelism.ranks_per_pod, 1, 8);
  });
  v.text("image", s.image, {.max_length = 512, .check = check_image});
  v.object("accelerator", [&] {
    v.text("resource", s.accelerator.resource, {.max_length = 63, .check = check_resource});
    v.texts("product", s.accelerator.product, 16, {.max_length = 63, .check = check_label_value});
    v.text("memory", s.accelerator.memory, {.max_length = 32, .check = check_quantity});
    v.truth("rdma", s.accelerator.rdma);
  });
  v.object("engine", [&] {
    v.number("maxModelLen", s.engine.max_model_len, 64, 1048576);
    v.number("maxNumSeqs", s.engine.max_num_seqs, 1, 4096);
    v.number("maxNumBatchedTokens", s.engine.max_num_batched_tokens, 1, 1048576);
    v.number("kvCacheTokens", s.engine.kv_cache_tokens, 64, 1000000000);
    v.text("kvCacheDtype", s.engine.kv_cache_dtype,
           {.max_length = 4, .check = check_kv_cache_dtype});
    v.truth("prefixCaching", s.engine.prefix_caching);
    v.truth("deterministic", s.engine.deterministic);
    v.truth("dataParallelAttention", s.engine.data_parallel_attention);
    v.truth("expertParallel", s.engine.expert_parallel);
    v.number("threads", s.engine.threads, 0, 1024);
    v.truth("grpc", s.engine.grpc);
    v.truth("sleepMode", s.engine.sleep_mode);
    v.object("speculation", [&] {
      v.text("method", s.engine.speculation.method,
             {.max_length = 8, .check = check_speculation_method});
      v.number("tokens", s.engine.speculation.tokens, 1, 16);
    });
  });
  v.number("drainSeconds", s.drain_seconds, 0, 3600);
  v.object("placement", [&] {
    v.map("nodeSelector", s.placement.node_selector,
          {.max_entries = 32,
           .max_length = 63,
           .check_key = check_label_key,
           .check_value = check_label_value});
    v.list("tolerations", s.placement.tolerations, 32, [&](Toleration& t) {
      v.text("key", t.key, {.max_length = 316, .check = check_label_key});
      v.text("operator", t.op, {.max_length = 6, .check = check_toleration_op});
      v.text("value", t.value, {.max_length = 63, .check = check_label_value});
      v.text("effect", t.effect, {.max_length = 16, .check = check_toleration_effect});
      v.number("tolerationSeconds", t.seconds, 0, 31536000);
    });
    v.text("priorityClassName", s.placement.priority_class_name,
           {.max_length = 253, .check = check_dns_name});
    v.text("topologyKey", s.placement.topology_key, {.max_length = 316, .check = check_label_key});
    v.text("queueName", s.placement.queue_name, {.max_length = 63, .check = check_queue_name});
    v.text("schedulerName", s.placement.scheduler_name,
           {.max_length = 253, .check = check_dns_name});
  });
  v.object("template", [&] {
    v.map("labels", s.pod_template.labels,
          {.max_entries = 32,
           .max_length = 63,
           .check_key = check_own_label_key,
           .check_value = check_label_value});
    v.map("annotations", s.pod_template.annotations,
          {.max_entries = 32,
           .max_length = 4096,
           .check_key = check_own_label_key,
           .check_value = check_any_text});
    v.list("env", s.pod_template.env, 64, [&](EnvVar& e) {
      v.text("name", e.name, {.max_length = 128, .required = true, .check = check_env_name});
      v.text("value", e.value, {.max_length = 4096});
    });
    v.object("resources", [&] {
      const MapRule rule{.max_entries = 16,
                         .max_length = 32,
                         .check_key = check_label_key,
                         .check_value = check_quantity,
                         .numbers_too = true};
      v.map("requests", s.pod_template.requests, rule);
      v.map("limits", s.pod_template.limits, rule);
    });
  });
}

template <typename Visitor>
void visit_spec(Visitor& v, Spec& s) {
  visit_pod_shape(v, s);
  v.number("replicas", s.replicas, 0, 1000);
  v.truth("sleep", s.sleep);
  v.object("scaling", [&] {
    v.number("minReplicas", s.scaling.min_replicas, 1, 1000);
    v.number("maxReplicas", s.scaling.max_replicas, 1, 1000);
    v.number("queueDepth", s.scaling.queue_depth, 1, 100000);
    v.number("running", s.scaling.running, 1, 4096);
    v.number("scaleDownWindowSeconds", s.scaling.scale_down_window_seconds, 0, 3600);
    v.list("schedules", s.scaling.schedules, 16, [&](Schedule& one) {
      v.text("name", one.name, {.max_length = 63, .required = true, .check = check_schedule_name});
      v.text("timeZone", one.time_zone, {.max_length = 64, .check = check_any_zone});
      v.text("days", one.days, {.max_length = 32, .check = check_days});
      v.text("from", one.from, {.max_length = 5, .required = true, .check = check_time_of_day});
      v.text("to", one.to, {.max_length = 5, .required = true, .check = check_time_of_day});
      v.number("minReplicas", one.min_replicas, 1, 1000);
      v.number("maxReplicas", one.max_replicas, 1, 1000);
    });
  });
  v.object("rollout", [&] {
    v.number("maxSurge", s.rollout.max_surge, 0, 100);
    v.number("maxUnavailable", s.rollout.max_unavailable, 0, 100);
    v.number("historyLimit", s.rollout.history_limit, 2, 100);
    v.truth("paused", s.rollout.paused);
  });
  v.object("recovery", [&] {
    v.number("maxRestarts", s.recovery.max_restarts, 0, 1000);
    v.text("window", s.recovery.window, {.max_length = 8, .check = check_window});
  });
  v.object("sizing", [&] {
    v.text("modelConfig", s.sizing.model_config,
           {.max_length = 16384, .check = check_model_config});
  });
}

}  // namespace dsm::api
