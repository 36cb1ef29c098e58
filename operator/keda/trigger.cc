#include "operator/keda/trigger.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <string_view>

namespace dsm::keda {
namespace {

constexpr std::array<std::string_view, 4> kMetrics{
    "dsm_queue_depth", "dsm_queue_age_seconds", "dsm_requests_running", "dsm_kv_cache_usage_ratio"};
// Where the scaler is and how it is reached: KEDA reads these itself and hands them on.
constexpr std::array<std::string_view, 6> kOfKeda{"scalerAddress", "caCert",       "tlsCertFile",
                                                  "tlsClientCert", "tlsClientKey", "unsafeSsl"};

std::unexpected<Error> wrong(const std::string& key, const std::string& what) {
  return fail(ErrorKind::kInvalid, "metadata." + key + ": " + what);
}

Status read_number(const std::string& key, const std::string& text, double least, double& out) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || !std::isfinite(value) || value < least) {
    return wrong(key, "is \"" + text + "\"; use a number " +
                          (least > 0 ? std::string("greater than 0") : "from 0 on"));
  }
  out = value;
  return {};
}

}  // namespace

Result<Trigger> parse_trigger(const std::string& ns,
                              const std::map<std::string, std::string>& metadata) {
  constexpr double kLeastTarget = 1e-9;
  Trigger out{.ns = ns, .model = {}, .metric = std::string(kMetrics[0])};
  for (const auto& [key, value] : metadata) {
    Status read;
    if (key == "model") {
      out.model = value;
    } else if (key == "metric") {
      if (std::ranges::find(kMetrics, value) == kMetrics.end()) {
        return wrong(key, "is \"" + value +
                              "\"; use dsm_queue_depth, dsm_queue_age_seconds, "
                              "dsm_requests_running or dsm_kv_cache_usage_ratio");
      }
      out.metric = value;
    } else if (key == "target") {
      read = read_number(key, value, kLeastTarget, out.target);
    } else if (key == "activation") {
      read = read_number(key, value, 0, out.activation);
    } else if (std::ranges::find(kOfKeda, key) == kOfKeda.end()) {
      return wrong(key, "is not known; there are model, metric, target and activation");
    }
    if (!read) return std::unexpected(read.error());
  }
  if (out.model.empty()) return wrong("model", "is missing; name the DeepSeekModel");
  return out;
}

}  // namespace dsm::keda
