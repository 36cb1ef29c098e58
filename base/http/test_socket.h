// A plain blocking TCP socket for tests of HTTP: it sends exactly the bytes that a test says, in
// the pieces that it says.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace dsm::http {

class TestSocket {
 public:
  // Connects to 127.0.0.1:port; dies with a message when that fails. `receive_buffer` in bytes, 0
  // for the system's own.
  explicit TestSocket(std::uint16_t port, int receive_buffer = 0);
  ~TestSocket();
  TestSocket(TestSocket&& other) noexcept;
  TestSocket(const TestSocket&) = delete;
  TestSocket& operator=(const TestSocket&) = delete;

  bool send(std::string_view bytes);  // false when the peer has closed
  // Reads until `text` has come (all that was read so far is returned and taken), the peer closed,
  // or 20 s passed.
  std::string read_until(std::string_view text);
  std::string read_to_end();
  // One answer with Content-Length: head and body.
  std::string read_response();
  bool at_end();  // waits for the peer to close; false when bytes came instead
  void shutdown_sending();
  void close();

 private:
  friend class TestListener;
  struct Adopt {
    int fd;
  };
  explicit TestSocket(Adopt adopt) : fd_(adopt.fd) {}
  bool read_some();

  int fd_ = -1;
  std::string buffer_;
};

// A listening socket on 127.0.0.1 with a port that the system chose.
class TestListener {
 public:
  TestListener();
  ~TestListener();
  TestListener(const TestListener&) = delete;
  TestListener& operator=(const TestListener&) = delete;
  std::uint16_t port() const { return port_; }
  TestSocket accept();

 private:
  int fd_ = -1;
  std::uint16_t port_ = 0;
};

}  // namespace dsm::http
