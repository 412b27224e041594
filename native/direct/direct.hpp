// Direct summation, vectors along x: every problem that depthwise/ and grouped/ leave.
#pragma once
#include "common/direct_problem.hpp"
#include "common/simd.hpp"

namespace NINEFOLD_NS {

size_t planar_forward_scratch(const Direct& d);
void planar_forward(const Direct& d, const void* in, const void* weight, const void* bias, void* out, char* scratch);
size_t planar_backward_weights_scratch(const Direct& d);
void planar_backward_weights(const Direct& d, const void* in, const void* grad, void* weight, char* scratch);

}  // namespace NINEFOLD_NS
