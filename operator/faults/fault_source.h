// What goes wrong between the operators and the API server, and when. One source decides for all,
// in the order in which it is asked, so that a run with the same source is the same run. For tests.
#pragma once

#include <map>
#include <random>
#include <string>

#include "base/clock.h"

namespace dsm::faults {

// What becomes of one write of an operator.
enum class WriteFault {
  kNone,
  kRefused,      // answered with 500; nothing was done
  kLostBefore,   // not answered; nothing was done
  kLostAfter,    // not answered; it was done
  kCrashBefore,  // the operator ends there; nothing was done
  kCrashAfter,   // the same; it was done
  kSlow,         // it takes effect, and is answered, seconds later, within its time-out
  kStopped,      // the operator stands still between the check of its lease and the write
  kHandOver,     // it is done; after this look the operator ends in order and frees the lease
};

// What becomes of one event on its way to one operator.
struct EventFault {
  Millis delay{0};
  bool twice = false;    // it is sent again right after
  bool dropped = false;  // it and all that are on their way are not sent: 410, and a new list
};

class FaultSource {
 public:
  virtual ~FaultSource() = default;

  virtual WriteFault of_write(bool of_lease) = 0;
  // Of a watch of this kind.
  virtual EventFault of_event(const std::string& plural) = 0;
  // From when a list was read until it is there.
  virtual Millis of_list() { return Millis(0); }
  // Of a write that is slow or stopped, and of an operator that stands still.
  virtual Millis pause(WriteFault fault) {
    return fault == WriteFault::kStopped ? Seconds(20) : Seconds(5);
  }
  // In [0, 1): the jitter of watches.
  virtual double jitter() { return 0.5; }
};

// Nothing goes wrong but for one write, of no Lease, or one event, counted from 0; and how many
// there were.
class OneFault : public FaultSource {
 public:
  OneFault() = default;  // none at all
  // Events of pods are `late` all the time.
  OneFault(int write, WriteFault fault, Millis late = Millis(0))
      : write_(write), write_fault_(fault), late_(late) {}
  OneFault(int event, EventFault fault) : event_(event), event_fault_(fault) {}

  WriteFault of_write(bool of_lease) override {
    return !of_lease && writes_++ == write_ ? write_fault_ : WriteFault::kNone;
  }
  EventFault of_event(const std::string& plural) override {
    if (events_++ == event_) return event_fault_;
    return {.delay = plural == "pods" ? late_ : Millis(0)};
  }

  int writes() const { return writes_; }
  int events() const { return events_; }

 private:
  int write_ = -1;
  WriteFault write_fault_ = WriteFault::kNone;
  Millis late_{0};
  int event_ = -1;
  EventFault event_fault_;
  int writes_ = 0;
  int events_ = 0;
};

// All of it at random, until it is ended. Each kind of events is late by a time of its own, which
// changes every few events.
class RandomFaults : public FaultSource {
 public:
  explicit RandomFaults(std::mt19937& random) : random_(random) {}

  void end() { on_ = false; }

  WriteFault of_write(bool of_lease) override;
  EventFault of_event(const std::string& plural) override;
  Millis of_list() override;
  Millis pause(WriteFault fault) override;
  double jitter() override;

  bool chance(double probability);
  int below(int end);

 private:
  std::mt19937& random_;
  bool on_ = true;
  std::map<std::string, Millis> late_;
};

}  // namespace dsm::faults
