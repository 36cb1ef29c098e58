#include "operator/faults/one_fault.h"

#include "operator/faults/world.h"

namespace dsm::faults {
namespace {

// Enough for another operator to take over after the longest standstill and to finish.
constexpr Seconds kEach{60};

}  // namespace

std::vector<std::string> play(const ShortHistory& history, OneFault& fault) {
  using Until = ShortHistory::Until;
  World world(fault);
  ApiServer& server = world.server();
  const auto goes_on = [&](Until done) {
    world.run(kEach, Millis(200));
    world.check_end();
    return done < history.until;
  };
  server.make_model("ns", "m",
                    {{"model", {{"uri", "image:///models/deepseek-tiny"}}},
                     {"parallelism", {{"tensor", history.pods}}},
                     {"replicas", history.groups}});
  if (!goes_on(Until::kMade)) return world.breaches();
  server.edit_model("ns/m", {{"image", "worker:2"}});
  if (!goes_on(Until::kChanged)) return world.breaches();
  server.edit_model("ns/m", {{"replicas", history.groups - 1}});
  if (!goes_on(Until::kScaled)) return world.breaches();
  server.delete_model("ns/m", /*foreground=*/false);
  goes_on(Until::kDeleted);
  return world.breaches();
}

}  // namespace dsm::faults
