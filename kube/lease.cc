#include "kube/lease.h"

#include <algorithm>

#include "kube/sleep.h"

namespace dsm::kube {
namespace {

using Kind = LeaseDecision::Kind;

std::string text(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

int number(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number_integer() ? found->get<int>() : 0;
}

}  // namespace

Status check(const LeaseTimes& times) {
  if (times.duration.count() % 1000 != 0) {
    return fail(ErrorKind::kInvalid, "the lease duration must be whole seconds");
  }
  if (times.renew_deadline >= times.duration) {
    return fail(ErrorKind::kInvalid, "the renew deadline must be shorter than the lease duration");
  }
  if (times.retry >= times.renew_deadline || times.look >= times.renew_deadline ||
      times.retry.count() <= 0 || times.look.count() <= 0) {
    return fail(ErrorKind::kInvalid, "the retry period must be shorter than the renew deadline");
  }
  return {};
}

LeaseRecord lease_record(const Json& lease) {
  LeaseRecord record;
  const Json metadata = lease.value("metadata", Json::object());
  record.resource_version = text(metadata, "resourceVersion");
  record.uid = text(metadata, "uid");
  const Json spec = lease.value("spec", Json::object());
  record.holder = text(spec, "holderIdentity");
  record.duration = Seconds(number(spec, "leaseDurationSeconds"));
  record.transitions = number(spec, "leaseTransitions");
  record.acquire_time = text(spec, "acquireTime");
  record.renew_time = text(spec, "renewTime");
  return record;
}

LeaseState observe(LeaseState state, std::optional<LeaseRecord> record, TimePoint now) {
  if (state.seen != record) {
    state.seen = std::move(record);
    state.seen_since = now;
  }
  return state;
}

LeaseDecision decide(const LeaseState& state, const LeaseTimes& times, const std::string& identity,
                     TimePoint now) {
  if (state.leading) {
    if (state.seen && state.seen->holder != identity) return {Kind::kGiveUp, now};
    if (now >= state.renewed + times.renew_deadline) return {Kind::kGiveUp, now};
    const TimePoint due = state.renewed + times.retry;
    return now >= due ? LeaseDecision{Kind::kRenew, now} : LeaseDecision{Kind::kWait, due};
  }
  const bool free = !state.seen || state.seen->holder.empty() || state.seen->holder == identity;
  if (free) return {Kind::kTake, now};
  // The holder says how long its lease is; never believe less than a second.
  const TimePoint expiry = state.seen_since + std::max<Millis>(state.seen->duration, Seconds(1));
  if (now >= expiry) return {Kind::kTake, now};
  return {Kind::kWait, std::min(expiry, now + times.look)};
}

Json lease_object(const LeaseState& state, Kind kind, const LeaseTimes& times,
                  const std::string& ns, const std::string& name, const std::string& identity,
                  WallTime now) {
  const LeaseRecord old = state.seen.value_or(LeaseRecord{});
  const std::string time = to_rfc3339_micro(now);
  const bool take = kind == Kind::kTake;
  const int changes = take && state.seen && old.holder != identity ? 1 : 0;
  Json object = {
      {"apiVersion", kLeases.api_version()},
      {"kind", kLeases.kind},
      {"metadata", {{"name", name}, {"namespace", ns}}},
      {"spec",
       {{"holderIdentity", identity},
        {"leaseDurationSeconds", std::chrono::duration_cast<Seconds>(times.duration).count()},
        {"acquireTime", take || old.acquire_time.empty() ? time : old.acquire_time},
        {"renewTime", time},
        {"leaseTransitions", old.transitions + changes}}}};
  if (state.seen) object["metadata"]["resourceVersion"] = old.resource_version;
  return object;
}

Election::Election(Client& client, ElectorOptions options, Logger log)
    : client_(client), options_(std::move(options)), log_(log.with({{"lease", options_.name}})) {}

LeaseState Election::state() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

void Election::set(LeaseState state) {
  bool changed = false;
  bool now_leading = state.leading;
  {
    const std::lock_guard lock(mutex_);
    changed = state_.leading != state.leading;
    state_ = std::move(state);
  }
  if (!changed) return;
  log_.info(now_leading ? "leading" : "not leading any more", {{"identity", options_.identity}});
  if (options_.on_change) options_.on_change(now_leading);
}

bool Election::leading() const {
  return holds_until(client_.clock().now());
}

bool Election::holds_until(TimePoint end) const {
  const LeaseState now = state();
  return now.leading && end < now.renewed + options_.times.duration &&
         client_.clock().now() < now.renewed + options_.times.renew_deadline;
}

TimePoint Election::step() {
  Clock& clock = client_.clock();
  const TimePoint begin = clock.now();
  if (!state().leading && !look()) return begin + options_.times.look;
  const LeaseDecision next = decide(state(), options_.times, options_.identity, clock.now());
  switch (next.kind) {
    case Kind::kWait:
      return next.wake;
    case Kind::kTake:
    case Kind::kRenew:
      // A refused or lost write is tried again, but not in a hot loop.
      return write(next.kind) ? begin : begin + options_.times.look;
    case Kind::kGiveUp: {
      LeaseState lost = state();
      lost.leading = false;
      set(std::move(lost));
      break;
    }
  }
  return begin;
}

void Election::trouble(const std::string& what, const std::string& error) {
  if (said_ == what + error) return;
  said_ = what + error;
  log_.info(what, {{"error", error}});
}

bool Election::look() {
  const ApiResult<Json> lease = client_.get(kLeases, options_.ns, options_.name);
  const TimePoint now = client_.clock().now();
  if (lease) {
    set(observe(state(), lease_record(*lease), now));
  } else if (lease.error().kind == ErrorKind::kNotFound) {
    set(observe(state(), std::nullopt, now));
  } else {
    trouble("cannot read the lease", lease.error().message);
    return false;
  }
  return true;
}

bool Election::write(Kind kind) {
  Clock& clock = client_.clock();
  const LeaseState before = state();
  const Json object = lease_object(before, kind, options_.times, options_.ns, options_.name,
                                   options_.identity, clock.wall_now());
  const TimePoint sent = clock.now();
  const ApiResult<Json> written = before.seen
                                      ? client_.replace(kLeases, options_.ns, options_.name, object)
                                      : client_.create(kLeases, options_.ns, object);
  if (written) {
    LeaseState mine = observe(before, lease_record(*written), clock.now());
    mine.leading = true;
    mine.renewed = sent;
    set(std::move(mine));
    said_.clear();
    return true;
  }
  const ApiError& error = written.error();
  if (kind == Kind::kRenew || error.kind != ErrorKind::kConflict) {
    trouble("cannot write the lease", error.message);
  }
  // Somebody was faster, or our own write went through and only its answer was lost.
  if (error.kind == ErrorKind::kConflict || error.kind == ErrorKind::kNotFound) look();
  return false;
}

void Election::release() {
  LeaseState mine = state();
  if (!mine.leading) return;
  Json object = lease_object(mine, Kind::kRenew, options_.times, options_.ns, options_.name, "",
                             client_.clock().wall_now());
  object["spec"]["leaseDurationSeconds"] = 1;
  const bool taken = mine.seen && mine.seen->holder != options_.identity;
  mine.leading = false;
  set(std::move(mine));
  if (taken) return;  // a renewal came too late: it is not ours to free
  const ApiResult<Json> freed = client_.replace(kLeases, options_.ns, options_.name, object);
  if (!freed) log_.info("cannot release the lease", {{"error", freed.error().message}});
}

Elector::Elector(Client& client, ElectorOptions options, Logger log)
    : clock_(client.clock()),
      election_(client, std::move(options), std::move(log)),
      thread_([this](const std::stop_token& stop) {
        while (sleep_until(clock_, election_.step(), stop)) {
        }
      }) {}

Elector::~Elector() {
  release();
}

void Elector::release() {
  if (!thread_.joinable()) return;
  thread_.request_stop();
  thread_.join();
  election_.release();
}

}  // namespace dsm::kube
