// What kernels take: raw pointers and plain structs. They know neither torch nor Python.
#pragma once
#include <cstddef>
#include <cstdint>

namespace ninefold {

enum class Type : int32_t { float32 = 0, float64 = 1, bfloat16 = 2 };

// Staged elements [to, to + count) are source elements from, from + step, ...; from < 0 stands for zeros.
struct Run {
    int64_t to, from, count, step;
};

// What stands at the positions of an axis: runs, one behind the other, that begin at 0. There are few, however long the axis is:
// one inside, and those of the border.
struct Positions {
    const Run* runs = nullptr;
    int64_t n_runs = 0;
    Run inside{0, 0, 0, 0};  // the longest run, in which nearly all positions lie

    // The run that position k lies in; behind the last one there is nothing.
    const Run* of(int64_t k) const {
        const Run *run = runs, *end = runs + n_runs;
        while (run != end && k >= run->to + run->count) ++run;
        return run;
    }
    // The source element at position k, -1 for zeros.
    int64_t operator[](int64_t k) const {
        if (uint64_t(k - inside.to) < uint64_t(inside.count)) return inside.from + (k - inside.to) * inside.step;
        const Run* run = of(k);
        return k < 0 || run == runs + n_runs || run->from < 0 ? -1 : run->from + (k - run->to) * run->step;
    }
};

}  // namespace ninefold
