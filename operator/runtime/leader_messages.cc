#include "operator/runtime/leader_messages.h"

namespace dsm::runtime {

LeaderMessage keys_message(const plan::KeyMessage& keys) {
  return {.method = "PUT",
          .path = "/internal/keys",
          .body = keys.body,
          .digest = keys.digest,
          .about = "its API keys",
          .is_news = [keys](const plan::LeaderStatus& status) {
            return plan::must_be_told(keys, status.keys);
          }};
}

LeaderMessage sleep_message(bool sleep) {
  return {.method = "POST",
          .path = sleep ? "/internal/sleep" : "/internal/wake",
          .digest = sleep ? "sleep" : "wake",
          .about = sleep ? "to sleep" : "to wake",
          .is_news = [sleep](const plan::LeaderStatus& status) {
            return status.told_to_sleep != sleep;
          }};
}

}  // namespace dsm::runtime
