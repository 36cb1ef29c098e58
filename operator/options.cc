#include "operator/options.h"

#include <algorithm>

namespace dsm {
namespace {

Millis millis(double seconds) {
  return Millis(static_cast<std::int64_t>(seconds * 1000));
}

}  // namespace

void OperatorOptions::add_to(Flags& flags) {
  flags.add("kubeconfig", &kubeconfig, "kubeconfig file; empty: the pod's service account");
  flags.add("context", &context, "context in the kubeconfig; empty: its current one");
  flags.add("namespace", &ns, "watch only this namespace; empty: all");
  flags.add("workers", &workers, "models that are looked at at the same time");
  flags.add("worker-image", &worker_image, "worker image for models that name none");
  flags.add("worker-image-cuda", &worker_image_cuda, "the same for models on GPUs; empty: none");
  flags.add("rdma-resource", &rdma_resource,
            "resource of which a pod asks for one when its model wants RDMA");
  flags.add("gpu-runtime-class", &gpu_runtime_class,
            "RuntimeClass of pods on GPUs; empty: the default of their nodes");
  flags.add("kueue", &kueue, "put pods into the queues of Kueue that models name");
  flags.add("coscheduling", &coscheduling,
            "make PodGroups for models that name a scheduler, where the cluster has that kind");
  flags.add("image-pull-policy", &pull_policy, "Always, IfNotPresent or Never, for worker pods");
  flags.add("worker-status-port", &worker_status_port, "port of the workers' status streams");
  flags.add(
      "tenant-owner-role", &tenant_owner_role,
      "make DeepSeekTenants true, with this ClusterRole for their owners; empty: there are none");
  flags.add("leader-elect", &leader_elect, "write only while holding the Lease");
  flags.add("lease-name", &lease_name, "name of the Lease");
  flags.add("lease-namespace", &lease_namespace, "namespace of the Lease; empty: our own");
  flags.add("identity", &identity, "our name in the Lease; empty: host name and a random part");
  flags.add("lease-duration", &lease_duration_s, "seconds until others may take over");
  flags.add("lease-renew-deadline", &renew_deadline_s, "seconds until the leader gives up");
  flags.add("lease-retry-period", &retry_period_s, "seconds between renewals");
  flags.add("listen", &listen, "address of /metrics, /healthz and /readyz");
  flags.add("port", &port, "port of /metrics, /healthz and /readyz");
  flags.add("metrics-api", &metrics_api,
            "serve external.metrics.k8s.io, or else custom.metrics.k8s.io, to autoscalers");
  flags.add("metrics-api-port", &metrics_api_port, "TLS port of these APIs");
  flags.add("metrics-api-service", &metrics_api_service,
            "Service of that port, in the Lease's namespace");
  flags.add("metrics-api-owner", &metrics_api_owner,
            "ClusterRole that owns the APIService and the certificate: they go when it goes");
  flags.add("keda-port", &keda_port, "gRPC port of KEDA's external scaler; 0: none");
  flags.add("log-level", &log_level, "info or debug");
  flags.add("log-format", &log_format, "text or json");
}

kube::LeaseTimes OperatorOptions::lease_times() const {
  kube::LeaseTimes times;
  times.duration = millis(lease_duration_s);
  times.renew_deadline = millis(renew_deadline_s);
  times.retry = millis(retry_period_s);
  times.look = std::min(times.look, times.retry);
  return times;
}

Status OperatorOptions::check() const {
  const auto one_of = [](const std::string& value, std::initializer_list<const char*> known) {
    return std::ranges::find(known, value) != known.end();
  };
  if (!one_of(log_level, {"info", "debug"})) {
    return fail(ErrorKind::kInvalid, "--log-level is info or debug");
  }
  if (!one_of(log_format, {"text", "json"})) {
    return fail(ErrorKind::kInvalid, "--log-format is text or json");
  }
  if (!one_of(pull_policy, {"Always", "IfNotPresent", "Never"})) {
    return fail(ErrorKind::kInvalid, "--image-pull-policy is Always, IfNotPresent or Never");
  }
  if (!ns.empty() && !tenant_owner_role.empty()) {
    return fail(ErrorKind::kInvalid,
                "--tenant-owner-role cannot be used with --namespace: tenants have several");
  }
  if (rdma_resource.find('/') == std::string::npos) {
    return fail(ErrorKind::kInvalid,
                "--rdma-resource is the name of a device plugin's resource, such as rdma/hca");
  }
  if (workers < 1 || workers > 64) return fail(ErrorKind::kInvalid, "--workers is 1 to 64");
  if (port < 0 || port > 65535) return fail(ErrorKind::kInvalid, "--port is 0 to 65535");
  if (keda_port < 0 || keda_port > 65535) {
    return fail(ErrorKind::kInvalid, "--keda-port is 0 to 65535");
  }
  if (metrics_api_port < 0 || metrics_api_port > 65535) {
    return fail(ErrorKind::kInvalid, "--metrics-api-port is 0 to 65535");
  }
  if (metrics_api && (metrics_api_service.empty() || metrics_api_owner.empty())) {
    return fail(ErrorKind::kInvalid,
                "--metrics-api needs --metrics-api-service and --metrics-api-owner");
  }
  if (metrics_api && !ns.empty()) {
    return fail(ErrorKind::kInvalid,
                "--metrics-api answers for the whole cluster: leave out --namespace, or it");
  }
  if (worker_status_port < 1 || worker_status_port > 65535) {
    return fail(ErrorKind::kInvalid, "--worker-status-port is 1 to 65535");
  }
  return kube::check(lease_times());
}

}  // namespace dsm
