// Whether arithmetic takes denormal numbers for zero, on every thread that takes part in a parallel region.
#pragma once
#include <cstdint>
#include <vector>

namespace ninefold {

// Let so many threads take denormal numbers for zero; return the control words that they had, thread by thread.
std::vector<uint64_t> flush_denormals(int threads);
// Give the threads their control words back.
void restore_control(const std::vector<uint64_t>& words);

}  // namespace ninefold
