// The connection of one operator to the simulated API server, on which writes go wrong as the
// faults say. For tests; single-threaded.
#pragma once

#include <functional>
#include <string>

#include "kube/transport.h"
#include "operator/faults/api_server.h"
#include "operator/faults/fault_source.h"

namespace dsm::faults {

// Thrown through the operator's code: its process ends there.
struct Crash {};

class Wire : public kube::Transport {
 public:
  struct Hooks {
    std::function<bool()> connected;
    // Everything but this operator goes on for so long.
    std::function<void(Millis)> stand_still;
    // The operator ends in order after this look.
    std::function<void()> hand_over;
    // A write is about to take effect; `stopped`: the operator stood still before it.
    std::function<void(const kube::HttpRequest& request, bool stopped)> writes;
  };

  // All must outlive it.
  Wire(ApiServer& server, FaultSource& faults, Hooks hooks)
      : server_(server), faults_(faults), hooks_(std::move(hooks)) {}

  Result<kube::HttpResponse> send(const kube::HttpRequest& request, Millis timeout,
                                  std::stop_token stop) override;
  // Watches do not come here: watch_line.h.
  Result<kube::HttpResponse> stream(const kube::HttpRequest&, Millis,
                                    const std::function<void(std::string_view)>&,
                                    std::stop_token) override {
    return fail(ErrorKind::kTransient, "no streams here");
  }
  void refresh_credentials() override {}
  std::string host() const override { return "simulated"; }

 private:
  ApiServer& server_;
  FaultSource& faults_;
  const Hooks hooks_;
};

}  // namespace dsm::faults
