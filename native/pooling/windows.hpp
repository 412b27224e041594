// What windows read along an axis, and how many positions a tensor has: for both directions.
#pragma once
#include "common/simd.hpp"
#include "pooling/pool.hpp"

namespace NINEFOLD_NS {
namespace {

// Positions from the first tap of a window to its last.
NINEFOLD_INLINE int64_t extent(const PoolAxis& a) { return (a.kernel - 1) * a.dilation + 1; }
// Positions that neighbouring outputs read.
NINEFOLD_INLINE int64_t span(const PoolAxis& a, int64_t outputs) { return (outputs - 1) * a.stride + extent(a); }
// Whether every output is one position.
NINEFOLD_INLINE bool trivial(const PoolAxis& a) { return a.kernel == 1 && a.stride == 1 && a.lo == 0 && a.n_in == a.n_out; }

NINEFOLD_INLINE int64_t positions_in(const Pool& p) { return p.axis[0].n_in * p.axis[1].n_in * p.axis[2].n_in; }
NINEFOLD_INLINE int64_t positions_out(const Pool& p) { return p.axis[0].n_out * p.axis[1].n_out * p.axis[2].n_out; }

// One image whose pixels are vectors of planes.
template <class T> Pool pixels_of(const Pool& p) {
    Pool q = p;
    q.outer = q.threads = 1;
    q.inner = kLanes<T>;
    return q;
}

}  // namespace
}  // namespace NINEFOLD_NS
