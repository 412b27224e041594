// A direct convolution as numbers: what the kernels of direct/, depthwise/ and grouped/ take.
#pragma once
#include "common/types.hpp"

namespace ninefold {

// The taps of one residue of outputs along one axis: output q (the first + jump * q -th of the tensor) reads the staged
// positions q * step + at[t] and multiplies with the kernel elements at weight[t].
struct Line {
    int64_t first, count, taps;
    const int64_t* at;
    const int64_t* weight;
};

// A table of channels instead of groups, in lists: list k has the edges [first[k], first[k + 1]), each with a channel and a place
// in the weight. Forward and backward_data have a list per channel that is written, of those that it reads; backward_weights has
// lists of up to four outputs that share the input `shared[k]`.
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
    Edges edges;          // with a table there is one group, of all channels
    int64_t staged[3];    // staged positions per axis
    Positions source[2];  // along z and y
    const Run* runs;      // along x
    int64_t n_runs;
    Line z, y;
    int64_t step[2];  // staged steps per output along z and y; along x it is one
    const Line* x;    // the residues along x: they are written together
    int64_t n_x;
    int64_t taps;  // kernel elements per (output, input) pair, over all residues along x
    Type type;
    int64_t threads;
    int64_t in_place;  // the staged input is the input: no border, unit steps
    double floor;      // no output is written below it: 0 behind a ReLU, minus infinity elsewhere
};

}  // namespace ninefold
