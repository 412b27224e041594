// What the kernels of unshared layers take: every output position has rows of weights of its own.
#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels.hpp"

namespace ninefold {

enum class LocalMap : int32_t { c = 0, h = 1, g = 2 };

// K[o][k][l], where l counts (input of the group, tap), is one row of weights; position p reads row `kernel[p]` of every output.
// The input with its border written out has `extended` positions per channel, counted through; position p reads the extended
// positions base[p] + at[m], m a tap. All strides are in elements, axes are z, y, x.
struct Local {
    int64_t batch, groups, ins, outs;          // channels per group
    int64_t in_n, in_c, in[3], space[3];       // the input, or its gradient: strides and sizes
    int64_t out_n, out_c, out_p;               // the output, or its gradient
    int64_t extended[3];                       // sizes with the border
    const int64_t* source[2];                  // along z and y: the position that stands at an extended one, -1 for zeros
    const Run* runs;                           // the same along x
    int64_t n_runs;
    int64_t positions, taps, kernels;
    const int64_t* base;
    const int64_t* at;
    const int64_t* kernel;
    const int64_t* start;                      // positions list[start[k]] to list[start[k + 1]] share the rows k
    const int64_t* list;
    int64_t run;                               // so many taps in a row read neighbours
    int64_t cut;                               // examples that are staged together
    LocalMap map;
    Type type;
    int64_t threads;                           // parts that the work is cut into; they decide the order of sums
    bool forked;                               // run them one after the other
};

}  // namespace ninefold
