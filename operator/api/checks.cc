// What a text in the spec may look like. Each check says what to write instead.
#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>

#include "operator/api/names.h"
#include "operator/api/spec_fields.h"
#include "sizing/shape.h"

namespace dsm::api {
namespace {

bool alnum(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0;
}
bool lower_alnum(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

// Every character is a letter, a digit or one of `others`.
bool made_of(std::string_view text, std::string_view others) {
  return std::ranges::all_of(
      text, [&](char c) { return alnum(c) || others.find(c) != std::string_view::npos; });
}

bool alnum_ends(std::string_view text) {
  return !text.empty() && alnum(text.front()) && alnum(text.back());
}

bool dns_label(std::string_view text) {
  return !text.empty() && text.size() <= 63 && lower_alnum(text.front()) &&
         lower_alnum(text.back()) &&
         std::ranges::all_of(text, [](char c) { return lower_alnum(c) || c == '-'; });
}

bool dns_subdomain(std::string_view text) {
  if (text.size() > 253) return false;
  while (true) {
    const auto dot = text.find('.');
    if (!dns_label(text.substr(0, dot))) return false;
    if (dot == std::string_view::npos) return true;
    text.remove_prefix(dot + 1);
  }
}

// A path whose parts are plain names: no "..", nothing that a container's argument would expand.
bool plain_path(std::string_view path) {
  if (path.empty() || !made_of(path, "._/@:+=-")) return false;
  while (true) {
    const auto slash = path.find('/');
    const auto part = path.substr(0, slash);
    if (part.empty() || part == "." || part == "..") return false;
    if (slash == std::string_view::npos) return true;
    path.remove_prefix(slash + 1);
  }
}

std::unexpected<Error> bad(std::string_view text, std::string_view remedy) {
  return fail(ErrorKind::kInvalid, "is \"" + std::string(text) + "\"; " + std::string(remedy));
}

}  // namespace

Result<Seconds> parse_duration(std::string_view text) {
  long number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit = text.substr(static_cast<std::size_t>(end - text.data()));
  const bool sized = error == std::errc() && number >= 0 && number <= 1'000'000;
  if (sized && unit == "s") return Seconds(number);
  if (sized && unit == "m") return Seconds(number * 60);
  if (sized && unit == "h") return Seconds(number * 3600);
  return bad(text, "use a whole number and a unit, such as 90s, 10m or 1h");
}

dsm::Status check_window(std::string_view text) {
  const auto window = parse_duration(text);
  if (!window) return std::unexpected(window.error());
  if (*window >= Seconds(60) && *window <= Seconds(86400)) return {};
  return bad(text, "use 60s to 24h");
}

dsm::Status check_name(std::string_view name) {
  if (dns_label(name) && name.size() <= kMaxNameLength && name.front() >= 'a') return {};
  return fail(ErrorKind::kInvalid, "metadata.name: is \"" + std::string(name) +
                                       "\"; use at most 40 lower-case letters, digits and '-', "
                                       "beginning with a letter");
}

Result<ModelLocation> parse_uri(std::string_view uri) {
  constexpr std::string_view kClaimScheme = "pvc://";
  constexpr std::string_view kImageScheme = "image:///";
  if (uri.starts_with(kImageScheme)) {
    const auto path = uri.substr(kImageScheme.size());
    if (!plain_path(path)) {
      return bad(uri, "after image:/// comes the folder's path in the worker image, without '..'");
    }
    return ModelLocation{ModelLocation::Kind::kImage, "", "/" + std::string(path)};
  }
  if (uri.starts_with(kClaimScheme)) {
    const auto rest = uri.substr(kClaimScheme.size());
    const auto slash = rest.find('/');
    const auto claim = rest.substr(0, slash);
    const auto path = slash == std::string_view::npos ? std::string_view() : rest.substr(slash + 1);
    if (!dns_subdomain(claim)) {
      return bad(uri, "after pvc:// comes the name of a PersistentVolumeClaim");
    }
    if (!path.empty() && !plain_path(path)) {
      return bad(uri, "after the claim comes the folder's path in the volume, without '..'");
    }
    return ModelLocation{ModelLocation::Kind::kClaim, std::string(claim), std::string(path)};
  }
  return bad(uri,
             "use pvc://<claim>/<path> for weights on a PersistentVolumeClaim or "
             "image:///<path> for weights inside the worker image");
}

dsm::Status check_uri(std::string_view text) {
  auto location = parse_uri(text);
  if (!location) return std::unexpected(location.error());
  return {};
}

dsm::Status check_served_name(std::string_view text) {
  if (alnum(text.front()) && made_of(text, "._/:-")) return {};
  return bad(text, "use letters, digits and . _ / : - beginning with a letter or digit");
}

dsm::Status check_model_revision(std::string_view text) {
  if (alnum_ends(text) && made_of(text, "._-")) return {};
  return bad(text, "use letters, digits and . _ - with a letter or digit at both ends");
}

dsm::Status check_image(std::string_view text) {
  if (alnum(text.front()) && made_of(text, "._/:@-")) return {};
  return bad(text, "use an image reference such as registry.example/worker:1.0");
}

dsm::Status check_label_key(std::string_view text) {
  const auto slash = text.find('/');
  const auto name = slash == std::string_view::npos ? text : text.substr(slash + 1);
  const bool prefix_ok = slash == std::string_view::npos || dns_subdomain(text.substr(0, slash));
  if (prefix_ok && name.size() <= 63 && alnum_ends(name) && made_of(name, "._-")) return {};
  return bad(text, "use a Kubernetes key: [prefix/]name, the name of at most 63 characters");
}

dsm::Status check_label_value(std::string_view text) {
  if (text.empty() || (alnum_ends(text) && made_of(text, "._-"))) return {};
  return bad(text, "use letters, digits and . _ - with a letter or digit at both ends");
}

dsm::Status check_own_label_key(std::string_view text) {
  if (auto ok = check_label_key(text); !ok) return ok;
  const auto prefix = text.substr(0, text.find('/'));
  if (prefix == kGroup || text == kNameLabel || text == kManagedByLabel) {
    return bad(text, "this key is the operator's own; choose another");
  }
  return {};
}

dsm::Status check_any_text(std::string_view) {
  return {};
}

dsm::Status check_quantity(std::string_view text) {
  const auto digits = std::ranges::find_if_not(
      text, [](char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0 || c == '.'; });
  const std::string_view number = text.substr(0, static_cast<std::size_t>(digits - text.begin()));
  const std::string_view unit = text.substr(number.size());
  constexpr std::array<std::string_view, 15> kUnits = {"",   "m",  "k",  "M",  "G",  "T",  "P", "E",
                                                       "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "u"};
  const bool number_ok = !number.empty() && number != "." && std::ranges::count(number, '.') <= 1;
  if (number_ok && std::ranges::find(kUnits, unit) != kUnits.end()) return {};
  return bad(text, "use a quantity such as 2, 500m or 4Gi");
}

dsm::Status check_env_name(std::string_view text) {
  if (text == "POD_IP") return bad(text, "the operator sets POD_IP itself");
  if (made_of(text, "_") && std::isdigit(static_cast<unsigned char>(text.front())) == 0) return {};
  return bad(text, "use letters, digits and _ not beginning with a digit");
}

dsm::Status check_chat_template(std::string_view text) {
  if (dns_subdomain(text)) return {};
  return bad(text, "use the name of a built-in template, such as deepseek-v3.1");
}

dsm::Status check_quantization(std::string_view text) {
  for (const char* known : {"Auto", "None", "FP8", "INT8", "INT4"}) {
    if (text == known) return {};
  }
  return bad(text, "use Auto, None, FP8, INT8 or INT4");
}

dsm::Status check_activation_quantization(std::string_view text) {
  if (text == "None" || text == "FP8") return {};
  return bad(text, "use None or FP8");
}

dsm::Status check_kv_cache_dtype(std::string_view text) {
  if (text == "Auto" || text == "FP32" || text == "BF16" || text == "FP8") return {};
  return bad(text, "use Auto, FP32, BF16 or FP8");
}

dsm::Status check_speculation_method(std::string_view text) {
  if (text == "Ngram" || text == "Mtp") return {};
  return bad(text, "use Ngram or Mtp");
}

dsm::Status check_toleration_op(std::string_view text) {
  if (text == "Equal" || text == "Exists") return {};
  return bad(text, "use Equal or Exists");
}

dsm::Status check_toleration_effect(std::string_view text) {
  if (text == "NoSchedule" || text == "PreferNoSchedule" || text == "NoExecute") return {};
  return bad(text, "use NoSchedule, PreferNoSchedule or NoExecute, or leave it out for all");
}

dsm::Status check_dns_name(std::string_view text) {
  if (dns_subdomain(text)) return {};
  return bad(text, "use lower-case letters, digits, '-' and '.'");
}

// It becomes a label of the pods, and so is shorter than other names.
dsm::Status check_queue_name(std::string_view text) {
  if (dns_subdomain(text)) return {};
  return bad(text, "use the name of a LocalQueue: lower-case letters, digits, '-' and '.'");
}

dsm::Status check_resource(std::string_view text) {
  if (text == "cpu" || text == "nvidia.com/gpu") return {};
  return bad(text, "use cpu or nvidia.com/gpu, or leave it out for cpu");
}

// A family that is not known here may be known to the worker's image.
dsm::Status check_model_config(std::string_view text) {
  const auto shape = sizing::parse_shape(text, "is not the text of a config.json");
  if (shape || shape.error().kind == ErrorKind::kNotFound) return {};
  return std::unexpected(shape.error());
}

dsm::Status check_schedule_name(std::string_view text) {
  if (dns_subdomain(text)) return {};
  return bad(text, "use lower-case letters, digits, - and . with a letter or digit at both ends");
}

dsm::Status check_days(std::string_view text) {
  if (auto days = parse_days(text); !days) return std::unexpected(days.error());
  return {};
}

dsm::Status check_time_of_day(std::string_view text) {
  if (auto time = parse_time_of_day(text); !time) return std::unexpected(time.error());
  return {};
}

dsm::Status check_any_zone(std::string_view /*text*/) {
  return {};
}

}  // namespace dsm::api
