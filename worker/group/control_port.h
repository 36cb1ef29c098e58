// The leader's control port: takes in connections, has both sides prove themselves (wire.h), and
// hands on what the other pods send. It knows nothing of epochs.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <thread>

#include "base/log.h"
#include "base/result.h"
#include "worker/group/channel.h"
#include "worker/group/group.h"
#include "worker/group/wire.h"

namespace dsm::group {

class ControlPort {
 public:
  // Called on the connection's thread, for each of them in this order.
  struct Events {
    // A pod has proved itself. The number of the pod is one of the group's, from 1 on.
    std::function<void(const Hello& hello, const std::shared_ptr<Channel>& channel)> admitted;
    // False: it has no place here, and the connection ends.
    std::function<bool(int pod, Message& message)> received;
    std::function<void(int pod, const Channel* channel, const Error& why)> ended;
  };

  // `options` outlive the port.
  ControlPort(const GroupOptions& options, Logger log, Events events);
  ~ControlPort();  // no event comes afterwards
  ControlPort(const ControlPort&) = delete;
  ControlPort& operator=(const ControlPort&) = delete;

  // Listens and accepts from here on. Call once.
  Status open();
  std::uint16_t number() const { return number_; }

 private:
  struct Connection {
    std::shared_ptr<Channel> channel;
    std::atomic<bool> done{false};
    std::thread thread;
  };

  void accept(const Listener& listener);
  void serve(const std::shared_ptr<Channel>& channel);
  Error read(int pod, Channel& channel);

  const GroupOptions& options_;
  const Logger log_;
  const Events events_;
  std::uint16_t number_ = 0;
  std::atomic<bool> stopping_{false};
  std::list<Connection> connections_;  // the acceptor's, and after it the destructor's
  std::thread acceptor_;
};

// Why the pod is not of the group; empty: it is. `nonce` is what it was challenged with.
std::string refusal(const GroupOptions& options, const Hello& hello, const std::string& nonce);

}  // namespace dsm::group
