// The plan of a Winograd convolution, axis by axis.
#pragma once
#include "common/types.hpp"

namespace ninefold {

// One axis: tiles of m outputs, pieces of r taps, n = m + r - 1 points. Piece q reads the tile `q * shift` tiles on.
struct WinogradAxis {
    int64_t m, r, n;
    int64_t taps, pieces, shift;
    int64_t tiles, size;  // tiles that cover the outputs, and outputs
    Positions source;     // of the input, at each staged position
    Positions target;     // of the output, at each output of the tiles
    const double* BT;     // n x n, for the data
    const double* G[2];   // n x r for kernels, n x m for outputs (backward_weights)
    const double* AT[2];  // m x n for outputs, r x n for kernels (backward_weights)
};

struct Winograd {
    WinogradAxis axis[3];
    int64_t batch, groups, ins, outs;  // channels per group
    int64_t in_n, in_c, in[3];
    int64_t out_n, out_c, out[3];
    int64_t w_group, w_out, w_in, w_tap;  // taps are evenly spaced in memory
    int64_t flip;
    int64_t block[4];   // images and tiles per axis that are transformed together
    int64_t out_block;  // output channels between two transforms of the result
    int64_t split;      // parts that output channels are shared out in, where there are few tiles
    int64_t threads;
    double floor;  // no output is written below it: 0 behind a ReLU, minus infinity elsewhere
    Type type;
};

struct WinogradKernels {
    size_t (*kernel_bytes)(const Winograd&);
    size_t (*scratch)(const Winograd&, bool weights, bool kept);
    void (*prepare)(const Winograd&, const void* weight, void* kept, char* scratch);
    // whether all of the result is finite, before the bias
    bool (*run)(const Winograd&, const void* in, const void* weight, const void* kept, const void* bias, void* out,
                char* scratch);
    void (*backward_weights)(const Winograd&, const void* in, const void* grad, void* weight, char* scratch);
};

}  // namespace ninefold

#ifdef NINEFOLD_ISA  // where kernels are compiled
namespace ninefold::NINEFOLD_ISA {
extern const WinogradKernels winograd;
}  // namespace ninefold::NINEFOLD_ISA
#endif
