// What a worker says last: on stderr, and in a pod where the kubelet looks for it, so that the
// operator can show it. Words that begin with a reason that the operator knows, as in
// "DeviceError: ...", are told under that reason.
#pragma once

#include <string>

namespace dsm::worker {

void say_last(const std::string& message);

// From now on a bus error says last what it is, and then ends the process as ever. Weights are read
// from mapped files: when one is cut or its volume goes away, the memory behind it is gone.
void explain_bus_errors();

}  // namespace dsm::worker
