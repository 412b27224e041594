// Which family computes a direct convolution: the first that takes it.
#include "depthwise/depthwise_nhwc.hpp"
#include "direct/direct.hpp"
#include "dispatch/choose_direct.hpp"
#include "grouped/grouped_nhwc.hpp"

namespace NINEFOLD_NS {

size_t direct_scratch(const Direct& d, bool weights) {
    if (is_pixels(d)) return pixels_scratch(d, weights);
    if (is_grouped(d)) return grouped_scratch(d, weights);
    return weights ? planar_weigh_scratch(d) : planar_scratch(d);
}

void correlate(const Direct& d, const void* in, const void* weight, const void* bias, void* out, char* scratch) {
    if (is_pixels(d)) return pixels_correlate(d, in, weight, bias, out, scratch);
    if (is_grouped(d)) return grouped_correlate(d, in, weight, bias, out, scratch);
    planar_correlate(d, in, weight, bias, out, scratch);
}

void weigh(const Direct& d, const void* in, const void* grad, void* weight, char* scratch) {
    if (is_pixels(d)) return pixels_weigh(d, in, grad, weight, scratch);
    if (is_grouped(d)) return grouped_weigh(d, in, grad, weight, scratch);
    planar_weigh(d, in, grad, weight, scratch);
}

}  // namespace NINEFOLD_NS
