// Whether arithmetic takes denormal numbers for zero, on every thread that takes part in a parallel region.
#pragma once
#include <cstdint>
#include <vector>

namespace ninefold {

// Let so many threads take denormal numbers for zero; return the control words that they had, thread by thread.
std::vector<uint64_t> flush_denormals(int threads);
// Give the threads their control words back.
void restore_control(const std::vector<uint64_t>& words);

// Whether this processor tells of denormal operands; if so, whether any of so many threads has met one since the last time
// that this was asked, for tests.
bool tells_of_denormals();
bool met_denormals(int threads);

}  // namespace ninefold
