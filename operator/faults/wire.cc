#include "operator/faults/wire.h"

#include "kube/testing/scripted_transport.h"

namespace dsm::faults {

Result<kube::HttpResponse> Wire::send(const kube::HttpRequest& request, Millis, std::stop_token) {
  const auto no_answer = [] { return fail(ErrorKind::kTransient, "no answer"); };
  if (!hooks_.connected()) return no_answer();
  if (request.method == "GET") return server_.answer(request);
  const WriteFault fault = faults_.of_write(request.target.find("/leases") != std::string::npos);
  switch (fault) {
    case WriteFault::kRefused:
      return kube::testing::status_answer(500, "InternalError");
    case WriteFault::kLostBefore:
      return no_answer();
    case WriteFault::kCrashBefore:
      throw Crash();
    case WriteFault::kSlow:
    case WriteFault::kStopped:
      hooks_.stand_still(faults_.pause(fault));
      break;
    case WriteFault::kHandOver:
      hooks_.hand_over();
      break;
    case WriteFault::kNone:
    case WriteFault::kLostAfter:
    case WriteFault::kCrashAfter:
      break;
  }
  hooks_.writes(request, fault == WriteFault::kStopped);
  Result<kube::HttpResponse> answer = server_.answer(request);
  if (fault == WriteFault::kCrashAfter) throw Crash();
  if (fault == WriteFault::kLostAfter) return no_answer();
  return answer;
}

}  // namespace dsm::faults
