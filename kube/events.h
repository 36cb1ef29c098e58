// Kubernetes Events for what a person would want to know about an object. The same words again are
// counted in the series of the first event instead of making a new one, and an object that has too
// much to say is cut short. Thread-safe.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "base/log.h"
#include "kube/client.h"

namespace dsm::kube {

struct EventNote {
  bool warning = false;
  std::string reason;  // CamelCase: "GroupReady"
  std::string action;  // CamelCase: what was being done: "Scaling"
  std::string note;    // for people, at most 1024 bytes; longer ones are cut
};

// What becomes of a note: pure bookkeeping without I/O.
class EventLedger {
 public:
  struct Entry {
    std::string name;  // of the Event object
    int count = 0;     // 1: a new event; more: the series of an old one
  };
  // Nothing: dropped, because the object's bucket (25 notes, one more every 5 minutes) is empty or
  // because the series was written a short time ago.
  std::optional<Entry> record(const std::string& regarding_name, const std::string& regarding_uid,
                              const EventNote& note, TimePoint now);

 private:
  struct Series {
    std::string name;
    int count = 0;
    TimePoint last{};
    TimePoint written{};
  };
  struct Bucket {
    double tokens = 0;
    TimePoint filled{};
  };
  bool take(const std::string& uid, TimePoint now);
  void forget_old(TimePoint now);

  std::map<std::string, Series> series_;
  std::map<std::string, Bucket> buckets_;
  // Entries after the last tidying: the next one comes when there are twice as many, so that it
  // costs little for each note however many objects there are.
  std::size_t kept_ = 0;
};

class EventRecorder {
 public:
  // `client` must outlive the recorder. `controller` is the reporting controller, `instance` this
  // process.
  EventRecorder(Client& client, std::string controller, std::string instance, Logger log);

  // Writes at most one request; a failure is logged and forgotten. `object` needs apiVersion, kind
  // and metadata.
  void record(const Json& object, const EventNote& note);

 private:
  Client& client_;
  const std::string controller_;
  const std::string instance_;
  const Logger log_;
  std::mutex mutex_;
  EventLedger ledger_;  // guarded by mutex_
};

}  // namespace dsm::kube
