#include "base/http/test_socket.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <utility>

namespace dsm::http {
namespace {

constexpr int kPatienceMs = 20'000;

void check(bool good, const char* what) {
  if (good) return;
  std::perror(what);
  std::abort();
}

sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

}  // namespace

TestSocket::TestSocket(std::uint16_t port, int receive_buffer)
    : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  check(fd_ >= 0, "socket");
  if (receive_buffer > 0) {
    setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
  }
  const sockaddr_in address = loopback(port);
  check(connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0, "connect");
}

TestSocket::~TestSocket() {
  close();
}

TestSocket::TestSocket(TestSocket&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), buffer_(std::move(other.buffer_)) {}

bool TestSocket::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

bool TestSocket::read_some() {
  pollfd waiting{fd_, POLLIN, 0};
  if (poll(&waiting, 1, kPatienceMs) != 1) return false;
  char bytes[4096];
  const ssize_t n = recv(fd_, bytes, sizeof bytes, 0);
  if (n <= 0) return false;
  buffer_.append(bytes, static_cast<std::size_t>(n));
  return true;
}

std::string TestSocket::read_until(std::string_view text) {
  std::size_t found = 0;
  while ((found = buffer_.find(text)) == std::string::npos) {
    if (!read_some()) return std::exchange(buffer_, "");
  }
  std::string head = buffer_.substr(0, found + text.size());
  buffer_.erase(0, head.size());
  return head;
}

std::string TestSocket::read_to_end() {
  while (read_some()) {
  }
  return std::exchange(buffer_, "");
}

std::string TestSocket::read_response() {
  std::string all = read_until("\r\n\r\n");
  const auto at = all.find("Content-Length: ");
  if (at == std::string::npos) return all;
  const auto length = static_cast<std::size_t>(std::atoll(all.c_str() + at + 16));
  while (buffer_.size() < length && read_some()) {
  }
  const std::size_t take = std::min(length, buffer_.size());
  all += buffer_.substr(0, take);
  buffer_.erase(0, take);
  return all;
}

bool TestSocket::at_end() {
  return buffer_.empty() && !read_some();
}

void TestSocket::shutdown_sending() {
  shutdown(fd_, SHUT_WR);
}

void TestSocket::close() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

TestListener::TestListener() : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  check(fd_ >= 0, "socket");
  sockaddr_in address = loopback(0);
  check(bind(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0, "bind");
  check(listen(fd_, 16) == 0, "listen");
  socklen_t size = sizeof address;
  check(getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size) == 0, "getsockname");
  port_ = ntohs(address.sin_port);
}

TestListener::~TestListener() {
  ::close(fd_);
}

TestSocket TestListener::accept() {
  const int fd = ::accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC);
  check(fd >= 0, "accept");
  return TestSocket(TestSocket::Adopt{fd});
}

}  // namespace dsm::http
