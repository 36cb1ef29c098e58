// A Transport for tests: answers come from a function or a script, requests are kept, streams are
// fed by the test. Thread-safe.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "kube/transport.h"

namespace dsm::kube::testing {

inline HttpResponse json_answer(int status, const nlohmann::json& body) {
  HttpResponse answer;
  answer.status = status;
  answer.body = body.dump();
  return answer;
}

inline HttpResponse status_answer(int code, const std::string& reason,
                                  const std::string& message = "") {
  return json_answer(code, {{"kind", "Status"},
                            {"apiVersion", "v1"},
                            {"status", "Failure"},
                            {"code", code},
                            {"reason", reason},
                            {"message", message}});
}

class ScriptedTransport : public Transport {
 public:
  using Handler = std::function<Result<HttpResponse>(const HttpRequest&)>;

  // Answers whatever next() has not prepared. Runs on the caller's thread, under no lock.
  void on_request(Handler handler) {
    const std::lock_guard lock(mutex_);
    handler_ = std::move(handler);
  }
  // The answer of the next request that has none yet.
  void next(Result<HttpResponse> answer) {
    const std::lock_guard lock(mutex_);
    script_.push_back(std::move(answer));
  }

  // Streams are known by the path of their request, without the query. Each open stream of a path
  // gets these bytes; a stream opened later gets nothing of it.
  void feed(const std::string& path, const std::string& bytes) {
    const std::lock_guard lock(mutex_);
    for (Stream* stream : open_[path]) stream->bytes.push_back(bytes);
    changed_.notify_all();
  }
  // The server ends every open stream of the path.
  void end_streams(const std::string& path, Result<HttpResponse> how) {
    const std::lock_guard lock(mutex_);
    for (Stream* stream : open_[path]) stream->end = how;
    changed_.notify_all();
  }
  // Waits until `count` streams of the path have been opened in all.
  void await_streams(const std::string& path, int count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return opened_[path] >= count; });
  }

  // Every request so far: "GET /api/v1/pods?limit=500".
  std::vector<HttpRequest> requests() const {
    const std::lock_guard lock(mutex_);
    return requests_;
  }
  // Those that change something.
  std::vector<HttpRequest> writes() const {
    std::vector<HttpRequest> result;
    for (const HttpRequest& request : requests()) {
      if (request.method != "GET") result.push_back(request);
    }
    return result;
  }
  int refreshed() const {
    const std::lock_guard lock(mutex_);
    return refreshed_;
  }

  Result<HttpResponse> send(const HttpRequest& request, Millis, std::stop_token stop) override {
    Handler handler;
    {
      const std::lock_guard lock(mutex_);
      requests_.push_back(request);
      if (stop.stop_requested()) return fail(ErrorKind::kCancelled, "cancelled");
      if (!script_.empty()) {
        Result<HttpResponse> answer = std::move(script_.front());
        script_.pop_front();
        return answer;
      }
      handler = handler_;
    }
    if (handler) return handler(request);
    return fail(ErrorKind::kTransient, "no answer in the script for " + request.target);
  }

  Result<HttpResponse> stream(const HttpRequest& request, Millis,
                              const std::function<void(std::string_view)>& on_bytes,
                              std::stop_token stop) override {
    const std::string path = request.target.substr(0, request.target.find('?'));
    Stream mine;
    std::unique_lock lock(mutex_);
    requests_.push_back(request);
    open_[path].push_back(&mine);
    ++opened_[path];
    changed_.notify_all();
    Result<HttpResponse> result = fail(ErrorKind::kCancelled, "cancelled");
    while (changed_.wait(lock, stop, [&] { return !mine.bytes.empty() || mine.end; })) {
      if (mine.bytes.empty()) {
        if (mine.end) result = *mine.end;
        break;
      }
      const std::string bytes = std::move(mine.bytes.front());
      mine.bytes.pop_front();
      lock.unlock();
      on_bytes(bytes);
      lock.lock();
    }
    std::erase(open_[path], &mine);
    return result;
  }

  void refresh_credentials() override {
    const std::lock_guard lock(mutex_);
    ++refreshed_;
  }
  std::string host() const override { return "scripted:443"; }

 private:
  struct Stream {
    std::deque<std::string> bytes;
    std::optional<Result<HttpResponse>> end;
  };

  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  Handler handler_;
  std::deque<Result<HttpResponse>> script_;
  std::vector<HttpRequest> requests_;
  std::map<std::string, std::vector<Stream*>> open_;
  std::map<std::string, int> opened_;
  int refreshed_ = 0;
};

}  // namespace dsm::kube::testing
