#include "kube/client.h"

#include <algorithm>
#include <iterator>

#include "kube/parse.h"
#include "kube/sleep.h"

namespace dsm::kube {
namespace {

constexpr int kUnauthorized = 401;

// The server asks to come back later and has done nothing yet.
bool put_off(const HttpResponse& answer) {
  return answer.status == 429 || (answer.status == 503 && answer.retry_after_s() > 0);
}

std::string words(const char* verb, const Resource& resource, const std::string& ns,
                  const std::string& name) {
  std::string text = std::string(verb) + " " + std::string(resource.plural);
  if (!name.empty()) text += " " + (ns.empty() ? "" : ns + "/") + name;
  return text;
}

std::string name_of(const Json& object) {
  return text_of(member(object, "metadata"), "name");
}

}  // namespace

void name_list_items(Json& list) {
  std::string kind = list.value("kind", std::string());
  if (kind.ends_with("List")) kind.resize(kind.size() - 4);
  const std::string version = list.value("apiVersion", std::string());
  for (Json& item : list["items"]) {
    if (!item.contains("kind")) item["kind"] = kind;
    if (!item.contains("apiVersion")) item["apiVersion"] = version;
  }
}

Client::Client(Transport& transport, Clock& clock, ClientOptions options, std::stop_token stop)
    : transport_(transport), clock_(clock), options_(std::move(options)), stop_(std::move(stop)) {}

void Client::observe(const HttpRequest& request, const Result<HttpResponse>& answer,
                     TimePoint begin) {
  if (!options_.observe) return;
  const std::chrono::duration<double> took = clock_.now() - begin;
  options_.observe(request.method, answer ? answer->status : 0, took.count());
}

Result<HttpResponse> Client::attempt(const HttpRequest& request) {
  const TimePoint begin = clock_.now();
  if (request.method != "GET" && options_.may_write &&
      !options_.may_write(begin + options_.timeout)) {
    return fail(ErrorKind::kCancelled, "held back: the lease is not ours for long enough");
  }
  Result<HttpResponse> answer = transport_.send(request, options_.timeout, stop_);
  observe(request, answer, begin);
  return answer;
}

ApiResult<HttpResponse> Client::send(const HttpRequest& request, const std::string& context) {
  Result<HttpResponse> answer = attempt(request);
  if (answer && answer->status == kUnauthorized) {
    transport_.refresh_credentials();
    answer = attempt(request);
  }
  for (int tries = 0; answer && put_off(*answer) && tries < options_.max_retries; ++tries) {
    const Millis wait = std::max<Millis>(Seconds(answer->retry_after_s()), Seconds(1));
    if (wait > options_.longest_wait || !sleep_for(clock_, wait, stop_)) break;
    answer = attempt(request);
  }
  if (!answer) return std::unexpected(transport_error(answer.error(), context));
  if (!answer->ok()) {
    return std::unexpected(
        api_error(answer->status, answer->body, answer->retry_after_s(), context));
  }
  return std::move(*answer);
}

ApiResult<Json> Client::send_json(const HttpRequest& request, const std::string& context) {
  ApiResult<HttpResponse> answer = send(request, context);
  if (!answer) return std::unexpected(std::move(answer.error()));
  Json object = parse_answer(answer->body);
  if (!object.is_object()) {
    return std::unexpected(
        transport_error(Error{ErrorKind::kTransient, "the answer is not a JSON object"}, context));
  }
  return object;
}

Result<HttpResponse> Client::stream(const HttpRequest& request, Millis idle_timeout,
                                    const std::function<void(std::string_view)>& on_bytes,
                                    std::stop_token stop) {
  const TimePoint begin = clock_.now();
  Result<HttpResponse> answer = transport_.stream(request, idle_timeout, on_bytes, std::move(stop));
  observe(request, answer, begin);
  if (answer && answer->status == kUnauthorized) transport_.refresh_credentials();
  return answer;
}

ApiResult<Json> Client::get(const Resource& resource, const std::string& ns,
                            const std::string& name) {
  return send_json(get_request(resource, ns, name), words("get", resource, ns, name));
}

ApiResult<std::string> Client::list_pages(
    const Resource& resource, const std::string& ns, ListOptions options,
    const std::function<void(std::vector<Json> items)>& take) {
  std::string version;
  do {
    ApiResult<Json> page =
        send_json(list_request(resource, ns, options), words("list", resource, ns, ""));
    if (!page) return std::unexpected(std::move(page.error()));
    name_list_items(*page);
    const Json& metadata = member(*page, "metadata");
    version = text_of(metadata, "resourceVersion");
    options.continue_token = text_of(metadata, "continue");
    std::vector<Json> items;
    for (Json& item : (*page)["items"]) items.push_back(std::move(item));
    take(std::move(items));
  } while (!options.continue_token.empty());
  return version;
}

ApiResult<ObjectList> Client::list(const Resource& resource, const std::string& ns,
                                   ListOptions options) {
  ObjectList all;
  auto version = list_pages(resource, ns, std::move(options), [&](std::vector<Json> items) {
    std::ranges::move(items, std::back_inserter(all.items));
  });
  if (!version) return std::unexpected(std::move(version.error()));
  all.resource_version = *std::move(version);
  return all;
}

ApiResult<Json> Client::create(const Resource& resource, const std::string& ns,
                               const Json& object) {
  return send_json(create_request(resource, ns, object.dump(), options_.field_manager),
                   words("create", resource, ns, name_of(object)));
}

ApiResult<Json> Client::replace(const Resource& resource, const std::string& ns,
                                const std::string& name, const Json& object) {
  return send_json(replace_request(resource, ns, name, object.dump(), options_.field_manager),
                   words("replace", resource, ns, name));
}

ApiResult<Json> Client::apply(const Resource& resource, const std::string& ns,
                              const std::string& name, const Json& object) {
  return send_json(apply_request(resource, ns, name, object.dump(), options_.field_manager),
                   words("apply", resource, ns, name));
}

ApiResult<Json> Client::apply_status(const Resource& resource, const std::string& ns,
                                     const std::string& name, const Json& object) {
  return send_json(apply_request(resource, ns, name, object.dump(), options_.field_manager,
                                 /*force=*/true, "status"),
                   words("apply status of", resource, ns, name));
}

ApiResult<Json> Client::merge_patch(const Resource& resource, const std::string& ns,
                                    const std::string& name, const Json& patch) {
  return send_json(merge_patch_request(resource, ns, name, patch.dump(), options_.field_manager),
                   words("patch", resource, ns, name));
}

ApiResult<Json> Client::strategic_patch(const Resource& resource, const std::string& ns,
                                        const std::string& name, const Json& patch) {
  return send_json(
      strategic_patch_request(resource, ns, name, patch.dump(), options_.field_manager),
      words("patch", resource, ns, name));
}

ApiResult<Json> Client::remove(const Resource& resource, const std::string& ns,
                               const std::string& name, const DeleteOptions& options) {
  return send_json(delete_request(resource, ns, name, options),
                   words("delete", resource, ns, name));
}

}  // namespace dsm::kube
