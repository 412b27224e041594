// The kernels of this instruction set, by name.
#include "simd.hpp"
#include "winograd.hpp"

#define NINEFOLD_STRING2(x) #x
#define NINEFOLD_STRING(x) NINEFOLD_STRING2(x)

namespace NINEFOLD_NS {

size_t direct_scratch(const Direct&, bool);
void correlate(const Direct&, const void*, const void*, const void*, void*, char*);
void weigh(const Direct&, const void*, const void*, void*, char*);
size_t local_scratch(const Local&);
void local(const Local&, const void*, const void*, const void*, void*, char*);

extern const WinogradKernels winograd;
extern const Kernels kernels;
const Kernels kernels = {NINEFOLD_STRING(NINEFOLD_ISA), kLanes<float>, direct_scratch, correlate, weigh, local_scratch, local, &winograd};

}  // namespace NINEFOLD_NS
