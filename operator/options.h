// How the operator is started: its flags as one struct, read once in main.
#pragma once

#include <cstdint>
#include <string>

#include "base/flags.h"
#include "base/log.h"
#include "kube/lease.h"

namespace dsm {

struct OperatorOptions {
  std::string kubeconfig;  // "": in the cluster
  std::string context;
  std::string ns;  // watch only this one; "": all
  int workers = 8;
  std::string worker_image = "localhost/deepseek-worker:dev";
  std::string worker_image_cuda;  // of models on GPUs; "": they name one themselves
  std::string rdma_resource = "rdma/hca";
  std::string gpu_runtime_class;  // of pods on GPUs; "": the nodes' default
  bool kueue = true;              // pods may be put into queues of Kueue
  bool coscheduling = false;      // groups may have PodGroups, where the cluster has that kind
  std::string pull_policy = "IfNotPresent";
  int worker_status_port = 8001;
  std::string tenant_owner_role;  // ClusterRole of tenants' owners; "": there are no tenants

  bool leader_elect = true;
  std::string lease_name = "deepseek-operator";
  std::string lease_namespace;  // "": the one of the credentials
  std::string identity;         // "": host name and a random part
  double lease_duration_s = 15;
  double renew_deadline_s = 10;
  double retry_period_s = 2;

  std::string listen = "0.0.0.0";
  int port = 8080;  // metrics and health

  bool metrics_api = false;         // serve external.metrics.k8s.io, or else custom.metrics.k8s.io,
  int metrics_api_port = 8443;      // over TLS
  std::string metrics_api_service;  // Service of that port, in the Lease's namespace
  std::string metrics_api_owner;    // ClusterRole that owns what we make for it

  int keda_port = 0;  // of KEDA's external scaler, gRPC; 0: none

  std::string log_level = "info";
  std::string log_format = "json";

  // Binds the flags to the fields.
  void add_to(Flags& flags);
  // kInvalid with a sentence for values that cannot work.
  Status check() const;
  kube::LeaseTimes lease_times() const;
};

}  // namespace dsm
