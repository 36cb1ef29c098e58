// Kubernetes API requests as values: which method, which path, which query, which body. No I/O, so
// that tests read URLs and bodies. Bodies are the caller's JSON text; every name and value that
// goes into a URL is percent-encoded here.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "kube/resource.h"

namespace dsm::kube {

struct HttpRequest {
  std::string method = "GET";
  std::string target;  // path and query, encoded: "/api/v1/pods?limit=500"
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  // Sending it twice has the same effect as sending it once, so a transport may send it again after
  // a connection that broke in the middle.
  bool idempotent = true;
};

inline constexpr int kListPageSize = 500;

struct ListOptions {
  std::string label_selector;
  std::string field_selector;
  // "": the newest state; "0": any state that the server has in memory.
  std::string resource_version;
  std::string continue_token;  // of the page before
  int limit = kListPageSize;   // 0: everything in one page
};

struct WatchOptions {
  std::string label_selector;
  std::string field_selector;
  std::string resource_version;
  int timeout_s = 300;  // the server ends the stream after so long
};

struct DeleteOptions {
  std::string uid;               // delete only this incarnation
  std::string resource_version;  // delete only this state of it
  int grace_period_s = -1;       // -1: the object's own
  std::string propagation;       // "", "Background", "Foreground" or "Orphan"
};

struct LogOptions {
  bool follow = false;    // the answer goes on until the container ends
  bool previous = false;  // of the container before its last restart
  long tail_lines = -1;   // only the last ones; -1: all
  long limit_bytes = 0;   // the answer ends after so many; 0: no limit
};

// Which kinds of the resource's group and version the server has.
HttpRequest discovery_request(const Resource& resource);
// `ns` is ignored for cluster-scoped kinds; "" with a namespaced kind means all namespaces (list
// and watch only).
HttpRequest get_request(const Resource& resource, const std::string& ns, const std::string& name);
// Its metadata alone: what is in a Secret does not leave the server.
HttpRequest get_metadata_request(const Resource& resource, const std::string& ns,
                                 const std::string& name);
// What the pod's only container wrote, as text.
HttpRequest log_request(const std::string& ns, const std::string& pod, const LogOptions& options);
HttpRequest list_request(const Resource& resource, const std::string& ns,
                         const ListOptions& options);
HttpRequest watch_request(const Resource& resource, const std::string& ns,
                          const WatchOptions& options);
HttpRequest create_request(const Resource& resource, const std::string& ns, std::string body,
                           const std::string& field_manager);
// Replaces the whole object; the body carries metadata.resourceVersion.
HttpRequest replace_request(const Resource& resource, const std::string& ns,
                            const std::string& name, std::string body,
                            const std::string& field_manager);
// Server-side apply. `subresource` is "" or "status". To meet only one incarnation the body carries
// metadata.uid: the server answers 409 when the object is another one or is gone.
HttpRequest apply_request(const Resource& resource, const std::string& ns, const std::string& name,
                          std::string body, const std::string& field_manager, bool force = true,
                          const std::string& subresource = "");
// JSON merge patch.
HttpRequest merge_patch_request(const Resource& resource, const std::string& ns,
                                const std::string& name, std::string body,
                                const std::string& field_manager,
                                const std::string& subresource = "");
// Strategic merge patch, which Kubernetes' own kinds know: it can take one entry out of a list.
HttpRequest strategic_patch_request(const Resource& resource, const std::string& ns,
                                    const std::string& name, std::string body,
                                    const std::string& field_manager);
HttpRequest delete_request(const Resource& resource, const std::string& ns, const std::string& name,
                           const DeleteOptions& options);

// Everything but letters, digits and "-._~" as %XX.
std::string percent_encode(std::string_view text);

}  // namespace dsm::kube
