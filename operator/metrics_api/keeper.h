// Keeps what the metrics APIs stand on: our certificate, and the APIServices by which the API
// server finds us. One thread looks every few seconds; every replica reads, only the one that leads
// writes. Thread-safe.
//
// Order in one look: the Secret with a new certificate, then the APIServices with its authority,
// and only then is the certificate used, so that the API server never meets one that it does not
// trust. Other replicas take it up at their next look, when both authorities are trusted already.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "base/http/tls.h"
#include "base/log.h"
#include "kube/client.h"
#include "operator/metrics_api/registration.h"
#include "operator/plan/observed.h"

namespace dsm::metrics_api {

class Keeper {
 public:
  static constexpr Seconds kLook{10};      // when all is well
  static constexpr Seconds kLookAgain{1};  // when something is missing
  // On the keeper's thread, at each look of the replica that leads.
  using OnState = std::function<void(plan::MetricsApi)>;

  // All must outlive the keeper. `writes` is held back unless this replica leads.
  Keeper(Place place, kube::Client& reads, kube::Client& writes, std::shared_ptr<http::Tls> tls,
         OnState on_state, Logger log);
  ~Keeper();
  Keeper(const Keeper&) = delete;
  Keeper& operator=(const Keeper&) = delete;

  void start();
  void stop();
  void lead(bool leading);

  // When the certificate in use ends; the epoch: there is none.
  WallTime certificate_until() const;

 private:
  void run(const std::stop_token& stop);
  // True when everything is as it should be.
  bool look(bool leading);
  // What the Secret holds afterwards; nothing: there is no certificate.
  std::optional<Serving> look_at_secret(bool leading);
  std::optional<Serving> renew(const Serving* before, const std::string& resource_version);
  bool look_at_api_services(const Serving& serving);
  // null: there is none.
  Result<Json> read_api_service(const std::string& name);
  // `there`: as it was read.
  bool carry_out(Deed deed, const Group& group, const Json& there, const Serving& serving);
  bool keep(const Group& group, const Json& there, const Serving& serving);
  bool use(const Serving& serving);
  std::optional<std::string> owner_uid();
  // Says a trouble once, not at each look. Returns false.
  bool trouble(const std::string& what, const std::string& error);

  const Place place_;
  kube::Client& reads_;
  kube::Client& writes_;
  Clock& clock_;
  const std::shared_ptr<http::Tls> tls_;
  const OnState on_state_;
  const Logger log_;
  std::optional<Serving> used_;  // of the thread alone
  std::string said_;             // the last trouble; of the thread alone
  plan::MetricsApi told_;        // who serves the metrics; of the thread alone

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool leading_ = false;  // guarded by mutex_, like all below
  bool woken_ = false;
  WallTime until_{};
  std::jthread thread_;  // last: it uses everything above
};

}  // namespace dsm::metrics_api
