#include "worker/server/api.h"

#include <algorithm>
#include <cctype>

#include "base/random.h"

namespace dsm::server {
namespace {

constexpr Millis kTick{1000};
}  // namespace

http::Response refusal(const http::Request& request, const std::string& request_id,
                       const ApiError& error) {
  if (request.path.starts_with("/v1/messages")) return messages_error_response(error, request_id);
  http::Response response = error_response(error);
  response.headers["X-Request-Id"] = request_id;
  return response;
}

std::string request_id_of(const http::Request& request) {
  const std::string_view given = request.header("x-request-id");
  const bool harmless =
      !given.empty() && given.size() <= 128 && std::all_of(given.begin(), given.end(), [](char c) {
        return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' ||
               c == '.' || c == ':';
      });
  return harmless ? std::string(given) : "req-" + random_hex(12);
}

// A request that was let in leaves when this goes out of scope, unless a Generation took it over.
class Api::Entered {
 public:
  explicit Entered(Drain& drain) : drain_(drain.enter() ? &drain : nullptr) {}
  ~Entered() {
    if (drain_ != nullptr) drain_->leave();
  }
  Entered(const Entered&) = delete;
  Entered& operator=(const Entered&) = delete;
  explicit operator bool() const { return drain_ != nullptr; }
  void hand_over() { drain_ = nullptr; }

 private:
  Drain* drain_;
};

Api::Api(const ServedModel& model, engine::Engine& engine, WorkerMetrics& metrics, Drain& drain,
         Clock& clock, Logger log, std::size_t unread_bytes)
    : model_(model),
      engine_(engine),
      metrics_(metrics),
      drain_(drain),
      clock_(clock),
      log_(std::move(log)),
      env_{.engine = engine_,
           .tokenizer = model_.tokenizer,
           .metrics = metrics_,
           .drain = drain_,
           .outlet = outlet_,
           .clock = clock_,
           .log = log_,
           .unread_bytes = unread_bytes},
      outlet_(clock, kTick, [this](TimePoint now) { tick(now); }) {
  if (model_.adapters && model_.adapters->can_load())
    loader_.emplace(clock, kTick, [](TimePoint) {});
}

Api::~Api() {
  stop();
}

Parsed<RequestMeta> Api::meta(const http::Request& request) const {
  const auto limit = parse_time_limit(request.header("x-request-timeout-ms"));
  if (!limit) return std::unexpected(limit.error());
  return RequestMeta{
      .request_id = request_id_of(request),
      .created = std::chrono::duration_cast<Seconds>(clock_.wall_now().time_since_epoch()).count(),
      .arrived = clock_.now(),
      .time_limit = *limit};
}

Parsed<GenerationSpec> Api::chat_spec(const http::Request& request) const {
  return chat_spec(request, parse_chat(request.body, model_.defaults));
}

Parsed<GenerationSpec> Api::chat_spec(const http::Request& request,
                                      Parsed<ChatRequest> chat) const {
  if (!chat) return std::unexpected(chat.error());
  const auto about = meta(request);
  if (!about) return std::unexpected(about.error());
  return server::chat_spec(model_, std::move(*chat), *about);
}

Parsed<GenerationSpec> Api::completion_spec(const http::Request& request) const {
  auto completion = parse_completion(request.body, model_.defaults, model_.vocab_size);
  if (!completion) return std::unexpected(completion.error());
  const auto about = meta(request);
  if (!about) return std::unexpected(about.error());
  return server::completion_spec(model_, std::move(*completion), *about);
}

void Api::refuse(http::Exchange& exchange, const ApiError& error) const {
  metrics_.rejected(error.status >= 500 ? "unavailable" : "invalid");
  const std::string id = request_id_of(exchange.request());
  // The message may quote the request: only what went wrong is logged.
  log_.info("request refused",
            {{"request_id", id}, {"status", error.status}, {"param", error.param}});
  exchange.respond(refusal(exchange.request(), id, error));
}

void Api::run(std::shared_ptr<http::Exchange> exchange, const SpecMaker& make_spec) {
  const TimePoint arrived = clock_.now();
  // The salt is told with the keys, so nobody but the operator can know or choose it.
  const Parsed<std::string> salt =
      keys_ == nullptr ? Parsed<std::string>(std::string()) : keys_->admit(exchange->request());
  if (!salt) return refuse(*exchange, salt.error());
  Entered entered(drain_);
  if (!entered) return refuse(*exchange, unavailable("the server is shutting down", 1));
  auto spec = make_spec(exchange->request());
  if (!spec) return refuse(*exchange, spec.error());
  spec->arrived = arrived;
  if (!salt->empty()) {
    for (auto& sequence : spec->sequences) {
      sequence.cache_salt = *salt + "/" + sequence.cache_salt;
    }
  }
  if (!spec->writer) spec->writer = openai_writer(*spec);
  const std::lock_guard lock(mutex_);
  if (stopped_) return refuse(*exchange, unavailable("the server is shutting down", 1));
  entered.hand_over();
  auto generation = std::make_shared<Generation>(env_, std::move(*spec), std::move(exchange));
  live_.push_back(generation);
  generation->start();
}

std::unique_ptr<AnswerWriter> Api::openai_writer(const GenerationSpec& spec) const {
  AnswerForm form{.head = spec.head,
                  .include_usage = spec.options.include_usage,
                  .continuous_usage = spec.options.continuous_usage,
                  .logprobs = spec.options.sampling.logprobs >= 0,
                  .reasoning_alias = model_.reasoning_alias};
  return spec.head.kind == ApiKind::kChat
             ? make_chat_writer(std::move(form), model_.tokenizer)
             : make_completion_writer(std::move(form), model_.tokenizer);
}

void Api::chat(std::shared_ptr<http::Exchange> exchange) {
  run(std::move(exchange), [this](const http::Request& request) { return chat_spec(request); });
}

void Api::completion(std::shared_ptr<http::Exchange> exchange) {
  run(std::move(exchange),
      [this](const http::Request& request) { return completion_spec(request); });
}

void Api::tick(TimePoint now) {
  std::vector<std::weak_ptr<Generation>> live;
  {
    const std::lock_guard lock(mutex_);
    std::erase_if(live_, [](const auto& weak) { return weak.expired(); });
    live = live_;
  }
  for (const auto& weak : live) {
    if (const auto generation = weak.lock()) generation->keep_alive(now);
  }
}

void Api::stop() {
  std::vector<std::weak_ptr<Generation>> live;
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    live = live_;
  }
  for (const auto& weak : live) {
    if (const auto generation = weak.lock()) {
      generation->abort(unavailable("the server is shutting down", 1));
    }
  }
  outlet_.settle();  // one that has just ended may still be telling the engine
}

}  // namespace dsm::server
