// The kernels of this instruction set, by name.
#include "common/simd.hpp"
#include "dispatch/choose_direct.hpp"
#include "dispatch/kernels.hpp"
#include "encode/encode.hpp"
#include "implicit/implicit.hpp"
#include "lattice/lattice.hpp"
#include "pooling/pool.hpp"
#include "unshared/unshared.hpp"
#include "winograd/winograd.hpp"

#define NINEFOLD_STRING2(x) #x
#define NINEFOLD_STRING(x) NINEFOLD_STRING2(x)

namespace NINEFOLD_NS {

extern const Kernels kernels;
const Kernels kernels = {
    .name = NINEFOLD_STRING(NINEFOLD_ISA),
    .lanes = kLanes<float>,
    .direct_scratch = direct_scratch,
    .direct_forward = direct_forward,
    .direct_backward_weights = direct_backward_weights,
    .unshared_scratch = unshared_scratch,
    .unshared = unshared,
    .winograd = &winograd,
    .implicit = &implicit,
    .encode = &encode,
    .lattice = &lattice,
    .pool_scratch = pool_scratch,
    .pool_forward = pool_forward,
    .pool_backward_scratch = pool_backward_scratch,
    .pool_backward = pool_backward,
};

}  // namespace NINEFOLD_NS
