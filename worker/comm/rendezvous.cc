#include "worker/comm/rendezvous.h"

#include "worker/comm/communicator.h"

namespace dsm::comm {

void Rendezvous::set(const std::string& key, const std::string& value) {
  put(key, value);
  if (publish_) {
    publish_(key, value);
  }
}

void Rendezvous::put(const std::string& key, const std::string& value) {
  {
    const std::lock_guard lock(mutex_);
    values_.insert_or_assign(key, value);
  }
  changed_.notify_all();
}

std::string Rendezvous::get(const std::string& key) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return aborted_ || values_.contains(key); });
  if (aborted_) {
    throw CommError("the rendezvous was given up");
  }
  return values_.at(key);
}

void Rendezvous::abort() noexcept {
  {
    const std::lock_guard lock(mutex_);
    aborted_ = true;
  }
  changed_.notify_all();
}

}  // namespace dsm::comm
