// What one operator hears of the leaders in the simulated cluster: the newest line of each, as long
// as the token that it knows is the right one and the line is not cut. For tests; single-threaded.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "operator/faults/api_server.h"
#include "operator/runtime/leader_lines.h"

namespace dsm::faults {

class LeaderVoices : public runtime::LeaderLines {
 public:
  using OnNews = std::function<void(const std::string& model, runtime::StreamNews news)>;

  explicit LeaderVoices(ApiServer& server) : server_(server) {}

  // What the leaders say in this second. `on_news`: as the streams of the real operator would.
  void listen(const OnNews& on_news);

  void set(const std::string& model, const std::vector<runtime::Leader>& leaders,
           const std::string& token) override;
  std::map<std::string, plan::LeaderStatus> latest(const std::string& model) const override;
  void tell_keys(const std::string&, const std::vector<runtime::Leader>&, const std::string&,
                 const plan::KeyMessage&) override {}
  void tell_sleep(const std::string& model, const std::vector<runtime::Leader>& leaders,
                  const std::string& token, bool sleep) override;
  void forget(const std::string& model) override { lines_.erase(model); }

 private:
  struct Lines {
    std::string token;
    std::map<std::string, plan::LeaderStatus> heard;  // by uid; a phase of "": nothing yet
  };
  bool opens(const std::string& model, const std::string& token) const;

  ApiServer& server_;
  int heard_s_ = -1;                    // second of the newest lines
  std::map<std::string, Lines> lines_;  // by model
};

}  // namespace dsm::faults
