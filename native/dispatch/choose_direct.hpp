// Direct convolutions by whichever of direct/, depthwise/ and grouped/ takes them.
#pragma once
#include "common/direct_problem.hpp"
#include "common/simd.hpp"

namespace NINEFOLD_NS {

size_t direct_scratch(const Direct& d, bool weights);
void direct_forward(const Direct& d, const void* in, const void* weight, const void* bias, void* out, char* scratch);
void direct_backward_weights(const Direct& d, const void* in, const void* grad, void* weight, char* scratch);

}  // namespace NINEFOLD_NS
