// Carries a Plan out: one request per line of it, in the order that operator/plan/plan.h fixes, and
// nothing that the plan does not say. Answers go into the store, refusals into the failures. A step
// that is refused does not stop the later ones; a server that does not answer does. Blocks the
// caller; thread-safe for different models.
#pragma once

#include <optional>

#include "base/log.h"
#include "kube/events.h"
#include "operator/plan/plan.h"
#include "operator/runtime/failures.h"
#include "operator/runtime/secrets.h"
#include "operator/runtime/store.h"

namespace dsm::runtime {

struct Outcome {
  int writes = 0;              // requests that changed something
  std::optional<Error> error;  // the first failure; the model is to be looked at again
  bool status_written = false;
  // The answer to a status shows a model that was edited since it was looked at. Its watch may
  // bring no news of that, since the answer is newer.
  bool overtaken = false;
  bool cut_off = false;  // a request was not answered: whether it took effect is not known
};

class Executor {
 public:
  // All must outlive the executor.
  Executor(kube::Client& client, kube::EventRecorder& events, Store& store, Secrets& secrets,
           Failures& failures, Logger log);

  Outcome run(const plan::Plan& plan, const Json& model);

 private:
  struct Run;

  void remove(const plan::Removal& removal, Run& run);
  void release(const plan::Release& held, Run& run);
  void write(const plan::ChildWrite& child, Run& run);
  void create_pod(const Json& pod, Run& run);
  void write_status(const Json& status, Run& run);
  void failed(Run& run, const std::string& kind, const std::string& name,
              const kube::ApiError& error);
  // Puts an answer where the next look finds it.
  void keep(const Run& run, const std::string& kind, Json object);
  // It is not there any more.
  void erase(const kube::Resource& resource, const std::string& key, const std::string& uid);

  kube::Client& client_;
  kube::EventRecorder& events_;
  Store& store_;
  Secrets& secrets_;
  Failures& failures_;
  const Logger log_;
};

// The resource of a kind that plans name; nullptr for any other.
const kube::Resource* resource_of(const std::string& kind);

}  // namespace dsm::runtime
