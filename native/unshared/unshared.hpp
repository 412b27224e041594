// What the kernels of unshared layers take: every output position has rows of weights of its own.
#pragma once
#include <cstddef>
#include <cstdint>

#include "common/types.hpp"

namespace ninefold {

enum class UnsharedMap : int32_t { forward = 0, backward_data = 1, backward_weights = 2 };

// K[o][k][l], where l counts (input of the group, tap), is one row of weights; position (z, y, x) of the outputs reads row
// (z % period z, y % period y, x % period x) of every output channel. The input with its border written out has `extended`
// positions per channel, counted through; an output reads those at first + step * position, per axis, and at[m] from there, m a
// tap. All strides are in elements, axes are z, y, x; positions of the outputs, and rows of weights, are counted through.
struct Unshared {
    int64_t batch, groups, ins, outs;     // channels per group
    int64_t in_n, in_c, in[3], space[3];  // the input, or its gradient: strides and sizes
    int64_t out_n, out_c, out_p;          // the output, or its gradient
    int64_t extended[3];                  // sizes with the border
    Positions source[2];                  // along z and y: the position that stands at an extended one
    const Run* runs;                      // the same along x
    int64_t n_runs;
    int64_t outputs[3], first[3], step[3], period[3];
    int64_t positions, taps, kernels;  // products of the outputs, of the taps, of the periods
    const int64_t* at;
    int64_t run;  // so many taps in a row read neighbours
    int64_t cut;  // examples that are staged together
    UnsharedMap map;
    Type type;
    int64_t threads;  // parts that the work is cut into; they decide the order of sums
    bool forked;      // run them one after the other

    int64_t base(int64_t z, int64_t y, int64_t x) const {
        return ((first[0] + z * step[0]) * extended[1] + first[1] + y * step[1]) * extended[2] + first[2] + x * step[2];
    }
    int64_t base(int64_t p) const { return base(p / outputs[2] / outputs[1], p / outputs[2] % outputs[1], p % outputs[2]); }

    // The extended positions that outputs [p, p + count) read from, and their rows of weights.
    void places(int64_t p, int64_t count, int64_t* bases, int64_t* rows) const {
        int64_t x = p % outputs[2], y = p / outputs[2] % outputs[1], z = p / outputs[2] / outputs[1];
        for (int64_t k = 0; k < count;) {
            const int64_t at = base(z, y, 0), row = (z % period[0] * period[1] + y % period[1]) * period[2];
            for (int64_t residue = x % period[2]; k < count && x < outputs[2]; ++k, ++x) {
                bases[k] = at + x * step[2], rows[k] = row + residue;
                if (++residue == period[2]) residue = 0;
            }
            x = 0;
            if (++y == outputs[1]) y = 0, ++z;
        }
    }

    // How many outputs share the rows k of weights; and the j-th of them, with the extended position that it reads from.
    int64_t sharing(int64_t k) const {
        int64_t many = 1;
        for (int d = 2; d >= 0; k /= period[d], --d) many *= outputs_with(d, k % period[d]);
        return many;
    }
    int64_t shared(int64_t k, int64_t j, int64_t& from) const {
        int64_t at[3];
        for (int d = 2; d >= 0; k /= period[d], --d) {
            const int64_t residue = k % period[d], many = outputs_with(d, residue);
            at[d] = residue + j % many * period[d];
            j /= many;
        }
        from = base(at[0], at[1], at[2]);
        return (at[0] * outputs[1] + at[1]) * outputs[2] + at[2];
    }

private:
    int64_t outputs_with(int d, int64_t residue) const {
        return residue < outputs[d] ? (outputs[d] - residue - 1) / period[d] + 1 : 0;
    }
};

}  // namespace ninefold

#ifdef NINEFOLD_ISA  // where kernels are compiled
namespace ninefold::NINEFOLD_ISA {
size_t unshared_scratch(const Unshared& d);
void unshared(const Unshared& d, const void* a, const void* b, const void* bias, void* out, char* scratch);

size_t unshared_forward_scratch(const Unshared& d);
size_t unshared_backward_data_scratch(const Unshared& d);
size_t unshared_backward_weights_scratch(const Unshared& d);
void unshared_forward(const Unshared& d, const void* K, const void* V, const void* bias, void* out, char* scratch);
void unshared_backward_data(const Unshared& d, const void* K, const void* G, const void* bias, void* out, char* scratch);
void unshared_backward_weights(const Unshared& d, const void* V, const void* G, void* D, char* scratch);
}  // namespace ninefold::NINEFOLD_ISA
#endif
