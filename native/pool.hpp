// Pooling as data: windows along three axes of a tensor (outer, z, y, x, inner), contiguous in this order. An image that is
// channels-last has its channels as inner; one that is not has them in outer. Axes that are not there have one position.
#pragma once
#include <cstdint>

#include "kernels.hpp"

namespace ninefold {

// Output j reads the positions j * stride + m * dilation - lo, m < kernel; outside of [0, n_in) there is nothing.
struct PoolAxis {
    int64_t kernel, stride, dilation, lo, n_in, n_out;
};

enum class Join : int32_t { largest = 0, total = 1 };
// What a sum takes of each element, and what is made of the sum.
enum class Before : int32_t { none = 0, absolute = 1, square = 2 };
enum class After : int32_t { none = 0, root = 1 };

struct Pool {
    PoolAxis axis[3];
    int64_t outer, inner;
    Join join;
    Before before;
    After after;
    const double* divide[3];  // by the product of these, one per output along each axis, or null for 1
    Type type;
    int64_t threads;
};

}  // namespace ninefold
