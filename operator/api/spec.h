// What a user may say in a DeepSeekModel's spec, as a typed value. parse_spec() is the only place
// that reads the JSON; it knows the same fields, defaults and bounds as crds/deepseekmodels.yaml
// (a test holds the two together), because an object may have been stored under another schema.
// Plain values, no threading concerns.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "operator/api/schedule.h"

namespace dsm::api {

using StringMap = std::map<std::string, std::string>;

// Where the weights are. `path` is what the worker reads: below the claim's root for kClaim,
// absolute inside the worker image for kImage.
struct ModelLocation {
  enum class Kind { kClaim, kImage };
  Kind kind = Kind::kImage;
  std::string claim;  // name of the PersistentVolumeClaim; empty for kImage
  std::string path;
};

struct Model {
  std::string uri;                    // pvc://<claim>/<path> or image:///<absolute path>
  std::string served_name;            // empty: the name of the DeepSeekModel
  std::string revision;               // the user's own name for the version of the weights
  std::string chat_template;          // a built-in one by its name; empty: the checkpoint's own
  std::string quantization = "Auto";  // of weights: Auto, None, FP8, INT8 or INT4
  std::string activation_quantization = "None";  // None, or FP8 where weights are in FP8
};

// A LoRA adapter that is served beside the model under a name of its own.
struct Adapter {
  std::string name;  // what clients put into `model` of a request
  std::string uri;   // as Model::uri
};

struct Parallelism {
  int tensor = 1;                    // ranks in a group: 1, 2, 4 or 8
  std::optional<int> ranks_per_pod;  // divides tensor; absent: see Spec::ranks_per_pod()
};

// What the ranks compute on. The other fields speak of GPUs.
struct Accelerator {
  std::string resource = "cpu";      // cpu or nvidia.com/gpu
  std::vector<std::string> product;  // of these, as nodes are labelled; empty: any
  std::string memory;                // of one GPU, a quantity; empty: not known
  bool rdma = false;                 // pods of a group talk by RDMA instead of TCP

  bool gpu() const { return resource != "cpu"; }
};

// Tokens guessed ahead of the model and checked by it.
struct Speculation {
  std::string method;  // Ngram or Mtp; empty: none
  int tokens = 1;      // at a time
};

// Absent numbers are left to the worker, which derives them from the model and its container.
struct Engine {
  std::optional<int> max_model_len;
  std::optional<int> max_num_seqs;
  std::optional<int> max_num_batched_tokens;
  std::optional<int> kv_cache_tokens;
  std::string kv_cache_dtype = "Auto";  // Auto, FP32, BF16 or FP8
  bool prefix_caching = true;
  std::optional<bool> deterministic;     // absent: on CPUs (Spec::deterministic())
  bool data_parallel_attention = false;  // each rank attends to sequences of its own
  bool expert_parallel = false;          // each rank has some experts whole, not a part of each
  int threads = 0;                       // 0: as many as the container may use cores
  bool grpc = false;                     // the leaders serve the simple API over gRPC, too
  bool sleep_mode = false;               // GPUs' memory is mapped so that groups can sleep
  Speculation speculation;
};

// Groups by load instead of by hand; off until max_replicas is given.
struct Scaling {
  int min_replicas = 1;
  std::optional<int> max_replicas;
  int queue_depth = 5;                  // waiting requests for each group that are aimed at
  std::optional<int> running;           // running ones; absent: only the queue counts
  int scale_down_window_seconds = 300;  // how long less must be enough before groups go
  std::vector<Schedule> schedules;      // other bounds at times; the first that holds decides

  bool on() const { return max_replicas.has_value(); }
};

struct Rollout {
  int max_surge = 1;
  int max_unavailable = 0;
  int history_limit = 5;  // revisions that nothing uses and that are kept for a revert
  bool paused = false;    // groups of other revisions stay as they are
};

// When a group that keeps ending is given up and made anew.
struct Recovery {
  int max_restarts = 5;        // of its containers together
  std::string window = "10m";  // without a restart for so long, those before are forgotten
};

// What is said of the model's size, so that it is known before a pod is made whether it fits.
struct Sizing {
  std::string model_config;  // text of the checkpoint's config.json; empty: nothing is checked
};

struct Toleration {
  std::string key;
  std::string op = "Equal";  // Equal or Exists
  std::string value;
  std::string effect;  // empty: every effect
  std::optional<long> seconds;
};

struct Placement {
  StringMap node_selector;
  std::vector<Toleration> tolerations;
  std::string priority_class_name;
  std::string
      topology_key;        // all pods of a group in one domain of this node label; empty: anywhere
  std::string queue_name;  // Kueue's LocalQueue that admits the groups; empty: none
  std::string scheduler_name;  // that gives the pods their nodes; empty: the cluster's default
};

struct EnvVar {
  std::string name;
  std::string value;
};

struct Template {
  StringMap labels;
  StringMap annotations;
  std::vector<EnvVar> env;
  StringMap requests;  // resource name -> quantity
  StringMap limits;
};

struct Spec {
  Model model;
  std::vector<Adapter> adapters;
  Parallelism parallelism;
  int replicas = 1;    // groups
  bool sleep = false;  // groups give their devices' memory back and refuse requests
  std::string image;   // empty: the operator's default worker image
  Accelerator accelerator;
  Engine engine;
  Rollout rollout;
  Scaling scaling;
  Recovery recovery;
  Sizing sizing;
  int drain_seconds = 60;
  Placement placement;
  Template pod_template;

  bool deterministic() const { return engine.deterministic.value_or(!accelerator.gpu()); }

  // GPUs of one pod reach each other's memory, those of different pods mostly do not.
  int ranks_per_pod() const {
    return parallelism.ranks_per_pod.value_or(accelerator.gpu() ? parallelism.tensor : 1);
  }
  int pods_per_group() const { return parallelism.tensor / ranks_per_pod(); }
};

// Longest name of a DeepSeekModel: names of children grow from it and must stay DNS labels.
inline constexpr std::size_t kMaxNameLength = 40;

// Reads and checks a spec. An error is kInvalid, names the field's path and says what to write
// instead ("spec.parallelism.tensor: is 3; use 1, 2, 4 or 8"). Unknown fields are refused.
Result<Spec> parse_spec(const nlohmann::json& spec);

// The name that clients call the model by; `name` is that of the DeepSeekModel.
std::string served_name(const Spec& spec, const std::string& name);

// What parse_spec() cannot see, because it is not told the object's name: no adapter is called as
// the model is.
dsm::Status check_adapter_names(const Spec& spec, const std::string& name);

// The model's own name as a child's name grows from it: DNS-1035, at most kMaxNameLength.
dsm::Status check_name(std::string_view name);

// Reads "90s", "10m" or "1h"; the same check parse_spec() makes.
Result<Seconds> parse_duration(std::string_view text);

// Splits a model's or an adapter's uri; the same check parse_spec() makes.
Result<ModelLocation> parse_uri(std::string_view uri);

// The part of the spec that shapes pods (all but replicas, sleep, scaling, rollout, recovery and
// sizing) as JSON with every default left out, so that a field added by a later release does not
// change the text of an older spec. parse_pod_shape() reads it back.
nlohmann::json pod_shape(const Spec& spec);

// Reads what pod_shape() of this release or an older one has written: where ranksPerPod is absent
// it is 1, on GPUs as well, because that was its default everywhere.
Result<Spec> parse_pod_shape(const nlohmann::json& shape);

// `spec` with another one's part that shapes pods.
Spec with_pod_shape(Spec spec, const Spec& shape);

// Eight hexadecimal digits of the pod shape's SHA-256: the revision's name.
std::string revision_of(const Spec& spec);

// A field that parse_spec() knows, for the test that compares it with the CRD. Paths look like
// "model.uri", "placement.tolerations[].key", "template.labels{}".
struct Field {
  std::string path;
  std::string type;              // string, integer, boolean
  nlohmann::json default_value;  // null: none
  std::optional<long> min;       // of an integer
  std::optional<long> max;       // of an integer; of a string its length
};
std::vector<Field> spec_fields();

}  // namespace dsm::api
