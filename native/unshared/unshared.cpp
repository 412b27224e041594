// Unshared layers: which of the three maps.
#include "unshared/unshared.hpp"

#include "common/simd.hpp"

namespace NINEFOLD_NS {

size_t local_scratch(const Local& d) {
    return d.map == LocalMap::c ? local_scratch_c(d) : d.map == LocalMap::h ? local_scratch_h(d) : local_scratch_g(d);
}

void local(const Local& d, const void* a, const void* b, const void* bias, void* out, char* scratch) {
    if (d.map == LocalMap::c)
        local_c(d, a, b, bias, out, scratch);
    else if (d.map == LocalMap::h)
        local_h(d, a, b, bias, out, scratch);
    else
        local_g(d, a, b, out, scratch);
}

}  // namespace NINEFOLD_NS
