// Typed verbs on JSON objects over a Transport. What it adds to plain requests: Status objects
// become ApiErrors; 401 reads the token again and tries once more; 429 and 503 with Retry-After are
// tried again in place a few times; every request is counted; a write can be held back by a gate
// (a lease that runs out). Blocks the caller. Thread-safe.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <stop_token>
#include <string>
#include <vector>

#include "base/clock.h"
#include "kube/api_error.h"
#include "kube/request.h"
#include "kube/transport.h"

namespace dsm::kube {

using Json = nlohmann::json;

// Called after each attempt; code 0: no answer.
using RequestObserver = std::function<void(const std::string& method, int code, double seconds)>;

struct ClientOptions {
  std::string field_manager = "deepseek-operator";
  Millis timeout{8000};  // of one attempt
  int max_retries = 3;   // of a request that the server put off
  Millis longest_wait{10000};
  RequestObserver observe;  // may be empty
  // Asked before each attempt of a write that may last until `end`; false refuses it as kCancelled.
  // Empty: every write goes.
  std::function<bool(TimePoint end)> may_write;
};

struct ObjectList {
  std::vector<Json> items;  // each with apiVersion and kind
  std::string resource_version;
};

class Client {
 public:
  // All must outlive the client. `stop` ends waits and requests under way.
  Client(Transport& transport, Clock& clock, ClientOptions options, std::stop_token stop = {});

  ApiResult<Json> get(const Resource& resource, const std::string& ns, const std::string& name);
  // Page by page; answers with the resource version of the last one.
  ApiResult<std::string> list_pages(const Resource& resource, const std::string& ns,
                                    ListOptions options,
                                    const std::function<void(std::vector<Json> items)>& take);
  // All pages together.
  ApiResult<ObjectList> list(const Resource& resource, const std::string& ns,
                             ListOptions options = {});
  ApiResult<Json> create(const Resource& resource, const std::string& ns, const Json& object);
  ApiResult<Json> replace(const Resource& resource, const std::string& ns, const std::string& name,
                          const Json& object);
  // Server-side apply with force; `object` has apiVersion, kind and only the fields that we own.
  ApiResult<Json> apply(const Resource& resource, const std::string& ns, const std::string& name,
                        const Json& object);
  ApiResult<Json> apply_status(const Resource& resource, const std::string& ns,
                               const std::string& name, const Json& object);
  ApiResult<Json> merge_patch(const Resource& resource, const std::string& ns,
                              const std::string& name, const Json& patch);
  // Of Kubernetes' own kinds.
  ApiResult<Json> strategic_patch(const Resource& resource, const std::string& ns,
                                  const std::string& name, const Json& patch);
  // The object as it was left (a pod with its deletionTimestamp) or a Status object.
  ApiResult<Json> remove(const Resource& resource, const std::string& ns, const std::string& name,
                         const DeleteOptions& options);

  // Any request, answered with a 2xx body; `context` begins an error's message.
  ApiResult<HttpResponse> send(const HttpRequest& request, const std::string& context);
  // A stream of bytes, without retries; see Transport::stream. Any status comes back as a response.
  Result<HttpResponse> stream(const HttpRequest& request, Millis idle_timeout,
                              const std::function<void(std::string_view)>& on_bytes,
                              std::stop_token stop);

  Transport& transport() { return transport_; }
  Clock& clock() { return clock_; }

 private:
  ApiResult<Json> send_json(const HttpRequest& request, const std::string& context);
  Result<HttpResponse> attempt(const HttpRequest& request);
  void observe(const HttpRequest& request, const Result<HttpResponse>& answer, TimePoint begin);

  Transport& transport_;
  Clock& clock_;
  const ClientOptions options_;
  const std::stop_token stop_;
};

// Gives the items of a list the apiVersion and kind that the server says only once.
void name_list_items(Json& list);

}  // namespace dsm::kube
