// Unshared layers: which of the three maps.
#include "local.hpp"

#include "simd.hpp"

namespace NINEFOLD_NS {

size_t local_scratch_c(const Local& d);
size_t local_scratch_h(const Local& d);
size_t local_scratch_g(const Local& d);
void local_c(const Local& d, const void* K, const void* V, const void* bias, void* out, char* scratch);
void local_h(const Local& d, const void* K, const void* G, const void* bias, void* out, char* scratch);
void local_g(const Local& d, const void* V, const void* G, void* D, char* scratch);

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
