// The objects that a model has beside its pods, as JSON, and how they compare with what is there.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "operator/api/spec.h"

namespace dsm::plan {

// Who owns a child.
struct Owner {
  std::string name;  // of the DeepSeekModel
  std::string ns;
  std::string uid;
};

// A revision as its ControllerRevision holds it: enough to make any pod of it again, also after
// the spec was changed and the operator was upgraded.
struct Revision {
  std::string name;
  api::Spec spec;       // replicas, scaling and rollout are defaults
  std::string image;    // resolved
  long number = 0;      // in the order in which they were wanted, or have served (history.h)
  bool served = false;  // it has been rolled out whole
  WallTime created = {};
};

// metadata of a child: name, namespace, labels that every child has, owner.
nlohmann::json child_metadata(const Owner& owner, std::string_view name);

// Service <model>: the ready leaders, port 80 and, with `grpc`, port 50051.
nlohmann::json serving_service_json(const Owner& owner, bool grpc);
// Headless Service <model>-ranks: a DNS name for each pod, also before it is ready.
nlohmann::json ranks_service_json(const Owner& owner);
// Secret <model>-internal with the token of the internal port.
nlohmann::json token_secret_json(const Owner& owner, const std::string& token);
// ControllerRevision <model>-<revision>.
nlohmann::json revision_json(const Owner& owner, const Revision& revision);

// nullopt when the object is not a revision that this release can read.
std::optional<Revision> parse_revision(const nlohmann::json& object);

// uid of the object's controlling owner; empty: it has none.
std::string controller_uid(const nlohmann::json& object);

// True when everything that `wanted` says is so in `actual`, which may say more. Lists must have
// the same length.
bool says_the_same(const nlohmann::json& wanted, const nlohmann::json& actual);

// True when a Service has the ports that `wanted` has, by their key (number and protocol). An apply
// cannot mend a changed key: it adds ours beside the other one.
bool same_port_keys(const nlohmann::json& wanted, const nlohmann::json& actual);

}  // namespace dsm::plan
