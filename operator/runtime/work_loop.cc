#include "operator/runtime/work_loop.h"

#include <exception>

namespace dsm::runtime {

void look_at(WorkQueue& queue, ControllerMetrics& metrics, Clock& clock, const Logger& log,
             const char* what, const std::string& key, const LookAt& look) {
  const TimePoint begin = clock.now();
  metrics.active(1);
  Result<Millis> again = fail(ErrorKind::kInternal, "");
  try {
    again = look(key);
  } catch (const std::exception& e) {
    metrics.panicked();
    log.info("exception while looking at a key", {{what, key}, {"error", e.what()}});
    again = fail(ErrorKind::kInternal, e.what());
  }
  using Counted = ControllerMetrics::Result;
  const double seconds = std::chrono::duration<double>(clock.now() - begin).count();
  if (!again) {
    metrics.reconciled(Counted::kError, seconds);
    log.debug("key is looked at again later", {{what, key}, {"error", again.error().message}});
    if (again.error().retry_after_s > 0) {
      queue.add_after(key, Seconds(again.error().retry_after_s));
    } else {
      queue.add_backoff(key);
    }
  } else {
    queue.forget(key);
    if (again->count() > 0) queue.add_after(key, *again);
    metrics.reconciled(again->count() > 0 ? Counted::kRequeueAfter : Counted::kSuccess, seconds);
  }
  metrics.active(-1);
  queue.done(key);
}

void work(WorkQueue& queue, ControllerMetrics& metrics, Clock& clock, const Logger& log,
          const char* what, const LookAt& look, const std::stop_token& stop) {
  while (const auto key = queue.take(stop)) look_at(queue, metrics, clock, log, what, *key, look);
}

}  // namespace dsm::runtime
