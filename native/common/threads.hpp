// Threads of a parallel region.
#pragma once
#ifdef _OPENMP
#include <omp.h>
#endif

#include "common/simd.hpp"

namespace NINEFOLD_NS {

// The number of this thread.
NINEFOLD_INLINE int64_t this_thread() {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

// Items that a thread takes at once: neighbours in memory, whose rows share cache lines and pages, so that two threads seldom
// meet.
NINEFOLD_INLINE int64_t omp_chunk(int64_t items, int64_t threads) { return max(1, items / (8 * threads)); }

}  // namespace NINEFOLD_NS
