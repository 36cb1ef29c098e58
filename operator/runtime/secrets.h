// The token Secret of each model, read by name: a watch on Secrets would bring every secret of the
// cluster into this process. Kept for a few minutes; that there is none is not kept, since another
// replica may be about to make it. The token never leaves this class but for the status streams.
// Thread-safe.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "kube/client.h"
#include "operator/runtime/store.h"

namespace dsm::runtime {

class Secrets {
 public:
  static constexpr std::chrono::minutes kKept{5};

  struct Entry {
    kube::Json object;  // without data; null when there is no such Secret
    std::string token;
    TimePoint read{};
  };

  // `client` must outlive it.
  explicit Secrets(kube::Client& client) : client_(client) {}

  // The model's Secret ("namespace/model"), from memory when it is young enough. On an error what
  // was known before, if anything.
  Result<Entry> of_model(const std::string& model);
  // An answer to our own write.
  void put(const std::string& model, kube::Json object);
  // A worker refused the token, or the model is gone: read again next time.
  void forget(const std::string& model);

 private:
  struct Kept {
    KeptPacked::Kept object;
    std::string token;
    TimePoint read{};
  };

  static Entry entry_of(kube::Json object, TimePoint read);
  static Kept keep(const Entry& entry);
  static Entry open(const Kept& kept);

  kube::Client& client_;
  std::mutex mutex_;
  std::map<std::string, Kept> entries_;
};

}  // namespace dsm::runtime
