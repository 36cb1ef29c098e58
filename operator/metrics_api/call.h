// What a request to one of Kubernetes' metrics APIs asks for. Pure.
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "base/result.h"
#include "operator/metrics_api/selector.h"

namespace dsm::metrics_api {

// An API group with the version of it that we serve.
struct Group {
  std::string_view name;
  std::string_view version;
  std::string_view list_kind;  // of the answer with numbers

  std::string api_version() const { return std::string(name) + "/" + std::string(version); }
  // Name of the APIService by which the API server finds who serves it.
  std::string api_service() const { return std::string(version) + "." + std::string(name); }

  bool operator==(const Group&) const = default;
};
// Numbers of anything, told apart by labels.
inline constexpr Group kExternalMetrics{"external.metrics.k8s.io", "v1beta1",
                                        "ExternalMetricValueList"};
// Numbers of an object in the cluster. Who serves an older version of the group has it, too.
inline constexpr Group kCustomMetrics{"custom.metrics.k8s.io", "v1beta2", "MetricValueList"};
inline constexpr std::array kServedGroups = {kExternalMetrics, kCustomMetrics};
inline constexpr std::string_view kOlderCustomApiService = "v1beta1.custom.metrics.k8s.io";

// DeepSeekModels as custom metrics name them: <plural>.<group>.
inline constexpr std::string_view kModelsResource = "deepseekmodels.deepseek-operator.io";

struct Call {
  enum class Kind {
    kHealth,     // /healthz, /livez, /readyz
    kGroups,     // /apis
    kGroup,      // /apis/<group>
    kResources,  // /apis/<group>/<version>
    kExternal,   // .../namespaces/{ns}/{metric}?labelSelector=
    kObject,     // .../namespaces/{ns}/<models>/{model}/{metric}?metricLabelSelector=
    kOther,      // anything else: 404, for those who may ask
  };
  Kind kind = Kind::kOther;
  std::string path;
  Group group;  // of all but kHealth, kGroups and kOther
  std::string ns;
  std::string model;  // of kObject
  std::string metric;
  Selector selector;  // over the metric's labels

  // The only model that can be meant, as autoscalers ask; empty: any of the namespace may be.
  std::string only_model() const;
  bool asks_numbers() const { return kind == Kind::kExternal || kind == Kind::kObject; }
};

// `path` is decoded, `query` is not. kInvalid: the path or a selector cannot be read.
Result<Call> call_of(std::string path, std::string_view query);

}  // namespace dsm::metrics_api
