// A convolution as a product of matrices of which one is never written out: what the kernels of implicit.cpp take.
#pragma once
#include "common/types.hpp"

namespace ninefold {

// One axis: under output j and tap t lies position first + j * step + t * tap, which is a multiple of `every` or nothing; divided
// by that, `source` says what of the axis that is read stands there.
struct ImplicitAxis {
    int64_t size, taps;
    int64_t first, step, tap, every;
    Positions source;

    int64_t under(int64_t t, int64_t j) const {
        const int64_t at = first + j * step + t * tap;
        if (every == 1) return source[at];
        return at < 0 || at % every ? -1 : source[at / every];
    }
};

struct Implicit {
    ImplicitAxis axis[3];
    int64_t batch, groups, ins,
        outs;  // channels per group, of what is read and of what is written or, in backward_weights, paired with it
    int64_t in_n, in_c, in[3];
    int64_t out_n, out_c, out_p;  // positions of the result are evenly spaced
    int64_t w_group, w_out, w_in, w_tap;
    int64_t flip;           // the last tap of the weight is the first
    int64_t plain;          // one tap, and output j reads position j
    int64_t small_spatial;  // backward_data and backward_weights of few positions: the weight is passed in its own order
    int64_t seen;           // positions of an image of what is read
    int64_t rows;           // pixels are rows of the product and channels its columns: what channels-last memory has side by side
    int64_t block;          // output positions of an item of work
    int64_t split;          // parts that output channels are shared out in, where there are few positions
    int64_t threads;
    double floor;  // no output is written below it: 0 behind a ReLU, minus infinity elsewhere
    Type type;
};

struct ImplicitKernels {
    size_t (*kernel_bytes)(const Implicit&);
    size_t (*scratch)(const Implicit&, bool weights, bool kept);
    void (*prepare)(const Implicit&, const void* weight, void* kept);
    void (*run)(const Implicit&, const void* in, const void* weight, const void* kept, const void* bias, void* out,
                char* scratch);
    void (*backward_weights)(const Implicit&, const void* in, const void* grad, void* weight, char* scratch);
};

}  // namespace ninefold

#ifdef NINEFOLD_ISA  // where kernels are compiled
namespace ninefold::NINEFOLD_ISA {
extern const ImplicitKernels implicit;
size_t small_spatial_scratch(const Implicit& p, bool weights);
void small_spatial_run(const Implicit& p, const void* in, const void* weight, const void* bias, void* out, char* scratch);
void small_spatial_backward_weights(const Implicit& p, const void* in, const void* grad, void* weight, char* scratch);
size_t implicit_backward_weights_scratch(const Implicit& p);
void implicit_backward_weights(const Implicit& p, const void* in, const void* grad, void* weight, char* scratch);
}  // namespace ninefold::NINEFOLD_ISA
#endif
