// One channel per group, channels-last: vectors over channels.
#pragma once
#include "common/direct_problem.hpp"
#include "common/simd.hpp"

namespace NINEFOLD_NS {

bool is_depthwise_nhwc(const Direct& d);
size_t depthwise_nhwc_scratch(const Direct& d, bool weights);
void depthwise_nhwc_forward(const Direct& d, const void* in, const void* weight, const void* bias, void* out, char* scratch);
void depthwise_nhwc_backward_weights(const Direct& d, const void* in, const void* grad, void* weight, char* scratch);

}  // namespace NINEFOLD_NS
