#include "ctl/manifest.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>

#include "ctl/objects.h"
#include "operator/api/names.h"

namespace dsm::ctl {
namespace {

using nlohmann::json;

// Aliases can make a short text a large value.
constexpr int kMostValues = 100'000;
constexpr int kDeepest = 100;

constexpr const char* kLastApplied = "kubectl.kubernetes.io/last-applied-configuration";

bool one_of(std::string_view text, std::initializer_list<std::string_view> list) {
  return std::ranges::find(list, text) != list.end();
}

// A plain scalar by the rules of YAML 1.1, as kubectl reads it.
json plain_value(const std::string& text) {
  if (one_of(text, {"", "~", "null", "Null", "NULL"})) return nullptr;
  if (one_of(text, {"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON", "y", "Y"})) {
    return true;
  }
  if (one_of(text, {"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF", "n", "N"})) {
    return false;
  }
  const char* end = text.data() + text.size();
  long whole = 0;
  if (const auto read = std::from_chars(text.data(), end, whole);
      read.ec == std::errc() && read.ptr == end) {
    return whole;
  }
  double number = 0;
  const bool begins_as_number = text.find_first_of("0123456789") < 2;  // not inf, not nan
  if (const auto read = std::from_chars(text.data(), end, number);
      begins_as_number && read.ec == std::errc() && read.ptr == end) {
    return number;
  }
  return text;
}

class Converter {
 public:
  json convert(const YAML::Node& node, const std::string& path, int depth = 0) {
    if (--left_ < 0) throw Error{ErrorKind::kInvalid, "the file has too many values"};
    if (depth > kDeepest) throw Error{ErrorKind::kInvalid, "the file is nested too deeply"};
    switch (node.Type()) {
      case YAML::NodeType::Scalar:
        // "!" is the tag of a quoted scalar, which is a text whatever it looks like.
        return node.Tag() == "?" ? plain_value(node.Scalar()) : json(node.Scalar());
      case YAML::NodeType::Sequence: {
        json list = json::array();
        for (const YAML::Node& item : node) {
          list.push_back(convert(item, path + "[" + std::to_string(list.size()) + "]", depth + 1));
        }
        return list;
      }
      case YAML::NodeType::Map: {
        json object = json::object();
        for (const auto& entry : node) {
          const std::string key = entry.first.IsScalar() ? entry.first.Scalar() : "";
          const std::string at = path.empty() ? key : path + "." + key;
          if (object.contains(key)) {
            throw Error{ErrorKind::kInvalid, at + ": stands twice; remove one of them"};
          }
          object[key] = convert(entry.second, at, depth + 1);
        }
        return object;
      }
      default:
        return nullptr;
    }
  }

 private:
  int left_ = kMostValues;
};

// Takes out of `target` what was said and is not said any more.
void take_away(json& target, const json& said, const json& says) {
  if (!target.is_object() || !said.is_object() || !says.is_object()) return;
  for (const auto& [key, value] : said.items()) {
    const auto still = says.find(key);
    if (still == says.end()) {
      target.erase(key);
    } else if (target.contains(key)) {
      take_away(target[key], value, *still);
    }
  }
}

dsm::Status check(const json& model) {
  if (text_at(model, "/apiVersion") != api::kApiVersion) {
    return fail(ErrorKind::kInvalid, "apiVersion: is \"" + text_at(model, "/apiVersion") +
                                         "\"; use " + std::string(api::kApiVersion));
  }
  if (name_of(model).empty()) {
    return fail(ErrorKind::kInvalid, "metadata.name: is missing; it is required");
  }
  if (!part(model, "/spec").is_object()) {
    return fail(ErrorKind::kInvalid, "spec: is missing; it is required");
  }
  return {};
}

}  // namespace

Result<Manifest> parse_manifest(const std::string& text) {
  if (text.size() > kLongestManifest) {
    return fail(ErrorKind::kInvalid, "the file is larger than 1 MiB");
  }
  Manifest manifest;
  try {
    Converter converter;
    for (const YAML::Node& document : YAML::LoadAll(text)) {
      json object = converter.convert(document, "");
      if (object.is_null()) continue;  // nothing between two "---"
      const std::string kind = text_at(object, "/kind");
      if (kind != api::kKind) {
        manifest.others.push_back(kind + " " + name_of(object));
        continue;
      }
      if (auto ok = check(object); !ok) return std::unexpected(ok.error());
      manifest.models.push_back(std::move(object));
    }
  } catch (const YAML::Exception& e) {
    return fail(ErrorKind::kInvalid, std::string("not YAML: ") + e.what());
  } catch (const Error& e) {
    return std::unexpected(e);
  }
  if (manifest.models.empty()) {
    return fail(ErrorKind::kInvalid, "there is no DeepSeekModel in it");
  }
  return manifest;
}

json applied(const json& live, const json& manifest) {
  if (!live.is_object()) {
    json model = manifest;
    model["metadata"]["generation"] = 1;
    model["metadata"]["uid"] = "not-made-yet";  // children are owned by something
    return model;
  }
  json model = live;
  const json& said = part(live, "/metadata/annotations");
  if (said.is_object() && said.contains(kLastApplied) && said[kLastApplied].is_string()) {
    const json last = json::parse(said[kLastApplied].get<std::string>(), nullptr, false);
    take_away(model["spec"], part(last, "/spec"), part(manifest, "/spec"));
  }
  model["spec"].merge_patch(part(manifest, "/spec"));
  if (model["spec"] != part(live, "/spec")) {
    const json& generation = part(live, "/metadata/generation");
    model["metadata"]["generation"] =
        1 + (generation.is_number_integer() ? generation.get<long>() : 0);
  }
  return model;
}

}  // namespace dsm::ctl
