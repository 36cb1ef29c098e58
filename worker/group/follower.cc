#include "worker/group/follower.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "base/random.h"
#include "worker/group/channel.h"
#include "worker/group/epoch_comms.h"
#include "worker/group/rank_threads.h"
#include "worker/group/wire.h"

namespace dsm::group {
namespace {

constexpr Millis kConnectTimeout{2000};
constexpr Millis kGreetingTimeout{5000};
constexpr Millis kReceiveRound{200};
constexpr Millis kReportRound{200};  // progress is told at most this often
constexpr Seconds kStuck{60};        // see leader.cc

}  // namespace

struct FollowerGroup::Impl {
  Impl(const GroupOptions& o, RankLoader loader, Clock& c, Logger l,
       std::shared_ptr<HeldAdapters> held)
      : options(o),
        clock(c),
        log(std::move(l)),
        adapters(std::move(held)),
        ranks(std::make_unique<RankThreads>(
            o.first_rank(), o.ranks_per_pod, std::move(loader), clock, log,
            RankThreads::Events{
                .changed = [this] { mark_news(); },
                .joined = [this](std::uint64_t e) { on_joined(e); },
                .samples = [](std::uint64_t, const engine::Samples&) {},
                .broken = [this](std::uint64_t e,
                                 Error error) { on_broken(e, std::move(error)); }})) {
    reporter = std::thread([this] { report_loop(); });
    connector = std::thread([this] { connect_loop(); });
    if (adapters) {
      keeper = std::thread([this] { keep_loop(); });
    }
  }

  ~Impl() {
    {
      const std::lock_guard lock(mutex);
      stopping = true;
      if (opened) {
        opened->shutdown();
      }
    }
    changed.notify_all();
    connector.join();
    reporter.join();
    if (keeper.joinable()) {
      keeper.join();
    }
    ranks.reset();  // its events use this object
  }

  // --- the connection's thread ---

  void connect_loop() {
    Millis pause = options.reconnect_min;
    std::unique_lock lock(mutex);
    while (!stopping && condemned.empty()) {
      lock.unlock();
      const auto [why, was_in_group] = connect_once();
      lock.lock();
      channel.reset();
      opened.reset();
      if (stopping) {
        return;
      }
      if (last_error != why.message) {
        log.info("not connected to the leader", {{"error", why.message}});
        last_error = why.message;
      }
      pause = was_in_group ? options.reconnect_min : std::min(options.reconnect_max, pause * 2);
      const TimePoint until = clock.now() + pause;
      while (!stopping && clock.now() < until) {
        clock.wait_until(changed, lock, until);
      }
    }
  }

  struct Ended {
    Error why;
    bool was_in_group = false;
  };

  // One connection from its start to its end.
  Ended connect_once() {
    auto socket = connect_to(options.leader_host, options.control_port, kConnectTimeout);
    if (!socket) {
      return {.why = socket.error()};
    }
    const auto connection = std::make_shared<Channel>(std::move(*socket));
    {
      const std::lock_guard lock(mutex);
      if (stopping) {
        return {};
      }
      opened = connection;
    }
    if (const Status greeted = greet(*connection); !greeted) {
      return {.why = greeted.error()};
    }
    {
      const std::lock_guard lock(mutex);
      channel = connection;
      last_error.clear();
    }
    (void)connection->send(
        Progress{.ranks = ranks->states()});  // at once: the leader may wait for it
    log.info("connected to the leader", {{"leader", connection->peer()}});
    Ended ended{.why = read_messages(*connection), .was_in_group = true};
    connection->shutdown();
    end_epoch();
    return ended;
  }

  Status greet(Channel& connection) {
    auto first = next_greeting(connection);
    if (!first) {
      return std::unexpected(first.error());
    }
    const Challenge* challenge = std::get_if<Challenge>(&*first);
    if (challenge == nullptr) {
      return fail(ErrorKind::kInvalid, "the leader did not greet");
    }
    Hello hello{.pod_index = options.pod_index,
                .tensor_parallel = options.tensor_parallel,
                .ranks_per_pod = options.ranks_per_pod,
                .highest_epoch = highest_epoch(),
                .revision = options.revision,
                .model_digest = options.model_digest,
                .nonce = random_hex(16),
                .proof = {}};
    hello.proof = hello_proof(options.token, challenge->nonce, hello);
    if (const Status sent = connection.send(hello); !sent) {
      return sent;
    }
    auto answer = next_greeting(connection);
    if (!answer) {
      return std::unexpected(answer.error());
    }
    if (const Refused* refused = std::get_if<Refused>(&*answer)) {
      return fail(ErrorKind::kDenied, "the leader refused this pod: " + refused->message);
    }
    const Welcome* welcome = std::get_if<Welcome>(&*answer);
    if (welcome == nullptr ||
        !same_proof(welcome->proof, welcome_proof(options.token, challenge->nonce, hello.nonce))) {
      return fail(ErrorKind::kDenied, "the leader has another token");
    }
    return {};
  }

  static Result<Message> next_greeting(Channel& connection) {
    auto message = connection.receive(kGreetingTimeout, kMaxGreeting);
    if (!message) {
      return std::unexpected(message.error());
    }
    std::optional<Message>& greeting = *message;
    if (!greeting) {
      return fail(ErrorKind::kTransient, "the leader does not answer");
    }
    return std::move(*greeting);
  }

  // Returns why the connection ended.
  Error read_messages(Channel& connection) {
    TimePoint heard = clock.now();
    for (;;) {
      auto message = connection.receive(kReceiveRound);
      if (!message) {
        return message.error();
      }
      if (std::optional<Message>& told = *message; told) {
        heard = clock.now();
        if (!std::visit([&](auto& m) { return handle(m); }, *told)) {
          return {.kind = ErrorKind::kInvalid, .message = "it sent what a leader does not send"};
        }
      } else if (clock.now() - heard > options.heartbeat_timeout) {
        return {.kind = ErrorKind::kTransient,
                .message = "the leader was silent for " +
                           std::to_string(options.heartbeat_timeout.count()) + " ms"};
      }
    }
  }

  // False for a message that has no place here.
  template <typename T>
  bool handle(const T& /*message*/) {
    return false;
  }
  bool handle(const Heartbeat& /*m*/) { return true; }
  bool handle(const Start& m) {
    end_epoch();
    std::shared_ptr<comm::Rendezvous> meeting;
    std::string host;
    {
      const std::lock_guard lock(mutex);
      epoch = m.epoch;
      meeting = std::make_shared<comm::Rendezvous>(
          [this, e = m.epoch](const std::string& key, const std::string& value) {
            send(StoreValue{.epoch = e, .key = key, .value = value});
          });
      rendezvous = meeting;
      host = options.advertise_host.empty() ? channel->local_host() : options.advertise_host;
    }
    log.info("epoch starts", {{"epoch", m.epoch}});
    ranks->start(m.epoch,
                 make_gloo_epoch({.first_rank = options.first_rank(),
                                  .local_ranks = options.ranks_per_pod,
                                  .size = options.tensor_parallel,
                                  .host = host},
                                 meeting),
                 m.kv_blocks);
    return true;
  }
  bool handle(const StoreValue& m) {
    const std::lock_guard lock(mutex);
    if (m.epoch == epoch && rendezvous) {
      rendezvous->put(m.key, m.value);
    }
    return true;
  }
  bool handle(RunBatch& m) {
    ranks->submit(m.epoch, std::make_shared<engine::Batch>(std::move(m.batch)));
    return true;
  }
  bool handle(WantAdapters& m) {
    if (!adapters) {
      return false;
    }
    {
      const std::lock_guard lock(mutex);
      wanted = Wanted{.adapters = std::move(m), .answer_to = channel};
    }
    changed.notify_all();
    return true;
  }
  bool handle(const Sleep& m) {
    ranks->rest(m.rest);
    return true;
  }
  bool handle(const Abort& m) {
    if (m.epoch == highest_epoch()) {
      end_epoch();
    }
    return true;
  }

  bool handle(Condemned& m) {
    log.info("the group is condemned", {{"error", m.message}});
    {
      const std::lock_guard lock(mutex);
      condemned = std::move(m.message);
    }
    end_epoch();
    return true;
  }

  void end_epoch() {
    {
      const std::lock_guard lock(mutex);
      rendezvous.reset();
      joined = false;
    }
    ranks->abort();
  }

  // --- events of the ranks ---

  void on_joined(std::uint64_t e) {
    {
      const std::lock_guard lock(mutex);
      joined = e == epoch && rendezvous != nullptr;
    }
    send(Joined{.epoch = e});
  }

  void on_broken(std::uint64_t e, Error error) {
    log.info("a rank failed", {{"epoch", e}, {"error", error.message}});
    {
      const std::lock_guard lock(mutex);
      if (e == epoch) {
        joined = false;
      }
    }
    send(Broken{.epoch = e, .kind = error.kind, .message = std::move(error.message)});
  }

  void mark_news() {
    {
      const std::lock_guard lock(mutex);
      news = true;
    }
    changed.notify_all();
  }

  // --- the reporter's thread: progress and heartbeats ---

  void report_loop() {
    TimePoint last_report = clock.now();
    std::unique_lock lock(mutex);
    while (!stopping) {
      const TimePoint now = clock.now();
      const bool due = now - last_report >= options.heartbeat;
      if (channel &&
          (due || (news && now - last_report >= std::min(kReportRound, options.heartbeat)))) {
        news = false;
        last_report = now;
        const auto connection = channel;
        lock.unlock();
        (void)connection->send(Progress{.ranks = ranks->states()});  // a broken one ends its reader
        lock.lock();
        continue;
      }
      clock.wait_until(changed, lock, now + std::min(kReportRound, options.heartbeat));
    }
  }

  // --- the keeper's thread: reading weights takes its time, and steps go on meanwhile ---

  void keep_loop() {
    std::unique_lock lock(mutex);
    while (!stopping) {
      const std::optional<Wanted> now = std::exchange(wanted, std::nullopt);
      if (!now) {
        changed.wait(lock);
        continue;
      }
      lock.unlock();
      HaveAdapters have{.version = now->adapters.version,
                        .failures = adapters->keep(now->adapters.adapters)};
      for (const AdapterFailure& failure : have.failures) {
        log.info("adapter not loaded", {{"id", failure.id}, {"error", failure.message}});
      }
      (void)now->answer_to->send(have);  // a broken one ends its reader
      lock.lock();
    }
  }

  // --- any thread ---

  void send(const Message& message) {
    std::shared_ptr<Channel> connection;
    {
      const std::lock_guard lock(mutex);
      connection = channel;
    }
    if (connection) {
      (void)connection->send(message);  // a broken one ends its reader
    }
  }

  std::uint64_t highest_epoch() const {
    const std::lock_guard lock(mutex);
    return epoch;
  }

  GroupState state() const;

  const GroupOptions options;
  Clock& clock;
  const Logger log;

  mutable std::mutex mutex;
  std::condition_variable changed;
  bool stopping = false;
  bool news = true;                  // the ranks' states have changed since they were reported
  std::shared_ptr<Channel> opened;   // to the leader
  std::shared_ptr<Channel> channel;  // the same, after the greeting
  std::uint64_t epoch = 0;           // under way, or the highest this process has been in
  std::shared_ptr<comm::Rendezvous> rendezvous;  // of the epoch under way, if there is one
  bool joined = false;
  std::string last_error;
  std::string condemned;  // why; empty: it is not

  // The latest word of the leader, until the keeper has taken it. Versions are its connection's.
  struct Wanted {
    WantAdapters adapters;
    std::shared_ptr<Channel> answer_to;
  };
  std::optional<Wanted> wanted;
  const std::shared_ptr<HeldAdapters> adapters;  // the keeper's; null: there are none

  std::unique_ptr<RankThreads> ranks;
  std::thread reporter;
  std::thread keeper;
  std::thread connector;
};

GroupState FollowerGroup::Impl::state() const {
  GroupState s;
  s.ranks = ranks->states();
  s.loaded = ranks->loaded();
  s.live = ranks->stuck_for() < kStuck;
  const std::lock_guard lock(mutex);
  s.epoch = epoch;
  s.last_error = last_error;
  const auto failed =
      std::ranges::find_if(s.ranks, [](const RankState& r) { return r.phase == Phase::kFailed; });
  s.ended = failed != s.ranks.end() || !condemned.empty();
  if (failed != s.ranks.end()) {
    s.phase = Phase::kFailed;
    s.reason = failed->reason;
    s.message = "rank " + std::to_string(failed->rank) + ": " + failed->error;
  } else if (!condemned.empty()) {
    s.phase = Phase::kFailed;
    s.reason = "ProbeFailed";
    s.message = condemned;
  } else if (!s.loaded) {
    s.phase = Phase::kLoading;
    s.reason = "LoadingWeights";
    s.message = "weights are being loaded";
  } else if (std::ranges::any_of(s.ranks, rests)) {
    const bool waking =
        std::ranges::any_of(s.ranks, [](const RankState& r) { return r.phase == Phase::kWaking; });
    describe_rest(waking ? Rest::kAwake : Rest::kAsleep, s);
  } else if (!channel) {
    s.phase = Phase::kRendezvous;
    s.reason = "WaitingForLeader";
    s.message = last_error.empty() ? "connecting to the leader" : last_error;
  } else if (joined) {
    s.phase = Phase::kReady;
    s.reason = "Formed";
    s.message = "connected to all ranks of the group";
  } else {
    s.phase = Phase::kRendezvous;
    s.reason = rendezvous ? "Connecting" : "WaitingForPods";
    s.message = rendezvous ? "connecting to the other ranks" : "waiting for the leader to start";
  }
  return s;
}

FollowerGroup::FollowerGroup(const GroupOptions& options, RankLoader loader, Clock& clock,
                             Logger log, std::shared_ptr<HeldAdapters> adapters)
    : impl_(std::make_unique<Impl>(options, std::move(loader), clock, std::move(log),
                                   std::move(adapters))) {}

FollowerGroup::~FollowerGroup() = default;

GroupState FollowerGroup::state() const {
  return impl_->state();
}
void FollowerGroup::device_is(int rank, health::DeviceHealth health) {
  impl_->ranks->device_is(rank, std::move(health));
}

}  // namespace dsm::group
