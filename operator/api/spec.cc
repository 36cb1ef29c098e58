#include "operator/api/spec.h"

#include "base/random.h"
#include "operator/api/field_visitors.h"

namespace dsm::api {
namespace {

dsm::Status check_scaling(const Scaling& scaling) {
  if (!scaling.on()) {
    const Scaling off;
    if (scaling.min_replicas == off.min_replicas && scaling.queue_depth == off.queue_depth &&
        scaling.running == off.running &&
        scaling.scale_down_window_seconds == off.scale_down_window_seconds &&
        scaling.schedules.empty()) {
      return {};
    }
    return fail(ErrorKind::kInvalid,
                "spec.scaling.maxReplicas: is missing; it is required in scaling");
  }
  const int most = scaling.max_replicas.value_or(scaling.min_replicas);
  if (scaling.min_replicas <= most) return {};
  return fail(ErrorKind::kInvalid,
              "spec.scaling.minReplicas: is " + std::to_string(scaling.min_replicas) +
                  "; use at most maxReplicas, which is " + std::to_string(most));
}

std::string adapter_name(std::size_t i, const std::string& name) {
  return "spec.adapters[" + std::to_string(i) + "].name: is \"" + name + "\"";
}

dsm::Status check_adapters(const std::vector<Adapter>& adapters) {
  for (std::size_t i = 0; i < adapters.size(); ++i) {
    for (std::size_t before = 0; before < i; ++before) {
      if (adapters[before].name != adapters[i].name) continue;
      return fail(ErrorKind::kInvalid, adapter_name(i, adapters[i].name) + ", as adapters[" +
                                           std::to_string(before) +
                                           "] is called; use each name once");
    }
  }
  return {};
}

dsm::Status check_accelerator(const Spec& spec) {
  const Accelerator& a = spec.accelerator;
  const std::string at = "spec.accelerator.";
  const auto only_of_gpus = [&](const char* field) {
    return fail(ErrorKind::kInvalid, at + field +
                                         ": speaks of GPUs and accelerator.resource is cpu; set "
                                         "that to nvidia.com/gpu, or remove this");
  };
  if (!a.gpu()) {
    if (!a.product.empty()) return only_of_gpus("product");
    if (!a.memory.empty()) return only_of_gpus("memory");
    if (a.rdma) return only_of_gpus("rdma");
    return {};
  }
  const Template& pod = spec.pod_template;
  if (!pod.limits.contains(a.resource) && !pod.requests.contains(a.resource)) return {};
  return fail(ErrorKind::kInvalid, "spec.template.resources: names " + a.resource +
                                       ", of which each rank gets one; remove it");
}

dsm::Status check_ranks(const Spec& spec) {
  const Engine& engine = spec.engine;
  const bool alone = spec.parallelism.tensor == 1;
  if (engine.data_parallel_attention && alone) {
    return fail(ErrorKind::kInvalid,
                "spec.engine.dataParallelAttention: shares out sequences to ranks and "
                "parallelism.tensor is 1; set that to 2, 4 or 8, or remove this");
  }
  if (engine.expert_parallel && alone) {
    return fail(ErrorKind::kInvalid,
                "spec.engine.expertParallel: shares out experts to ranks and parallelism.tensor "
                "is 1; set that to 2, 4 or 8, or remove this");
  }
  if (engine.expert_parallel && spec.deterministic()) {
    return fail(ErrorKind::kInvalid,
                "spec.engine.expertParallel: adds experts up in another order than "
                "engine.deterministic wants; set that to false, or remove this");
  }
  return {};
}

dsm::Status check_activations(const Spec& spec) {
  if (spec.model.activation_quantization == "None") return {};
  const std::string at = "spec.model.activationQuantization: ";
  const std::string& weights = spec.model.quantization;
  if (weights != "Auto" && weights != "FP8") {
    return fail(ErrorKind::kInvalid, at + "is for weights in FP8 and model.quantization is " +
                                         weights + "; set that to FP8, or remove this");
  }
  if (spec.adapters.empty()) return {};
  return fail(ErrorKind::kInvalid, at + "has no meaning for adapters yet; remove it, or adapters");
}

dsm::Status check_sleep(const Spec& spec) {
  if (!spec.sleep || !spec.accelerator.gpu() || spec.engine.sleep_mode) return {};
  return fail(ErrorKind::kInvalid,
              "spec.sleep: is true; groups on GPUs can sleep only with spec.engine.sleepMode, set "
              "that to true first");
}

// Rules between fields; the CRD says them in CEL.
dsm::Status check_together(const Spec& spec) {
  const auto& p = spec.parallelism;
  if (p.tensor != 1 && p.tensor != 2 && p.tensor != 4 && p.tensor != 8) {
    return fail(ErrorKind::kInvalid,
                "spec.parallelism.tensor: is " + std::to_string(p.tensor) + "; use 1, 2, 4 or 8");
  }
  if (p.tensor % spec.ranks_per_pod() != 0) {
    return fail(ErrorKind::kInvalid,
                "spec.parallelism.ranksPerPod: is " + std::to_string(spec.ranks_per_pod()) +
                    "; use a divisor of tensor, which is " + std::to_string(p.tensor));
  }
  if (spec.rollout.max_surge == 0 && spec.rollout.max_unavailable == 0) {
    return fail(ErrorKind::kInvalid,
                "spec.rollout: maxSurge and maxUnavailable are both 0, so nothing could ever be "
                "replaced; set one of them to 1 or more");
  }
  if (auto ok = check_adapters(spec.adapters); !ok) return ok;
  if (auto ok = check_accelerator(spec); !ok) return ok;
  if (auto ok = check_ranks(spec); !ok) return ok;
  if (auto ok = check_activations(spec); !ok) return ok;
  if (auto ok = check_sleep(spec); !ok) return ok;
  return check_scaling(spec.scaling);
}

}  // namespace

Result<Spec> parse_spec(const json& spec) {
  Spec parsed;
  Parser parser(spec);
  if (spec.is_object()) visit_spec(parser, parsed);
  if (auto ok = parser.finish(); !ok) return std::unexpected(ok.error());
  if (auto ok = check_together(parsed); !ok) return std::unexpected(ok.error());
  return parsed;
}

std::string served_name(const Spec& spec, const std::string& name) {
  return spec.model.served_name.empty() ? name : spec.model.served_name;
}

dsm::Status check_adapter_names(const Spec& spec, const std::string& name) {
  const std::string served = served_name(spec, name);
  for (std::size_t i = 0; i < spec.adapters.size(); ++i) {
    if (spec.adapters[i].name != served) continue;
    return fail(ErrorKind::kInvalid, adapter_name(i, served) +
                                         ", the name that the model itself is served under; use "
                                         "another, or set model.servedName");
  }
  return {};
}

json pod_shape(const Spec& spec) {
  // What the accelerator says already is left out like a default.
  Spec shaped = spec;
  if (spec.engine.deterministic == !spec.accelerator.gpu()) shaped.engine.deterministic.reset();
  // Several ranks on GPUs are always written out: see parse_pod_shape().
  const bool ranks_on_gpus = spec.accelerator.gpu() && spec.parallelism.tensor > 1;
  shaped.parallelism.ranks_per_pod.reset();
  if (ranks_on_gpus || spec.ranks_per_pod() > 1) {
    shaped.parallelism.ranks_per_pod = spec.ranks_per_pod();
  }
  const auto write = [](Spec s) {
    Writer writer;
    visit_pod_shape(writer, s);
    return writer.take();
  };
  json shape = write(std::move(shaped));
  leave_out_defaults(shape, write(Spec{}));
  return shape;
}

Result<Spec> parse_pod_shape(const json& shape) {
  auto spec = parse_spec(shape);
  if (spec && !spec->parallelism.ranks_per_pod) spec->parallelism.ranks_per_pod = 1;
  return spec;
}

Spec with_pod_shape(Spec spec, const Spec& shape) {
  Spec out = shape;
  out.replicas = spec.replicas;
  out.scaling = std::move(spec.scaling);
  out.rollout = spec.rollout;
  out.recovery = std::move(spec.recovery);
  out.sizing = std::move(spec.sizing);
  return out;
}

std::string revision_of(const Spec& spec) {
  json shape = pod_shape(spec);
  // The first releases left it out, and models of theirs keep their revisions.
  if (spec.ranks_per_pod() == 1 && shape.contains("parallelism")) {
    shape["parallelism"].erase("ranksPerPod");
  }
  return sha256_hex(shape.dump()).substr(0, 8);
}

std::vector<Field> spec_fields() {
  Lister lister;
  Spec defaults;
  visit_spec(lister, defaults);
  return lister.take();
}

}  // namespace dsm::api
