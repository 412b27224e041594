// Pooling as data: windows along three axes of a tensor (outer, z, y, x, inner), contiguous in this order. An image that is
// channels-last has its channels as inner; one that is not has them in outer. Axes that are not there have one position.
#pragma once
#include <cstdint>

#include "common/types.hpp"

namespace ninefold {

// Output j reads the positions j * stride + m * dilation - lo, m < kernel; outside of [0, n_in) there is nothing.
struct PoolAxis {
    int64_t kernel, stride, dilation, lo, n_in, n_out;
    int64_t counts, from, to;  // whether a sum is divided by how many of its taps lie in [from, to), or by 1 where none does

    double divisor(int64_t j) const {
        if (!counts) return 1;
        const int64_t first = j * stride - lo;
        const int64_t many = before(to - first) - before(from - first);
        return many > 1 ? double(many) : 1;
    }

    // All taps of the outputs [begin, end) are counted.
    void whole(int64_t& begin, int64_t& end) const {
        const int64_t first = from + lo,
                      last = to - 1 - (kernel - 1) * dilation + lo;  // where the first tap of such an output may lie
        begin = first > 0 ? (first - 1) / stride + 1 : 0;
        end = last >= 0 ? last / stride + 1 : 0;
        begin = begin < n_out ? begin : n_out;
        end = end < begin ? begin : end < n_out ? end : n_out;
    }

private:
    int64_t before(int64_t distance) const {
        const int64_t taps = distance > 0 ? (dilation == 1 ? distance : (distance - 1) / dilation + 1) : 0;
        return taps < kernel ? taps : kernel;
    }
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
    double divisor;  // of every sum, beside what its axes count
    Type type;
    int64_t threads;

    bool divides() const { return divisor != 1 || axis[0].counts || axis[1].counts || axis[2].counts; }
    // Along z and y, and for all outputs alike.
    double share(int64_t z, int64_t y) const { return axis[0].divisor(z) * (divisor * axis[1].divisor(y)); }
};

}  // namespace ninefold

#ifdef NINEFOLD_ISA  // where kernels are compiled
namespace ninefold::NINEFOLD_ISA {
size_t pool_scratch(const Pool& p);
void pool_forward(const Pool& p, const void* x, void* y, char* scratch);
size_t pool_backward_scratch(const Pool& p);
void pool_backward(const Pool& p, const void* x, const void* g, void* dx, char* scratch);
}  // namespace ninefold::NINEFOLD_ISA
#endif
