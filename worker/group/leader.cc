#include "worker/group/leader.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "worker/group/adapter_roll.h"
#include "worker/group/channel.h"
#include "worker/group/control_port.h"
#include "worker/group/epoch_comms.h"
#include "worker/group/leader_state.h"
#include "worker/group/rank_threads.h"
#include "worker/group/step_watch.h"
#include "worker/group/wire.h"

namespace dsm::group {
namespace {

constexpr Millis kAdaptersRound{200};  // one that nobody needs any more is seen within this time
// A rank that is still in a step this long after it was given up will not come back.
constexpr Seconds kStuck{60};
constexpr int kMostDoublings = 4;  // of the time in which an epoch has to form

}  // namespace

struct LeaderGroup::Impl {
  // A follower that has proved itself.
  struct Pod {
    std::shared_ptr<Channel> channel;
    std::uint64_t highest_epoch = 0;
    std::vector<RankState> ranks;
    bool joined = false;  // the epoch under way

    bool loaded() const {
      return !ranks.empty() && std::ranges::all_of(ranks, [](const RankState& r) {
        return r.phase == Phase::kRendezvous || r.phase == Phase::kReady;
      });
    }
  };
  struct Step {
    std::size_t tokens = 0;
    TimePoint start{};
  };

  Impl(const GroupOptions& o, RankLoader loader, Clock& c, Logger l,
       std::shared_ptr<SharedAdapters> shared)
      : options(o),
        clock(c),
        log(std::move(l)),
        adapters(std::move(shared)),
        roll(o.pods() - 1),
        ranks(std::make_unique<RankThreads>(
            0, o.ranks_per_pod, std::move(loader), clock, log,
            RankThreads::Events{
                .changed = [this] { changed.notify_all(); },
                .joined = [this](std::uint64_t e) { on_local_joined(e); },
                .samples = [this](std::uint64_t e,
                                  engine::Samples s) { on_samples(e, std::move(s)); },
                .broken = [this](std::uint64_t e,
                                 const Error& error) { on_broken(e, 0, error); }})),
        port(
            options, log,
            {.admitted = [this](const Hello& hello,
                                const std::shared_ptr<Channel>& channel) { admit(hello, channel); },
             .received =
                 [this](int pod, Message& message) {
                   return std::visit([&](auto& m) { return handle(pod, m); }, message);
                 },
             .ended = [this](int pod, const Channel* channel,
                             const Error& why) { remove(pod, channel, why); }}) {
    if (adapters) {
      roll.want(adapters->wanted());
      adapters->listen([this] { wake_for_adapters(); });
    }
    control = std::thread([this] { control_loop(); });
  }

  ~Impl() {
    if (adapters) {
      adapters->listen(nullptr);
    }
    {
      const std::lock_guard lock(mutex);
      stopping = true;
      end_epoch({.kind = ErrorKind::kTransient, .message = "the leader is shutting down"});
    }
    changed.notify_all();
    control.join();
  }

  // --- pods come, speak and go; no lock held ---

  void admit(const Hello& hello, const std::shared_ptr<Channel>& channel) {
    const int index = hello.pod_index;
    {
      const std::lock_guard lock(mutex);
      Pod& pod = pods[index];
      if (pod.channel) {
        // The pod has come back before we noticed that it was gone.
        pod.channel->shutdown();
        end_epoch(pod_lost(index, "it connected again"));
      }
      pod = Pod{
          .channel = channel, .highest_epoch = hello.highest_epoch, .ranks = {}, .joined = false};
      log.info("pod joined the group", {{"pod", index}, {"peer", channel->peer()}});
      (void)channel->send(Sleep{.rest = rest});  // a broken one ends its reader
      if (adapters) {
        roll.joined(index);
        tell_adapters();
      }
    }
    changed.notify_all();
  }

  void remove(int index, const Channel* channel, const Error& why) {
    {
      const std::lock_guard lock(mutex);
      const auto it = pods.find(index);
      if (it == pods.end() || it->second.channel.get() != channel) {
        return;  // replaced by a newer connection
      }
      pods.erase(it);
      roll.lost(index);
      wake_for_adapters();
      if (!stopping) {
        log.info("pod left the group", {{"pod", index}, {"error", why.message}});
      }
      const Error loss = pod_lost(index, why.message);
      end_epoch(loss);
      if (last_loss && last_loss->kind == ErrorKind::kTransient) {
        last_loss = loss;  // a rank's broken connection may have been seen before its cause
      }
    }
    changed.notify_all();
  }

  static Error pod_lost(int index, const std::string& why) {
    return {.kind = ErrorKind::kTransient,
            .message = "pod " + std::to_string(index) + " was lost: " + why};
  }

  // False for a message that has no place here.
  template <typename T>
  bool handle(int /*pod*/, const T& /*message*/) {
    return false;
  }
  bool handle(int /*pod*/, const Heartbeat& /*m*/) { return true; }
  bool handle(int pod, Progress& m) {
    {
      const std::lock_guard lock(mutex);
      if (const auto it = pods.find(pod); it != pods.end()) {
        it->second.ranks = std::move(m.ranks);
      }
    }
    changed.notify_all();
    return true;
  }
  bool handle(int pod, const StoreValue& m) {
    const std::lock_guard lock(mutex);
    if (m.epoch == epoch && rendezvous) {
      rendezvous->put(m.key, m.value);
      send_to_pods(encode(m), /*except=*/pod);
    }
    return true;
  }
  bool handle(int pod, const Joined& m) {
    const std::lock_guard lock(mutex);
    if (const auto it = pods.find(pod); it != pods.end() && m.epoch == epoch) {
      it->second.joined = true;
      become_ready_if_all_joined();
    }
    return true;
  }
  bool handle(int pod, const Broken& m) {
    on_broken(m.epoch, pod, {.kind = m.kind, .message = m.message});
    return true;
  }

  bool handle(int pod, HaveAdapters& m) {
    if (!adapters) {
      return false;
    }
    {
      const std::lock_guard lock(mutex);
      roll.heard(pod, std::move(m));
    }
    wake_for_adapters();
    return true;
  }

  // --- adapters; all with `mutex` held unless said otherwise ---

  // Without a lock: the control thread looks at least every kAdaptersRound.
  void wake_for_adapters() {
    adapters_news = true;
    changed.notify_all();
  }

  void tell_adapters() {
    adapters_told = clock.now();
    send_to_pods(encode(roll.message()));
  }

  // Tells all pods what is new and answers those who wait for it.
  void look_after_adapters() {
    if (roll.want(adapters->wanted())) {
      tell_adapters();
    }
    for (const engine::AdapterId id : adapters->waiting()) {
      if (auto verdict = roll.verdict(id)) {
        adapters->answer(id, *std::move(verdict));
      }
    }
  }

  // Before an epoch begins: no row may name what a pod does not have. One that could not load
  // something tries again now and then, because a folder may be mended.
  bool adapters_ready() {
    if (!adapters) {
      return true;
    }
    look_after_adapters();
    if (roll.failed() && clock.now() - adapters_told >= options.reconnect_max) {
      roll.again();
      tell_adapters();
    }
    return roll.complete();
  }

  // --- epochs; all with `mutex` held unless said otherwise ---

  void send_to_pods(const std::vector<std::byte>& frame, int except = 0) {
    for (const auto& [index, pod] : pods) {
      if (index != except) {
        (void)pod.channel->send_frame(frame);  // a broken channel ends its reader, which tells us
      }
    }
  }

  bool may_begin() const {
    return condemned.empty() && rest == Rest::kAwake && ranks->loaded() && !ranks->asleep() &&
           static_cast<int>(pods.size()) == options.pods() - 1 &&
           std::ranges::all_of(pods, [](const auto& p) { return p.second.loaded(); });
  }

  // All ranks are loaded. The engine knows the number from the first epoch on, so it stays.
  void agree_on_kv_blocks() {
    if (kv_blocks > 0) return;
    std::vector<RankState> all = ranks->states();
    for (const auto& [index, pod] : pods) {
      all.insert(all.end(), pod.ranks.begin(), pod.ranks.end());
    }
    kv_blocks = smallest_kv_room(all);
    if (kv_blocks > 0) log.info("KV cache by memory", {{"blocks", kv_blocks}});
  }

  void begin_epoch() {
    agree_on_kv_blocks();
    for (const auto& [index, pod] : pods) {
      epoch = std::max(epoch, pod.highest_epoch);
    }
    ++epoch;
    stage = Stage::kConnecting;
    connecting_since = clock.now();
    // What takes long on this machine would never end if each epoch had no more time than the last.
    form_timeout = options.form_timeout * (1 << std::min(failed_in_a_row, kMostDoublings));
    local_joined = false;
    std::shared_ptr<EpochComms> comms;
    if (options.pods() == 1) {
      comms = make_thread_epoch(options.tensor_parallel);
    } else {
      rendezvous = std::make_shared<comm::Rendezvous>(
          [this, e = epoch](const std::string& key, const std::string& value) {
            const std::lock_guard lock(mutex);
            if (e == epoch) {
              send_to_pods(encode(StoreValue{.epoch = e, .key = key, .value = value}));
            }
          });
      comms = make_gloo_epoch(
          {.first_rank = 0,
           .local_ranks = options.ranks_per_pod,
           .size = options.tensor_parallel,
           .host = options.advertise_host.empty() ? pods.begin()->second.channel->local_host()
                                                  : options.advertise_host},
          rendezvous);
      for (auto& [index, pod] : pods) {
        pod.joined = false;
      }
      send_to_pods(encode(Start{.epoch = epoch, .kv_blocks = kv_blocks}));
    }
    log.info("epoch starts", {{"epoch", epoch}});
    ranks->start(epoch, std::move(comms), kv_blocks);
  }

  void become_ready_if_all_joined() {
    if (stage != Stage::kConnecting || !local_joined ||
        !std::ranges::all_of(pods, [](const auto& p) { return p.second.joined; })) {
      return;
    }
    stage = Stage::kReady;
    steps.clear();
    samples.clear();
    log.info("group formed",
             {{"epoch", epoch},
              {"ms", std::chrono::duration_cast<Millis>(clock.now() - connecting_since).count()}});
    changed.notify_all();
  }

  void end_epoch(const Error& why) {
    if (stage == Stage::kWaiting) {
      return;
    }
    log.info("epoch over", {{"epoch", epoch}, {"error", why.message}});
    // Where connecting failed it may fail again at once: then wait longer each time.
    failed_in_a_row = stage == Stage::kConnecting ? std::min(failed_in_a_row + 1, 10) : 0;
    next_epoch_at = clock.now();
    if (failed_in_a_row > 0) {
      next_epoch_at +=
          std::min(options.reconnect_max, options.reconnect_min * (1 << failed_in_a_row));
    }
    stage = Stage::kWaiting;
    last_loss = why;
    steps.clear();
    rendezvous.reset();
    send_to_pods(encode(Abort{.epoch = epoch}));
    give_up_local = true;  // by the control thread: it waits for locks of other rooms
    changed.notify_all();
  }

  // --- events of local ranks and followers, no lock held ---

  void on_local_joined(std::uint64_t e) {
    const std::lock_guard lock(mutex);
    if (e == epoch) {
      local_joined = true;
      become_ready_if_all_joined();
    }
  }

  void on_samples(std::uint64_t e, engine::Samples s) {
    {
      const std::lock_guard lock(mutex);
      if (e != epoch || stage != Stage::kReady || steps.empty()) {
        return;
      }
      step_watch.ended(clock.now(), steps.front().start);
      steps.pop_front();
      samples.push_back(std::move(s));
    }
    changed.notify_all();
  }

  void on_broken(std::uint64_t e, int pod, const Error& error) {
    const std::lock_guard lock(mutex);
    if (e == epoch) {
      end_epoch({.kind = error.kind,
                 .message = "a rank of pod " + std::to_string(pod) + " failed: " + error.message});
    }
  }

  // --- the control thread: forms groups, sends heartbeats, finds ranks that hang ---

  void control_loop() {
    TimePoint last_heartbeat = clock.now();
    std::unique_lock lock(mutex);
    while (!stopping || give_up_local) {
      if (std::exchange(give_up_local, false)) {
        lock.unlock();
        ranks->abort();
        lock.lock();
        continue;
      }
      const TimePoint now = clock.now();
      if (now - last_heartbeat >= options.heartbeat) {
        last_heartbeat = now;
        send_to_pods(encode(Heartbeat{}));
      }
      if (adapters && (adapters_news.exchange(false) || now - adapters_seen >= kAdaptersRound)) {
        adapters_seen = now;
        look_after_adapters();
      }
      if (stage == Stage::kWaiting && now >= next_epoch_at && may_begin() && adapters_ready()) {
        begin_epoch();
      } else if (stage == Stage::kConnecting && now - connecting_since > form_timeout) {
        end_epoch({.kind = ErrorKind::kTransient,
                   .message = "the ranks did not connect within " +
                              std::to_string(form_timeout.count()) + " ms"});
        continue;
      } else if (stage == Stage::kReady && !steps.empty() &&
                 step_watch.hangs(now, steps.front().start, ranks->moves())) {
        end_epoch({.kind = ErrorKind::kTransient,
                   .message = "a step of " + std::to_string(steps.front().tokens) +
                              " tokens does not get on: a rank hangs"});
        continue;
      }
      clock.wait_until(changed, lock, now + std::min<Millis>(options.heartbeat, Millis(200)));
    }
  }

  Error loss() const {
    // The engine has not seen this epoch yet, or it has ended.
    return last_loss.value_or(
        Error{.kind = ErrorKind::kTransient, .message = "the group is not formed"});
  }

  bool usable() const { return stage == Stage::kReady && engine_epoch == epoch; }

  GroupState state() const;

  const GroupOptions options;
  Clock& clock;
  const Logger log;

  mutable std::mutex mutex;
  std::condition_variable changed;
  bool stopping = false;
  bool give_up_local = false;
  std::map<int, Pod> pods;
  Stage stage = Stage::kWaiting;
  TimePoint connecting_since{};
  Millis form_timeout{};  // of the epoch under way
  TimePoint next_epoch_at{};
  int failed_in_a_row = 0;
  std::uint64_t epoch = 0;         // under way, or the last
  std::uint64_t engine_epoch = 0;  // that the engine knows the KV cache of
  bool local_joined = false;
  std::shared_ptr<comm::Rendezvous> rendezvous;
  std::deque<Step> steps;  // under way, oldest first
  std::deque<engine::Samples> samples;
  std::optional<Error> last_loss;
  std::string condemned;     // why; empty: it is not
  Rest rest = Rest::kAwake;  // of all ranks, as all are told
  int kv_blocks = 0;  // that the ranks have agreed on; 0: not yet, or there is nothing to agree
  StepWatch step_watch{options.step_timeout};
  const std::shared_ptr<SharedAdapters> adapters;  // null: there are none
  AdapterRoll roll;
  TimePoint adapters_seen{};
  TimePoint adapters_told{};
  std::atomic<bool> adapters_news{false};

  // Their events use what stands above; so they are the last, and the first to go.
  std::unique_ptr<RankThreads> ranks;
  ControlPort port;
  std::thread control;
};

GroupState LeaderGroup::Impl::state() const {
  LeaderView view{.local = ranks->states(), .pods = {}, .condemned = "", .adapters = ""};
  const bool loaded = ranks->loaded();
  const bool live = ranks->stuck_for() < kStuck;
  const std::lock_guard lock(mutex);
  for (const auto& [index, pod] : pods) {
    view.pods[index] = pod.ranks;
  }
  view.stage = stage;
  view.engine_knows = engine_epoch == epoch;
  view.rest = rest;
  view.condemned = condemned;
  if (adapters) {
    view.adapters = roll.complaint();
  }
  GroupState s = state_of(options, view);
  s.loaded = loaded;
  s.live = live;
  s.epoch = epoch;
  s.kv_blocks = kv_blocks;
  s.last_error = last_loss ? last_loss->message : "";
  return s;
}

LeaderGroup::LeaderGroup(const GroupOptions& options, RankLoader loader, Clock& clock, Logger log,
                         std::shared_ptr<SharedAdapters> adapters)
    : impl_(std::make_unique<Impl>(options, std::move(loader), clock, std::move(log),
                                   std::move(adapters))) {}

LeaderGroup::~LeaderGroup() = default;

Status LeaderGroup::start() {
  if (impl_->options.pods() == 1) {
    return {};
  }
  return impl_->port.open();
}

std::uint16_t LeaderGroup::control_port() const {
  return impl_->port.number();
}
GroupState LeaderGroup::state() const {
  return impl_->state();
}
void LeaderGroup::device_is(int rank, health::DeviceHealth health) {
  impl_->ranks->device_is(rank, std::move(health));
}

Status LeaderGroup::submit(engine::Batch batch) {
  Impl& impl = *impl_;
  const std::lock_guard lock(impl.mutex);
  if (!impl.usable()) {
    return std::unexpected(impl.loss());
  }
  impl.steps.push_back({.tokens = batch.token_count(), .start = impl.clock.now()});
  if (!impl.pods.empty()) {
    const RunBatch message{.epoch = impl.epoch, .batch = std::move(batch)};
    impl.send_to_pods(encode(message));
    impl.ranks->submit(impl.epoch, std::make_shared<engine::Batch>(message.batch));
  } else {
    impl.ranks->submit(impl.epoch, std::make_shared<engine::Batch>(std::move(batch)));
  }
  return {};
}

Result<std::optional<engine::Samples>> LeaderGroup::poll(TimePoint deadline) {
  Impl& impl = *impl_;
  std::unique_lock lock(impl.mutex);
  for (;;) {
    if (!impl.usable()) {
      return std::unexpected(impl.loss());
    }
    if (!impl.samples.empty()) {
      std::optional<engine::Samples> oldest = std::move(impl.samples.front());
      impl.samples.pop_front();
      return oldest;
    }
    if (impl.clock.now() >= deadline) {
      return std::nullopt;
    }
    impl.clock.wait_until(impl.changed, lock, deadline);
  }
}

bool LeaderGroup::recover(TimePoint deadline) {
  Impl& impl = *impl_;
  std::unique_lock lock(impl.mutex);
  while (impl.stage != Stage::kReady) {
    if (impl.clock.now() >= deadline) {
      return false;
    }
    impl.clock.wait_until(impl.changed, lock, deadline);
  }
  impl.engine_epoch = impl.epoch;
  impl.samples.clear();
  return true;
}

// What is under way of the epoch ends before the ranks are told: they hear both in this order.
void LeaderGroup::sleep(bool asleep) {
  Impl& impl = *impl_;
  const std::lock_guard lock(impl.mutex);
  impl.rest = asleep ? Rest::kAsleep : Rest::kAwake;
  impl.end_epoch({.kind = ErrorKind::kTransient, .message = "the group falls asleep"});
  impl.last_loss.reset();  // it is no loss
  impl.send_to_pods(encode(Sleep{.rest = impl.rest}));
  impl.ranks->rest(impl.rest);
  impl.changed.notify_all();
}

void LeaderGroup::condemn(std::string why) {
  Impl& impl = *impl_;
  const std::lock_guard lock(impl.mutex);
  impl.condemned = std::move(why);
  impl.send_to_pods(encode(Condemned{.message = impl.condemned}));
  impl.end_epoch({.kind = ErrorKind::kInternal, .message = impl.condemned});
}

}  // namespace dsm::group
