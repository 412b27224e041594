// The kernels of this instruction set, by name.
#include "encode.hpp"
#include "implicit.hpp"
#include "lattice.hpp"
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
size_t pool_scratch(const Pool&);
void pool_forward(const Pool&, const void*, void*, char*);
size_t pool_back_scratch(const Pool&);
void pool_backward(const Pool&, const void*, const void*, void*, char*);

extern const WinogradKernels winograd;
extern const ImplicitKernels implicit;
extern const EncodeKernels encode;
extern const LatticeKernels lattice;
extern const Kernels kernels;
const Kernels kernels = {
    .name = NINEFOLD_STRING(NINEFOLD_ISA),
    .lanes = kLanes<float>,
    .direct_scratch = direct_scratch,
    .correlate = correlate,
    .weigh = weigh,
    .local_scratch = local_scratch,
    .local = local,
    .winograd = &winograd,
    .implicit = &implicit,
    .encode = &encode,
    .lattice = &lattice,
    .pool_scratch = pool_scratch,
    .pool_forward = pool_forward,
    .pool_back_scratch = pool_back_scratch,
    .pool_backward = pool_backward,
};

}  // namespace NINEFOLD_NS
