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

// What stands at the positions of an axis: runs, one behind the other, that begin at 0. There are few, however long the axis is: one
// inside, and those of the border.
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

// The taps of one residue of outputs along one axis: output q (the first + jump * q -th of the tensor) reads the staged
// positions q * step + at[t] and multiplies with the kernel elements at weight[t].
struct Line {
    int64_t first, count, taps;
    const int64_t* at;
    const int64_t* weight;
};

// A table of channels instead of groups, in lists: list k has the edges [first[k], first[k + 1]), each with a channel and a place in
// the weight. Maps c and h have a list per channel that is written, of those that it reads; map g has lists of up to four outputs
// that share the input `shared[k]`.
struct Edges {
    int64_t lists = 0, most = 0;  // 0: no table; edges of the longest list
    const int64_t *first = nullptr, *channel = nullptr, *place = nullptr, *shared = nullptr;
};

// A correlation out of a staged input. All three maps are made of it: c as it is, h with input and output exchanged, and g,
// which sums over the outputs instead of over the taps. Axes are z, y, x; strides are in elements.
struct Direct {
    int64_t batch, groups, ins, outs;  // channels per group
    int64_t in_n, in_c, in[3];
    int64_t out_n, out_c, out[3], jump[3];
    int64_t w_group, w_out, w_in;
    Edges edges;                // with a table there is one group, of all channels
    int64_t staged[3];          // staged positions per axis
    Positions source[2];        // along z and y
    const Run* runs;            // along x
    int64_t n_runs;
    Line z, y;
    int64_t step[2];            // staged steps per output along z and y; along x it is one
    const Line* x;              // the residues along x: they are written together
    int64_t n_x;
    int64_t taps;               // kernel elements per (output, input) pair, over all residues along x
    Type type;
    int64_t threads;
    int64_t in_place;           // the staged input is the input: no border, unit steps
    double floor;               // no output is written below it: 0 behind a ReLU, minus infinity elsewhere
};

struct Local;  // local.hpp
struct WinogradKernels;
struct ImplicitKernels;
struct Pool;
struct EncodeKernels;
struct LatticeKernels;

// The kernels of one instruction set.
struct Kernels {
    const char* name;
    int64_t lanes;  // of float32
    size_t (*direct_scratch)(const Direct&, bool weights);
    void (*correlate)(const Direct&, const void* in, const void* weight, const void* bias, void* out, char* scratch);
    void (*weigh)(const Direct&, const void* in, const void* grad, void* weight, char* scratch);
    size_t (*local_scratch)(const Local&);
    void (*local)(const Local&, const void* a, const void* b, const void* bias, void* out, char* scratch);
    const WinogradKernels* winograd;
    const ImplicitKernels* implicit;
    const EncodeKernels* encode;
    const LatticeKernels* lattice;
    size_t (*pool_scratch)(const Pool&);
    void (*pool_forward)(const Pool&, const void* in, void* out, char* scratch);
    size_t (*pool_back_scratch)(const Pool&);
    void (*pool_backward)(const Pool&, const void* in, const void* grad, void* grad_in, char* scratch);
};

}  // namespace ninefold
