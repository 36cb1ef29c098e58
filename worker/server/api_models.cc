// The model and its adapters: lists of them, and adapters that come and go while the worker serves.
#include <utility>

#include "worker/server/answer_json.h"
#include "worker/server/api.h"
#include "worker/server/json_fields.h"

namespace dsm::server {
namespace {

constexpr std::size_t kMaxPath = 4096;

// {"lora_name", "lora_path"}, the second only to load.
struct AdapterRequest {
  std::string name;
  std::string path;
};

Parsed<AdapterRequest> parse_adapter_request(std::string_view body, bool loads) {
  const auto object = parse_object(body);
  if (!object) return std::unexpected(object.error());
  std::optional<ApiError> error;
  Fields fields(*object, body, error);
  AdapterRequest request;
  const auto read = [&](const char* name, std::string& into) {
    if (fields.find(name) == nullptr) fields.wrong(name, "is missing");
    fields.string(name, kMaxPath, into);
  };
  read("lora_name", request.name);
  if (loads) {
    read("lora_path", request.path);
    bool in_place = false;
    fields.boolean("load_inplace", in_place);
    if (in_place) fields.wrong("load_inplace", "is not supported: unload the adapter first");
  }
  if (error) return std::unexpected(std::move(*error));
  return request;
}

http::Response json_response(std::string body, const http::Request& request) {
  http::Response response;
  response.body = std::move(body);
  response.headers["X-Request-Id"] = request_id_of(request);
  return response;
}

}  // namespace

ModelCard Api::card() const {
  return {.id = model_.name,
          .created = model_.created,
          .max_model_len = model_.max_model_len,
          .root = model_.name};
}

ModelCard Api::card(const ServedAdapter& adapter) const {
  return {.id = adapter.adapter->name,
          .created = adapter.created,
          .max_model_len = model_.max_model_len,
          .root = adapter.path,
          .parent = model_.name};
}

http::Response Api::models() const {
  std::vector<ModelCard> cards = {card()};
  if (model_.adapters) {
    for (const ServedAdapter& adapter : model_.adapters->list()) cards.push_back(card(adapter));
  }
  http::Response response;
  response.body = models_json(cards);
  return response;
}

http::Response Api::model(const std::string& name) const {
  http::Response response;
  if (name == model_.name) {
    response.body = model_json(card());
    return response;
  }
  if (model_.adapters) {
    for (const ServedAdapter& adapter : model_.adapters->list()) {
      if (adapter.adapter->name != name) continue;
      response.body = model_json(card(adapter));
      return response;
    }
  }
  return error_response(no_such_model(name));
}

// Without a folder to load from, the answer says so whatever the body is.
Parsed<void> Api::adapters_may_change() const {
  if (model_.adapters && model_.adapters->can_load()) return {};
  return std::unexpected(
      ApiError{.status = 403,
               .message = "Adapters are not loaded or unloaded while this server runs: it was "
                          "started without --lora-dir.",
               .code = "lora_loading_disabled"});
}

void Api::load_adapter(std::shared_ptr<http::Exchange> exchange) {
  if (!loader_) return exchange->respond(load_adapter(exchange->request()));
  loader_->post([this, exchange = std::move(exchange)] {
    exchange->respond(load_adapter(exchange->request()));
  });
}

http::Response Api::load_adapter(const http::Request& request) const {
  const std::string id = request_id_of(request);
  if (keys_ != nullptr) {
    if (const auto admitted = keys_->admit(request); !admitted) {
      return refusal(request, id, admitted.error());
    }
  }
  if (const auto may = adapters_may_change(); !may) return refusal(request, id, may.error());
  const auto asked = parse_adapter_request(request.body, /*loads=*/true);
  if (!asked) return refusal(request, id, asked.error());
  const TimePoint start = clock_.now();
  const auto now = std::chrono::duration_cast<Seconds>(clock_.wall_now().time_since_epoch());
  const auto loaded = model_.adapters->load(asked->name, asked->path, now.count());
  if (!loaded) {
    log_.info("adapter not loaded", {{"request_id", id}, {"error", loaded.error().message}});
    return refusal(request, id, loaded.error());
  }
  log_.info("adapter loaded",
            {{"request_id", id},
             {"adapter", loaded->adapter->name},
             {"id", loaded->adapter->id},
             {"ms", std::chrono::duration_cast<Millis>(clock_.now() - start).count()}});
  return json_response(model_json(card(*loaded)), request);
}

http::Response Api::unload_adapter(const http::Request& request) const {
  const std::string id = request_id_of(request);
  if (const auto may = adapters_may_change(); !may) return refusal(request, id, may.error());
  const auto asked = parse_adapter_request(request.body, /*loads=*/false);
  if (!asked) return refusal(request, id, asked.error());
  if (const auto gone = model_.adapters->unload(asked->name); !gone) {
    return refusal(request, id, gone.error());
  }
  log_.info("adapter unloaded", {{"request_id", id}, {"adapter", asked->name}});
  return json_response(dump({{"id", asked->name}, {"object", "model"}, {"deleted", true}}),
                       request);
}

}  // namespace dsm::server
