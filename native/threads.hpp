// The number of this thread in a parallel region; included last, for the C library's header is not ours to put into a namespace.
#pragma once
#ifdef _OPENMP
#include <omp.h>
#endif

#include "simd.hpp"

namespace NINEFOLD_NS {

NINEFOLD_INLINE int64_t this_thread() {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

}  // namespace NINEFOLD_NS
