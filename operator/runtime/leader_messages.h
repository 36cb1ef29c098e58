// What the operator tells leaders over their internal port, and whether one has to be told: by what
// its status line reports. Pure.
#pragma once

#include <functional>
#include <string>

#include "operator/plan/observed.h"
#include "operator/plan/tenant_keys.h"

namespace dsm::runtime {

struct LeaderMessage {
  std::string method = {};
  std::string path = {};
  std::string body = {};
  std::string digest = {};  // another one is sent at once, the same one again after a pause
  std::string about = {};   // for the log
  std::function<bool(const plan::LeaderStatus&)> is_news = {};  // for a leader that reports this
};

// Which API keys open it.
LeaderMessage keys_message(const plan::KeyMessage& keys);
// To sleep or to wake, as spec.sleep says.
LeaderMessage sleep_message(bool sleep);

}  // namespace dsm::runtime
