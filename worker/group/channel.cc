#include "worker/group/channel.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace dsm::group {
namespace {

using AddressList = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

Result<AddressList> look_up(const std::string& host, std::uint16_t port, int flags) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags;
  addrinfo* found = nullptr;
  const int rc = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (rc != 0) {
    return fail(ErrorKind::kTransient, "cannot look up " + host + ": " + gai_strerror(rc));
  }
  return AddressList(found, &freeaddrinfo);
}

std::string system_error(const std::string& what) {
  return what + ": " + std::strerror(errno);
}

// Waits until the descriptor is ready; false when the time is over.
bool wait_for(int fd, short events, Millis timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  for (;;) {
    pollfd p{.fd = fd, .events = events, .revents = 0};
    const auto left =
        std::chrono::ceil<Millis>(deadline - std::chrono::steady_clock::now()).count();
    const int rc = poll(&p, 1, static_cast<int>(std::max<std::int64_t>(left, 0)));
    if (rc >= 0 || errno != EINTR) {
      return rc > 0;
    }
  }
}

std::string address_text(int fd, bool peer) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  auto* a = reinterpret_cast<sockaddr*>(&address);
  std::array<char, NI_MAXHOST> host{};
  if ((peer ? getpeername(fd, a, &size) : getsockname(fd, a, &size)) != 0 ||
      getnameinfo(a, size, host.data(), host.size(), nullptr, 0, NI_NUMERICHOST) != 0) {
    return "";
  }
  return host.data();
}

}  // namespace

Socket::Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

Socket& Socket::operator=(Socket&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

Socket::~Socket() {
  if (fd_ >= 0) {
    close(fd_);
  }
}

Result<Listener> Listener::open(const std::string& host, std::uint16_t port) {
  auto addresses = look_up(host, port, AI_PASSIVE);
  if (!addresses) {
    return std::unexpected(addresses.error());
  }
  const addrinfo& a = **addresses;
  Listener listener;
  listener.socket_ =
      Socket(socket(a.ai_family, a.ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a.ai_protocol));
  const int fd = listener.socket_.fd();
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (fd < 0 || bind(fd, a.ai_addr, a.ai_addrlen) != 0 || ::listen(fd, 64) != 0) {
    return fail(ErrorKind::kTransient, system_error("cannot listen on the control port " + host +
                                                    ":" + std::to_string(port)));
  }
  sockaddr_storage bound{};
  socklen_t size = sizeof(bound);
  getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &size);
  listener.port_ =
      ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                                        : reinterpret_cast<sockaddr_in*>(&bound)->sin_port);
  return listener;
}

std::optional<Socket> Listener::accept(Millis timeout) const {
  if (!wait_for(socket_.fd(), POLLIN, timeout)) {
    return std::nullopt;
  }
  Socket accepted(accept4(socket_.fd(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!accepted) {
    return std::nullopt;
  }
  return accepted;
}

Result<Socket> connect_to(const std::string& host, std::uint16_t port, Millis timeout) {
  auto addresses = look_up(host, port, 0);
  if (!addresses) {
    return std::unexpected(addresses.error());
  }
  std::string error = "no address";
  for (const addrinfo* a = addresses->get(); a != nullptr; a = a->ai_next) {
    Socket s(socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol));
    if (!s) {
      error = std::strerror(errno);
      continue;
    }
    if (::connect(s.fd(), a->ai_addr, a->ai_addrlen) != 0 && errno != EINPROGRESS) {
      error = std::strerror(errno);
      continue;
    }
    if (!wait_for(s.fd(), POLLOUT, timeout)) {
      error = "no answer";
      continue;
    }
    int outcome = 0;
    socklen_t size = sizeof(outcome);
    getsockopt(s.fd(), SOL_SOCKET, SO_ERROR, &outcome, &size);
    if (outcome == 0) {
      fcntl(s.fd(), F_SETFL, fcntl(s.fd(), F_GETFL) & ~O_NONBLOCK);
      return s;
    }
    error = std::strerror(outcome);
  }
  return fail(ErrorKind::kTransient,
              "cannot connect to " + host + ":" + std::to_string(port) + ": " + error);
}

Channel::Channel(Socket socket, Millis send_timeout) : socket_(std::move(socket)) {
  const int on = 1;
  setsockopt(socket_.fd(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  const auto s = std::chrono::duration_cast<Seconds>(send_timeout);
  const timeval t{
      .tv_sec = s.count(),
      .tv_usec = std::chrono::duration_cast<std::chrono::microseconds>(send_timeout - s).count()};
  setsockopt(socket_.fd(), SOL_SOCKET, SO_SNDTIMEO, &t, sizeof(t));
}

Status Channel::send_frame(std::span<const std::byte> frame) {
  const std::lock_guard lock(sending_);
  while (!frame.empty()) {
    const ssize_t n = ::send(socket_.fd(), frame.data(), frame.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0) {
      const std::string message = system_error("sending to " + peer());
      ::shutdown(socket_.fd(), SHUT_RDWR);  // half a frame may be out: nothing can follow
      return fail(ErrorKind::kTransient, message);
    }
    frame = frame.subspan(static_cast<std::size_t>(n));
  }
  return {};
}

// A whole frame out of what was received, if there is one.
Result<std::optional<Message>> Channel::take_frame(std::size_t max_bytes) {
  std::uint32_t length = 0;
  if (received_.size() < sizeof(length)) {
    return std::nullopt;
  }
  std::memcpy(&length, received_.data(), sizeof(length));
  if (length > max_bytes) {
    return fail(ErrorKind::kInvalid, "a message of " + std::to_string(length) + " bytes; at most " +
                                         std::to_string(max_bytes) + " are allowed");
  }
  if (received_.size() < sizeof(length) + length) {
    return std::nullopt;
  }
  auto message = decode(std::span(received_).subspan(sizeof(length), length));
  if (!message) {
    return std::unexpected(message.error());
  }
  received_.erase(received_.begin(),
                  received_.begin() + static_cast<std::ptrdiff_t>(sizeof(length) + length));
  return std::optional(std::move(*message));
}

Result<std::optional<Message>> Channel::receive(Millis timeout, std::size_t max_bytes) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  for (;;) {
    auto message = take_frame(max_bytes);
    if (!message || *message) {
      return message;
    }
    const auto left = std::chrono::ceil<Millis>(deadline - std::chrono::steady_clock::now());
    if (!wait_for(socket_.fd(), POLLIN, std::max(left, Millis(0)))) {
      return std::nullopt;
    }
    std::array<std::byte, 16384> chunk;
    const ssize_t n = recv(socket_.fd(), chunk.data(), chunk.size(), MSG_DONTWAIT);
    if (n > 0) {
      received_.insert(received_.end(), chunk.begin(), chunk.begin() + n);
    } else if (n == 0) {
      return fail(ErrorKind::kTransient, "the connection was closed by the other side");
    } else if (errno != EINTR && errno != EAGAIN) {
      return fail(ErrorKind::kTransient, system_error("the connection broke"));
    }
  }
}

void Channel::shutdown() {
  ::shutdown(socket_.fd(), SHUT_RDWR);
}

std::string Channel::local_host() const {
  return address_text(socket_.fd(), false);
}
std::string Channel::peer() const {
  return address_text(socket_.fd(), true);
}

}  // namespace dsm::group
