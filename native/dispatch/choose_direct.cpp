// Which family computes a direct convolution: the first that takes it.
#include "dispatch/choose_direct.hpp"
#include "depthwise/depthwise_nhwc.hpp"
#include "direct/direct.hpp"
#include "grouped/grouped_nhwc.hpp"

namespace NINEFOLD_NS {

size_t direct_scratch(const Direct& d, bool weights) {
    if (is_depthwise_nhwc(d)) return depthwise_nhwc_scratch(d, weights);
    if (is_grouped_nhwc(d)) return grouped_nhwc_scratch(d, weights);
    return weights ? planar_backward_weights_scratch(d) : planar_forward_scratch(d);
}

void direct_forward(const Direct& d, const void* in, const void* weight, const void* bias, void* out, char* scratch) {
    if (is_depthwise_nhwc(d)) return depthwise_nhwc_forward(d, in, weight, bias, out, scratch);
    if (is_grouped_nhwc(d)) return grouped_nhwc_forward(d, in, weight, bias, out, scratch);
    planar_forward(d, in, weight, bias, out, scratch);
}

void direct_backward_weights(const Direct& d, const void* in, const void* grad, void* weight, char* scratch) {
    if (is_depthwise_nhwc(d)) return depthwise_nhwc_backward_weights(d, in, grad, weight, scratch);
    if (is_grouped_nhwc(d)) return grouped_nhwc_backward_weights(d, in, grad, weight, scratch);
    planar_backward_weights(d, in, grad, weight, scratch);
}

}  // namespace NINEFOLD_NS
