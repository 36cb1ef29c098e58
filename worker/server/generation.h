// One request under way: from its sequences in the engine to the bytes of its answer.
//
//   server thread:  start()             submits the sequences
//   engine thread:  a sink puts each event into the inbox and posts to the outlet
//   outlet thread:  process()           tokens -> text -> writer -> Exchange; ends the request
//   server thread:  the client went away -> the outlet cancels what still runs
//
// A client that reads more slowly than the model writes is cut off, once too much waits for it.
//
// It lives as long as the engine has a sequence of it or the outlet a task. When it ends, for
// whatever reason, its sequences are cancelled, its metrics and log line are written, and
// Drain::leave() is called; that happens exactly once.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/http/server.h"
#include "base/log.h"
#include "worker/engine/engine.h"
#include "worker/server/answer_writer.h"
#include "worker/server/api_request.h"
#include "worker/server/api_response.h"
#include "worker/server/choice_output.h"
#include "worker/server/drain.h"
#include "worker/server/metrics.h"
#include "worker/server/outlet.h"

namespace dsm::server {

// Bytes of a stream that its client may leave unread.
inline constexpr std::size_t kUnreadBytes = std::size_t{1} << 20;

// What every Generation uses; outlives them all.
struct GenerationEnv {
  engine::Engine& engine;
  const text::Tokenizer& tokenizer;
  WorkerMetrics& metrics;
  Drain& drain;
  Outlet& outlet;
  Clock& clock;
  Logger log;
  std::size_t unread_bytes = kUnreadBytes;
};

struct GenerationSpec {
  AnswerHead head;
  std::string request_id;
  GenerationOptions options;
  ChoiceOutput::Reasoning reasoning = ChoiceOutput::Reasoning::kNone;
  std::vector<engine::GenerateRequest> sequences;  // one choice each
  std::vector<ChoiceOutput> outputs;               // of each of them
  int n = 1;  // choices of each prompt: so many sequences next to each other have the same one
  std::unique_ptr<AnswerWriter> writer;  // never null when it starts
  std::string prompt_param;              // the field that errors about length name
  TimePoint arrived;
};

class Generation : public std::enable_shared_from_this<Generation> {
 public:
  // A stream that has nothing to say for so long gets a comment, so that nobody on the way takes it
  // for dead.
  static constexpr Millis kKeepAlive{5000};

  // The caller has entered `env.drain`; from here on leaving it is the Generation's duty.
  Generation(GenerationEnv& env, GenerationSpec spec, std::shared_ptr<http::Exchange> exchange);
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  // Once. An error of the engine is answered here.
  void start();
  // On the outlet's thread.
  void keep_alive(TimePoint now);
  // Ends the request with this error unless it has ended. Afterwards it does not use the engine.
  void abort(const ApiError& error);

 private:
  struct Event {
    std::size_t choice;
    engine::TokenEvent event;
    TimePoint at;
  };
  struct ChoiceState {
    engine::SequenceId sequence = 0;
    ChoiceOutput output;
    Choice text = {};  // of an answer that is sent whole
    int cached_tokens = 0;
    engine::SequenceTimes times = {};
    std::optional<TimePoint> last_token = std::nullopt;
    bool begun = false;  // its first delta was made
    bool done = false;
  };

  void on_event(std::size_t choice, const engine::TokenEvent& event);
  void process();
  void take(const Event& event);
  ChoiceOutput::Delta push_tokens(ChoiceState& choice, const Event& event);
  void emit(std::size_t index, ChoiceDelta delta);
  void end_choice(std::size_t index, engine::FinishReason reason, ChoiceDelta last);
  void fail_finished(engine::FinishReason reason, const std::optional<Error>& cause);
  void send(std::string bytes);
  void start_stream();
  void check_reader();
  void complete();
  void fail_request(const ApiError& error, const std::string& reason);
  void end(const std::string& reason);
  Usage usage() const;
  engine::SequenceTimes times() const;
  double since_arrival() const;

  GenerationEnv& env_;
  GenerationSpec spec_;
  std::shared_ptr<http::Exchange> exchange_;

  std::mutex inbox_mutex_;
  std::vector<Event> inbox_;
  bool scheduled_ = false;  // a task of ours is with the outlet
  bool gone_ = false;       // the client is

  // From here on: with this mutex held.
  std::mutex mutex_;
  std::vector<ChoiceState> choices_;
  int prompt_tokens_ = 0;
  std::int32_t max_tokens_ = 0;
  std::size_t open_choices_ = 0;
  bool stream_started_ = false;  // the answer's head was sent
  bool stream_open_ = false;     // and the writer's first events
  bool ended_ = false;
  std::optional<TimePoint> first_token_;
  std::string finish_reason_;
  TimePoint last_sent_;
  std::size_t largest_sent_ = 0;  // bytes at once
};

}  // namespace dsm::server
