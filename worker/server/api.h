// The APIs (OpenAI's, Anthropic's and the simple one) over one model and one engine: bodies of
// requests in, Generations out.
// Thread-safe. On the way out: stop(), then the HTTP server's stop(), then the engine is destroyed,
// then this.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/http/server.h"
#include "base/log.h"
#include "worker/engine/engine.h"
#include "worker/server/api_error.h"
#include "worker/server/drain.h"
#include "worker/server/generation.h"
#include "worker/server/key_ring.h"
#include "worker/server/metrics.h"
#include "worker/server/outlet.h"
#include "worker/server/served_model.h"
#include "worker/server/spec_builder.h"

namespace dsm::server {

class Api {
 public:
  // All of them outlive the Api.
  Api(const ServedModel& model, engine::Engine& engine, WorkerMetrics& metrics, Drain& drain,
      Clock& clock, Logger log, std::size_t unread_bytes = kUnreadBytes);
  ~Api();  // stop()
  Api(const Api&) = delete;
  Api& operator=(const Api&) = delete;

  // From now on whoever wants tokens needs what `keys` asks for. Before the first request; `keys`
  // outlives the last.
  void guard(const KeyRing& keys) { keys_ = &keys; }

  // POST /v1/chat/completions and /v1/completions.
  void chat(std::shared_ptr<http::Exchange> exchange);
  void completion(std::shared_ptr<http::Exchange> exchange);
  // The same engine in other forms: api_forms.cc. POST /v1/responses, /v1/messages, /v1/inference.
  void responses(std::shared_ptr<http::Exchange> exchange);
  void messages(std::shared_ptr<http::Exchange> exchange);
  void inference(std::shared_ptr<http::Exchange> exchange);
  // The body of /v1/inference with another form of answer.
  using WriterMaker = std::function<std::unique_ptr<AnswerWriter>(AnswerHead head)>;
  void inference(std::shared_ptr<http::Exchange> exchange, const WriterMaker& make_writer);
  // Without the engine: POST /v1/messages/count_tokens, /tokenize, /detokenize.
  http::Response count_tokens(const http::Request& request) const;
  http::Response tokenize(const http::Request& request) const;
  http::Response detokenize(const http::Request& request) const;
  // The model and its adapters: api_models.cc. GET /v1/models and /v1/models/{name}, POST
  // /v1/load_lora_adapter, which answers when the adapter can be used, and /v1/unload_lora_adapter.
  http::Response models() const;
  http::Response model(const std::string& name) const;
  void load_adapter(std::shared_ptr<http::Exchange> exchange);
  http::Response unload_adapter(const http::Request& request) const;

  // Ends what still runs with a 503 and takes nothing more. Afterwards the engine is not used.
  void stop();

 private:
  class Entered;
  Parsed<RequestMeta> meta(const http::Request& request) const;
  Parsed<GenerationSpec> chat_spec(const http::Request& request) const;
  Parsed<GenerationSpec> chat_spec(const http::Request& request, Parsed<ChatRequest> chat) const;
  Parsed<GenerationSpec> completion_spec(const http::Request& request) const;
  Parsed<GenerationSpec> responses_spec(const http::Request& request) const;
  Parsed<GenerationSpec> messages_spec(const http::Request& request) const;
  Parsed<GenerationSpec> inference_spec(const http::Request& request,
                                        const WriterMaker& make_writer) const;
  Parsed<void> adapters_may_change() const;
  ModelCard card() const;
  ModelCard card(const ServedAdapter& adapter) const;
  http::Response load_adapter(const http::Request& request) const;
  Parsed<std::vector<engine::TokenId>> prompt_tokens(const ChatRequest& chat) const;
  std::unique_ptr<AnswerWriter> openai_writer(const GenerationSpec& spec) const;
  using SpecMaker = std::function<Parsed<GenerationSpec>(const http::Request& request)>;
  void run(std::shared_ptr<http::Exchange> exchange, const SpecMaker& make_spec);
  void refuse(http::Exchange& exchange, const ApiError& error) const;
  void tick(TimePoint now);

  const ServedModel& model_;
  engine::Engine& engine_;
  WorkerMetrics& metrics_;
  Drain& drain_;
  Clock& clock_;
  Logger log_;
  std::mutex mutex_;
  std::vector<std::weak_ptr<Generation>> live_;
  bool stopped_ = false;
  const KeyRing* keys_ = nullptr;  // null: everybody is let in
  GenerationEnv env_;
  Outlet outlet_;  // its thread uses all of the above
  // One that reads the files of adapters, where that is allowed: answers shall not wait for it.
  std::optional<Outlet> loader_;
};

// The id under which a request is logged and answered: the client's own when it is harmless.
std::string request_id_of(const http::Request& request);

// A refusal in the shape of the API whose path was asked.
http::Response refusal(const http::Request& request, const std::string& request_id,
                       const ApiError& error);

}  // namespace dsm::server
