// Unshared layers: which of the three maps.
#include "unshared/unshared.hpp"

#include "common/simd.hpp"

namespace NINEFOLD_NS {

size_t unshared_scratch(const Unshared& d) {
    return d.map == UnsharedMap::forward         ? unshared_forward_scratch(d)
           : d.map == UnsharedMap::backward_data ? unshared_backward_data_scratch(d)
                                                 : unshared_backward_weights_scratch(d);
}

void unshared(const Unshared& d, const void* a, const void* b, const void* bias, void* out, char* scratch) {
    if (d.map == UnsharedMap::forward) unshared_forward(d, a, b, bias, out, scratch);
    else if (d.map == UnsharedMap::backward_data) unshared_backward_data(d, a, b, bias, out, scratch);
    else unshared_backward_weights(d, a, b, out, scratch);
}

}  // namespace NINEFOLD_NS
