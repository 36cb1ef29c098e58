// A TCP connection that carries messages, and the socket work under it. Blocking, with time-outs. A
// broken channel stays broken.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "worker/group/wire.h"

namespace dsm::group {

// Owns a file descriptor.
class Socket {
 public:
  Socket() = default;
  explicit Socket(int fd) : fd_(fd) {}
  Socket(Socket&& other) noexcept;
  Socket& operator=(Socket&& other) noexcept;
  ~Socket();

  int fd() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

class Listener {
 public:
  static Result<Listener> open(const std::string& host, std::uint16_t port);

  std::uint16_t port() const { return port_; }
  // The next connection; nullopt when none came in this time.
  std::optional<Socket> accept(Millis timeout) const;

 private:
  Socket socket_;
  std::uint16_t port_ = 0;
};

Result<Socket> connect_to(const std::string& host, std::uint16_t port, Millis timeout);

class Channel {
 public:
  // A peer that does not take what it is sent for `send_timeout` is lost.
  explicit Channel(Socket socket, Millis send_timeout = Millis(2000));

  // Any thread. kTransient when the channel is broken.
  Status send(const Message& message) { return send_frame(encode(message)); }
  Status send_frame(std::span<const std::byte> frame);

  // One thread. nullopt: nothing whole came in this time. kTransient: the peer is gone. kInvalid:
  // what came is no message, or longer than `max_bytes`.
  Result<std::optional<Message>> receive(Millis timeout, std::size_t max_bytes = kMaxFrame);

  // Any thread: breaks the channel and wakes receive().
  void shutdown();

  // This end's address, as numbers.
  std::string local_host() const;
  std::string peer() const;

 private:
  Result<std::optional<Message>> take_frame(std::size_t max_bytes);

  Socket socket_;
  std::mutex sending_;
  std::vector<std::byte> received_;  // up to a frame and the start of the next
};

}  // namespace dsm::group
