#include "operator/metrics_api/keeper.h"

#include "operator/plan/children.h"
#include "operator/plan/new_child.h"

namespace dsm::metrics_api {
namespace {

std::string text(const Json& object, const char* pointer) {
  const Json value = object.value(Json::json_pointer(pointer), Json());
  return value.is_string() ? value.get<std::string>() : std::string();
}

}  // namespace

Keeper::Keeper(Place place, kube::Client& reads, kube::Client& writes,
               std::shared_ptr<http::Tls> tls, OnState on_state, Logger log)
    : place_(std::move(place)),
      reads_(reads),
      writes_(writes),
      clock_(reads.clock()),
      tls_(std::move(tls)),
      on_state_(std::move(on_state)),
      log_(std::move(log)) {}

Keeper::~Keeper() {
  stop();
}

void Keeper::start() {
  thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
}

void Keeper::stop() {
  if (!thread_.joinable()) return;
  thread_.request_stop();
  thread_.join();
}

void Keeper::lead(bool leading) {
  const std::lock_guard lock(mutex_);
  leading_ = leading;
  woken_ = true;
  changed_.notify_all();
}

WallTime Keeper::certificate_until() const {
  const std::lock_guard lock(mutex_);
  return until_;
}

void Keeper::run(const std::stop_token& stop) {
  const std::stop_callback wake(stop, [this] {
    const std::lock_guard lock(mutex_);
    changed_.notify_all();
  });
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    woken_ = false;
    const bool leading = leading_;
    lock.unlock();
    const bool good = look(leading);
    lock.lock();
    const TimePoint next = clock_.now() + (good ? kLook : kLookAgain);
    while (!stop.stop_requested() && !woken_ && clock_.now() < next) {
      clock_.wait_until(changed_, lock, next);
    }
  }
}

bool Keeper::look(bool leading) {
  const std::optional<Serving> serving = look_at_secret(leading);
  if (!serving) return false;
  bool good = !leading || look_at_api_services(*serving);
  good = use(*serving) && good;
  if (good) said_.clear();
  return good;
}

bool Keeper::trouble(const std::string& what, const std::string& error) {
  if (said_ != what + error) log_.info(what, {{"error", error}});
  said_ = what + error;
  return false;
}

std::optional<Serving> Keeper::look_at_secret(bool leading) {
  const auto secret = reads_.get(kube::kSecrets, place_.ns, place_.secret());
  if (!secret && secret.error().kind != ErrorKind::kNotFound) {
    trouble("cannot read the certificate of the metrics api", secret.error().message);
    return std::nullopt;
  }
  const Result<Serving> serving =
      secret ? serving_of(*secret) : fail(ErrorKind::kNotFound, "there is no certificate yet");
  const Serving* there = serving ? &*serving : nullptr;
  if (leading && must_renew(there, place_, clock_.wall_now())) {
    // Where the Secret was deleted, what we serve with until all have the new one is still known.
    return renew(there == nullptr && used_ ? &*used_ : there,
                 secret ? text(*secret, "/metadata/resourceVersion") : "");
  }
  if (!serving) {
    trouble("the metrics api waits for its certificate", serving.error().message);
    return std::nullopt;
  }
  return *serving;
}

std::optional<Serving> Keeper::renew(const Serving* before, const std::string& resource_version) {
  const auto uid = owner_uid();
  if (!uid) return std::nullopt;
  auto made = new_serving(before, place_, clock_.wall_now());
  if (!made) {
    trouble("cannot make a certificate for the metrics api", made.error().message);
    return std::nullopt;
  }
  const Json secret = secret_json(*made, place_, *uid, resource_version);
  const auto written = resource_version.empty()
                           ? writes_.create(kube::kSecrets, place_.ns, secret)
                           : writes_.replace(kube::kSecrets, place_.ns, place_.secret(), secret);
  if (!written) {
    trouble("cannot keep the certificate of the metrics api", written.error().message);
    return std::nullopt;
  }
  log_.info("made a certificate for the metrics api", {{"secret", place_.secret()}});
  return *std::move(made);
}

Result<Json> Keeper::read_api_service(const std::string& name) {
  auto there = reads_.get(kube::kApiServices, "", name);
  if (there) return *std::move(there);
  if (there.error().kind == ErrorKind::kNotFound) return Json();
  trouble("cannot read APIService " + name, there.error().message);
  return std::unexpected<Error>(there.error());
}

bool Keeper::look_at_api_services(const Serving& serving) {
  const auto external = read_api_service(kExternalMetrics.api_service());
  const auto custom = read_api_service(kCustomMetrics.api_service());
  const auto older = read_api_service(std::string(kOlderCustomApiService));
  if (!external || !custom || !older) return false;
  const auto claim = [&](const Json& one) {
    return claim_of(one.is_null() ? nullptr : &one, place_);
  };
  const Registration wanted = registration_for({claim(*external), claim(*custom), claim(*older)});
  if (!carry_out(wanted.external, kExternalMetrics, *external, serving)) return false;
  if (!carry_out(wanted.custom, kCustomMetrics, *custom, serving)) return false;
  if (told_ != wanted.state && !wanted.state.owner.empty()) {
    log_.info("external metrics are served by somebody else",
              {{"owner", wanted.state.owner}, {"custom_owner", wanted.state.custom_owner}});
  }
  told_ = wanted.state;
  on_state_(wanted.state);
  return true;
}

bool Keeper::carry_out(Deed deed, const Group& group, const Json& there, const Serving& serving) {
  if (deed == Deed::kLeave) return true;
  if (deed == Deed::kKeep) return keep(group, there, serving);
  // Of this very state: it may have become somebody else's meanwhile.
  kube::DeleteOptions options;
  options.uid = text(there, "/metadata/uid");
  options.resource_version = text(there, "/metadata/resourceVersion");
  const auto removed = writes_.remove(kube::kApiServices, "", group.api_service(), options);
  if (!removed && removed.error().kind != ErrorKind::kNotFound) {
    return trouble("cannot remove APIService " + group.api_service(), removed.error().message);
  }
  log_.info("removed an APIService", {{"name", group.api_service()}});
  return true;
}

bool Keeper::keep(const Group& group, const Json& there, const Serving& serving) {
  const std::string name = group.api_service();
  const auto uid = owner_uid();
  if (!uid) return false;
  Json wanted = api_service_json(group, serving.authorities, place_, *uid);
  if (there.is_null()) {
    const auto made = writes_.apply(kube::kApiServices, "", name, plan::made_by_apply(wanted));
    if (!made) return trouble("cannot make APIService " + name, made.error().message);
    log_.info("made an APIService", {{"name", name}});
  } else if (!plan::says_the_same(wanted, there)) {
    // Of this very state: it may have become somebody else's meanwhile.
    for (const char* field : {"uid", "resourceVersion"}) {
      wanted["metadata"][field] = there["metadata"].value(field, "");
    }
    const auto mended = writes_.apply(kube::kApiServices, "", name, wanted);
    if (!mended) return trouble("cannot mend APIService " + name, mended.error().message);
    log_.info("applied an APIService", {{"name", name}});
  }
  return true;
}

bool Keeper::use(const Serving& serving) {
  if (used_ && used_->pair == serving.pair) return true;
  if (const auto ok = tls_->use(serving.pair.certificate, serving.pair.key); !ok) {
    return trouble("the certificate of the metrics api cannot be used", ok.error().message);
  }
  used_ = serving;
  const auto facts = certificate_facts(serving.pair.certificate);
  const std::lock_guard lock(mutex_);
  until_ = facts ? facts->until : WallTime();
  return true;
}

std::optional<std::string> Keeper::owner_uid() {
  const auto role = reads_.get(kube::kClusterRoles, "", place_.owner);
  if (!role) {
    trouble("cannot read the ClusterRole that is to own what the metrics api needs",
            role.error().message);
    return std::nullopt;
  }
  return text(*role, "/metadata/uid");
}

}  // namespace dsm::metrics_api
