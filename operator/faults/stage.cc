#include "operator/faults/stage.h"

namespace dsm::faults {
namespace {

constexpr int kTroubleEvery = 25;  // one second in so many brings trouble to an operator

}  // namespace

Stage::Stage(unsigned seed, plan::Harm harm, const runtime::ModelLoopOptions& options)
    : random(seed),
      faults(random),
      world(faults, options),
      troubles(world, faults, [this](const std::string& what) { log(what); }) {
  world.harm = harm == plan::Harm::kPodsAndNodes;
}

void Stage::log(const std::string& what) {
  done.push_back("  " + std::to_string(world.now_s()) + "s " + what);
}

void Stage::end_faults() {
  log("quiet");
  faults.end();
  server().kubelets().mend_nodes();
}

bool Stage::rest(const std::string& when) {
  if (world.settle(Seconds(8'000))) return true;
  world.breach(when + " it does not come to rest");
  return false;
}

void Stage::check_stillness() {
  world.run(Seconds(1'500), Seconds(5));
  const int writes = world.writes();
  world.run(Seconds(600), Seconds(5));
  if (world.writes() != writes) world.breach("it writes although nothing changes");
}

HistoryResult play(Stage& stage, const History& history) {
  World& world = stage.world;
  history.begin();
  for (int i = 0; i < history.seconds; ++i) {
    if (stage.one_in(history.every)) history.act();
    if (stage.one_in(kTroubleEvery)) stage.troubles.trouble_an_operator();
    world.run(Seconds(1));
  }
  history.end();
  HistoryResult result{world.breaches(), static_cast<int>(world.now_s()), world.writes(),
                       world.late_writes(), world.most_writes()};
  if (!result.breaches.empty()) {
    result.breaches.insert(result.breaches.end(), stage.done.begin(), stage.done.end());
  }
  return result;
}

}  // namespace dsm::faults
