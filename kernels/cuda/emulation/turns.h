// Of several host threads one runs a kernel at a time: in the order in which they have come for it,
// and a kernel that waits for others lets them have their turn.
#pragma once

namespace dsm::emulation {

// Waits for the caller's turn.
void take_turn();
// Whoever came first after it has the next one.
void pass_turn();

// Kernels that have let others run and have not ended are counted.
void begin_waiting();
void end_waiting();
bool kernels_wait();

}  // namespace dsm::emulation
