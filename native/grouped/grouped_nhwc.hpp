// Groups of a few channels, channels-last: vectors over output channels.
#pragma once
#include "common/direct_problem.hpp"
#include "common/simd.hpp"

namespace NINEFOLD_NS {

bool is_grouped_nhwc(const Direct& d);
size_t grouped_nhwc_scratch(const Direct& d, bool weights);
void grouped_nhwc_forward(const Direct& d, const void* in, const void* weight, const void* bias, void* out, char* scratch);
void grouped_nhwc_backward_weights(const Direct& d, const void* in, const void* grad, void* weight, char* scratch);

}  // namespace NINEFOLD_NS
