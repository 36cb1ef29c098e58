// The transport on cpprestsdk. What is worth knowing about that library:
//   - its time-out restarts with every byte, so it bounds silence and not the whole request; the
//     whole request is bounded here by waiting with a deadline and closing the connection;
//   - it waits for a response body to be complete unless the body stream is read by hand;
//   - a task whose exception nobody looks at ends the process, so every chain ends in a handler;
//   - it resends a request by itself when a pooled connection turns out to be closed.
#include "kube/transport.h"

#include <cpprest/http_client.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <pplx/threadpool.h>

#include <algorithm>
#include <boost/asio/ssl.hpp>
#include <charconv>
#include <condition_variable>
#include <fstream>
#include <mutex>
#include <optional>
#include <sstream>

#include "kube/config.h"

namespace dsm::kube {
namespace {

namespace http = web::http;
namespace ssl = boost::asio::ssl;

constexpr auto kTokenMaxAge = std::chrono::minutes(1);
// Silence on one connection of a plain request; the request as a whole has its own deadline.
constexpr auto kSilence = std::chrono::seconds(60);

std::string lower(std::string text) {
  std::ranges::transform(text, text.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return text;
}

std::string file_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return std::move(text).str();
}

// Trusts these certificates and no others (cpprestsdk would add the system's).
void trust_only(ssl::context& context, const std::string& pem) {
  const std::unique_ptr<BIO, int (*)(BIO*)> bio(
      BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), BIO_free);
  X509_STORE* store = X509_STORE_new();
  int count = 0;
  while (X509* certificate = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) {
    X509_STORE_add_cert(store, certificate);
    X509_free(certificate);
    ++count;
  }
  SSL_CTX_set_cert_store(context.native_handle(), store);  // takes ownership
  if (count == 0) throw std::runtime_error("the certificate authority holds no certificate");
}

void set_up_tls(ssl::context& context, const ClientConfig& config) {
  SSL_CTX_set_min_proto_version(context.native_handle(), TLS1_2_VERSION);
  const std::string ca = config.ca_file.empty() ? config.ca_pem : file_text(config.ca_file);
  if (!ca.empty()) trust_only(context, ca);
  if (!config.client_cert_pem.empty()) {
    context.use_certificate_chain(boost::asio::buffer(config.client_cert_pem));
    context.use_private_key(boost::asio::buffer(config.client_key_pem), ssl::context::pem);
  }
}

HttpResponse head_of(const http::http_response& response) {
  HttpResponse result;
  result.status = response.status_code();
  for (const auto& [name, value] : response.headers()) result.headers[lower(name)] = value;
  return result;
}

// One value that a continuation on cpprestsdk's threads gives to a waiting thread. Shared by both,
// because the waiter may have gone when the value comes.
template <typename T>
class Pending {
 public:
  void set(Result<T> value) {
    {
      std::lock_guard lock(mutex_);
      value_ = std::move(value);
    }
    ready_.notify_all();
  }
  // Nothing: the deadline passed or `stop` was requested.
  std::optional<Result<T>> wait(TimePoint deadline, const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    ready_.wait_until(lock, stop, deadline, [&] { return value_.has_value(); });
    return std::move(value_);
  }

 private:
  std::mutex mutex_;
  std::condition_variable_any ready_;
  std::optional<Result<T>> value_;
};

template <typename T>
std::shared_ptr<Pending<T>> pending(pplx::task<T> task) {
  auto state = std::make_shared<Pending<T>>();
  task.then([state](pplx::task<T> done) {
    try {
      state->set(done.get());
    } catch (const std::exception& e) {
      state->set(fail(ErrorKind::kTransient, e.what()));
    }
  });
  return state;
}

// The bearer token, from its file when there is one.
class Token {
 public:
  explicit Token(const ClientConfig& config) : file_(config.token_file), token_(config.token) {}

  std::string get() {
    std::lock_guard lock(mutex_);
    const auto now = std::chrono::steady_clock::now();
    if (!file_.empty() && now >= read_again_) {
      std::string text = file_text(file_);
      const auto last = text.find_last_not_of(" \t\r\n");
      text.resize(last == std::string::npos ? 0 : last + 1);
      if (!text.empty()) token_ = std::move(text);  // else: in the middle of a rotation
      read_again_ = now + kTokenMaxAge;
    }
    return token_;
  }
  void expire() {
    std::lock_guard lock(mutex_);
    read_again_ = {};
  }

 private:
  std::mutex mutex_;
  std::string file_;
  std::string token_;
  TimePoint read_again_{};
};

class RestTransport final : public Transport {
 public:
  explicit RestTransport(ClientConfig config)
      : config_(std::move(config)),
        token_(config_),
        base_(config_.server),
        client_(base_, client_config(kSilence)) {}

  Result<HttpResponse> send(const HttpRequest& request, Millis timeout,
                            std::stop_token stop) override {
    const TimePoint deadline = std::chrono::steady_clock::now() + timeout;
    Result<HttpResponse> answer = send_once(request, deadline, stop);
    const bool again = !answer && answer.error().kind == ErrorKind::kTransient &&
                       request.idempotent && std::chrono::steady_clock::now() < deadline;
    return again ? send_once(request, deadline, stop) : answer;
  }

  Result<HttpResponse> stream(const HttpRequest& request, Millis idle_timeout,
                              const std::function<void(std::string_view)>& on_bytes,
                              std::stop_token stop) override {
    try {
      return stream_on(http::client::http_client(base_, client_config(idle_timeout)), request,
                       idle_timeout, on_bytes, stop);
    } catch (const std::exception& e) {
      return stop.stop_requested() ? cancelled() : broken(e.what());
    }
  }

  void refresh_credentials() override { token_.expire(); }

  std::string host() const override {
    return base_.host() + (base_.is_port_default() ? "" : ":" + std::to_string(base_.port()));
  }

 private:
  http::client::http_client_config client_config(std::chrono::milliseconds silence) const {
    http::client::http_client_config result;
    result.set_timeout(silence);
    result.set_validate_certificates(!config_.insecure);
    if (base_.scheme() == "https") {
      result.set_ssl_context_callback([this](ssl::context& tls) { set_up_tls(tls, config_); });
    }
    return result;
  }

  http::http_request message(const HttpRequest& request) {
    http::http_request result(request.method);
    result.set_request_uri(request.target);
    if (!request.body.empty()) result.set_body(request.body);
    result.headers().add("User-Agent", "deepseek-operator");
    for (const auto& [name, value] : request.headers) {
      result.headers().remove(name);
      result.headers().add(name, value);
    }
    if (const std::string token = token_.get(); !token.empty()) {
      result.headers().add("Authorization", "Bearer " + token);
    }
    return result;
  }

  std::unexpected<Error> broken(const std::string& what) const {
    return fail(ErrorKind::kTransient, what + " (" + config_.server + ")");
  }
  static std::unexpected<Error> cancelled() { return fail(ErrorKind::kCancelled, "cancelled"); }

  // What `state` gives before the deadline; else the connection is closed.
  template <typename T>
  Result<T> take(Pending<T>& state, TimePoint deadline, const std::stop_token& stop,
                 pplx::cancellation_token_source& cancel) const {
    std::optional<Result<T>> value = state.wait(deadline, stop);
    if (!value) {
      cancel.cancel();
      if (stop.stop_requested()) return cancelled();
      return broken("no answer in time");
    }
    if (!*value) return broken(value->error().message);
    return std::move(*value);
  }

  Result<HttpResponse> send_once(const HttpRequest& request, TimePoint deadline,
                                 const std::stop_token& stop) {
    if (stop.stop_requested()) return cancelled();
    try {
      pplx::cancellation_token_source cancel;
      const auto state = pending(
          client_.request(message(request), cancel.get_token())
              .then([](const http::http_response& response) { return read_whole(response); }));
      return take(*state, deadline, stop, cancel);
    } catch (const std::exception& e) {
      return broken(e.what());
    }
  }

  static pplx::task<HttpResponse> read_whole(const http::http_response& response) {
    return response.extract_vector().then(
        [head = head_of(response)](const std::vector<unsigned char>& bytes) {
          HttpResponse result = head;
          result.body.assign(bytes.begin(), bytes.end());
          return result;
        });
  }

  Result<HttpResponse> stream_on(http::client::http_client client, const HttpRequest& request,
                                 Millis idle_timeout,
                                 const std::function<void(std::string_view)>& on_bytes,
                                 const std::stop_token& stop) {
    pplx::cancellation_token_source cancel;
    const auto deadline = [&] { return std::chrono::steady_clock::now() + idle_timeout; };
    const auto begun = pending(client.request(message(request), cancel.get_token()));
    Result<http::http_response> response = take(*begun, deadline(), stop, cancel);
    if (!response) return std::unexpected(response.error());
    HttpResponse head = head_of(*response);
    if (!head.ok()) return take(*pending(read_whole(*response)), deadline(), stop, cancel);

    const std::stop_callback close_on_stop(stop, [&] { cancel.cancel(); });
    concurrency::streams::streambuf<std::uint8_t> body = response->body().streambuf();
    std::string piece;
    for (;;) {
      // One byte by waiting, then whatever has come with it.
      const auto first = body.bumpc().get();
      if (first == decltype(body)::traits::eof()) break;
      piece.resize(1 + body.in_avail());
      piece[0] = static_cast<char>(first);
      if (piece.size() > 1) {
        piece.resize(
            1 +
            body.getn(reinterpret_cast<std::uint8_t*>(piece.data() + 1), piece.size() - 1).get());
      }
      if (stop.stop_requested()) break;
      on_bytes(piece);
    }
    if (stop.stop_requested()) return cancelled();
    response->content_ready().get();  // throws when the body ended by a broken connection
    return head;
  }

  const ClientConfig config_;
  Token token_;
  const web::uri base_;
  http::client::http_client client_;
};

}  // namespace

int HttpResponse::retry_after_s() const {
  const auto found = headers.find("retry-after");
  if (found == headers.end()) return 0;
  int seconds = 0;
  std::from_chars(found->second.data(), found->second.data() + found->second.size(), seconds);
  return std::max(seconds, 0);
}

void initialize_transport_threads(int threads) {
  try {
    crossplat::threadpool::initialize_with_threads(static_cast<std::size_t>(threads));
  } catch (const std::exception&) {
    // Already running with the size of an earlier call.
  }
}

Result<std::unique_ptr<Transport>> make_transport(const ClientConfig& config) {
  try {
    if (config.server.starts_with("https://")) {
      ssl::context probe(ssl::context::tls_client);
      set_up_tls(probe, config);
    } else if (!config.server.starts_with("http://")) {
      return fail(ErrorKind::kInvalid, "the API server's address is no http(s) URL");
    }
    return std::make_unique<RestTransport>(config);
  } catch (const std::exception& e) {
    return fail(ErrorKind::kInvalid, std::string("connection to the API server: ") + e.what());
  }
}

}  // namespace dsm::kube
