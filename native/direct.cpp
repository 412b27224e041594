#include "simd.hpp"
namespace NINEFOLD_NS {
size_t direct_scratch(const Direct&, bool) { return 0; }
void correlate(const Direct&, const void*, const void*, const void*, void*, char*) {}
void weigh(const Direct&, const void*, const void*, void*, char*) {}
}
