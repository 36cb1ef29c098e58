#include <cmath>

#include "ctl/commands.h"
#include "ctl/fit_text.h"
#include "ctl/input.h"
#include "operator/api/quantity.h"

namespace dsm::ctl {
namespace {

// A quantity of Kubernetes in bytes; 0: it is none.
std::int64_t bytes_of(const std::string& quantity) {
  constexpr double kMost = 1LL << 60;
  const double bytes = api::milli_of(quantity).value_or(0) / 1000;
  return bytes < kMost ? static_cast<std::int64_t>(bytes) : 0;
}

}  // namespace

Result<int> run(const FitCommand& command, Io& io) {
  const auto text = read_input(command.config, "--config", kLongestConfig, io.in);
  if (!text) return std::unexpected(text.error());
  const auto shape = sizing::parse_shape(*text, command.config);
  if (!shape) return std::unexpected(shape.error());
  const std::int64_t memory = bytes_of(command.memory);
  if (memory == 0) {
    return fail(ErrorKind::kInvalid,
                "--memory: is " + command.memory + "; use an amount such as 80Gi");
  }
  if (command.context > shape->max_positions) {
    return fail(ErrorKind::kInvalid, "--context: is " + std::to_string(command.context) +
                                         ", the model allows " +
                                         std::to_string(shape->max_positions));
  }
  const Fitted found = fitted(*shape, command, memory);
  if (command.json) {
    io.out << to_json(found).dump(2) << "\n";
  } else {
    io.out << fit_text(found, io.style);
  }
  return found.any_fits() ? kExitDone : kExitProblem;
}

}  // namespace dsm::ctl
