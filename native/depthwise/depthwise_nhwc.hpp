// One channel per group, channels-last: vectors over channels.
#pragma once
#include "common/direct_problem.hpp"
#include "common/simd.hpp"

namespace NINEFOLD_NS {

bool is_pixels(const Direct& d);
size_t pixels_scratch(const Direct& d, bool weights);
void pixels_correlate(const Direct& d, const void* in, const void* weight, const void* bias, void* out, char* scratch);
void pixels_weigh(const Direct& d, const void* in, const void* grad, void* weight, char* scratch);

}  // namespace NINEFOLD_NS
