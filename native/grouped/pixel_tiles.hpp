// The inner loops of groups of a few channels: tiles of outputs in registers.
//
//     vector of a pixel, groups of 4:   a0 a1 a2 a3 | b0 b1 b2 b3        input 1 of each group, spread:  a1 a1 a1 a1 | b1 b1 b1
//     b1 tile of P pixels:                 acc[p] += kernel[tap][input] * spread(pixel[p + tap], input)
//
// With three neighbouring taps, a spread pixel is multiplied with all three, for three outputs.
#pragma once
#include "common/nhwc_bands.hpp"

namespace NINEFOLD_NS {
namespace {

constexpr int kL = kLanes<float>;
constexpr int kMostPixels = 10;  // of a tile of outputs

// M below is the number of a group's inputs up to those that fill a vector, known to the compiler, or 0 for more of them.
template <int I> struct Number {
    static constexpr int value = I;
};

// The i-th channel of the group that each lane belongs to, of groups of M < kL.
template <int M, int I> NINEFOLD_INLINE Vec<float> spread(Vec<float> v) {
    constexpr auto of = [](int lane) { return lane / M * M + I; };
    if constexpr (kL == 4) return __builtin_shuffle(v, Mask<float>{of(0), of(1), of(2), of(3)});
    if constexpr (kL == 8) return __builtin_shuffle(v, Mask<float>{of(0), of(1), of(2), of(3), of(4), of(5), of(6), of(7)});
    if constexpr (kL == 16)
        return __builtin_shuffle(v, Mask<float>{of(0), of(1), of(2), of(3), of(4), of(5), of(6), of(7), of(8), of(9), of(10),
                                                of(11), of(12), of(13), of(14), of(15)});
}

template <int M, int I> NINEFOLD_INLINE Vec<float> input(const float* pixel) {
    if constexpr (M == 0 || M == kL) return broadcast(*pixel);
    else return spread<M, I>(load(pixel));
}

// Calls f with each input of a group, a number that the compiler knows where groups lie in a vector, and the pixel to take it
// from. The address is made unknown: what was loaded before is loaded again instead of pushing sums out of the registers.
template <int M, int I = 0, class F> NINEFOLD_INLINE void each_input(int64_t inputs, const float* pixel, F f) {
    if constexpr (M == 0 || M == kL) {
        for (int64_t i = 0; i < (M ? M : inputs); ++i) f(Number<0>{}, i, pixel + i);
    } else {
        const float* again = pixel;
        asm volatile("" : "+r"(again));
        f(Number<I>{}, I, again);
        if constexpr (I + 1 < M) each_input<M, I + 1>(inputs, pixel, f);
    }
}

// What a line of outputs reads: rows of taps, as offsets into what is staged, and taps along x. The kernels of a vector of
// outputs lie as [rows][inputs][taps along x], vectors.
struct Reads {
    const int64_t *rows, *at;
    int64_t n_rows, taps, inputs;
    int64_t hop;  // between neighbouring pixels
    bool slides;  // three neighbouring taps
};

// P outputs: sums that begin with `start`.
template <int M, int P> NINEFOLD_INLINE void sums(const Reads& r, const float* in, const float* packed, Vec<float> start,
                                                  Vec<float> (&acc)[P]) {
    const int64_t hop = M ? kL : r.hop, taps = r.taps, inputs = M ? M : r.inputs;
    for (int p = 0; p < P; ++p) acc[p] = start;
    for (int64_t k = 0; k < r.n_rows; ++k, packed += inputs * taps * kL)
        for (int64_t t = 0; t < taps; ++t)
            each_input<M>(inputs, in + r.rows[k] + r.at[t] * hop,
                          [&](auto number, int64_t i, const float* pixel) __attribute__((always_inline)) {
                              const Vec<float> w = load(packed + (i * taps + t) * kL);
                              for (int p = 0; p < P; ++p) acc[p] += w * input<M, decltype(number)::value>(pixel + p * hop);
                          });
}

template <int M, int P> NINEFOLD_INLINE void sliding_sums(const Reads& r, const float* in, const float* packed, Vec<float> start,
                                                          Vec<float> (&acc)[P]) {
    const int64_t hop = M ? kL : r.hop, inputs = M ? M : r.inputs;
    for (int p = 0; p < P; ++p) acc[p] = start;
    in += r.at[0] * hop;
    for (int64_t k = 0; k < r.n_rows; ++k, packed += inputs * 3 * kL)
        each_input<M>(inputs, in + r.rows[k], [&](auto number, int64_t i, const float* pixel) __attribute__((always_inline)) {
            const float* w = packed + i * 3 * kL;
            const Vec<float> first = load(w), second = load(w + kL), third = load(w + 2 * kL);
            for (int p = 0; p < P + 2; ++p) {
                const Vec<float> v = input<M, decltype(number)::value>(pixel + p * hop);
                if (p < P) acc[p] += first * v;
                if (p > 0 && p <= P) acc[p - 1] += second * v;
                if (p > 1) acc[p - 2] += third * v;
            }
        });
}

// Where outputs of a row go, `hop` apart, of `channels` at most a vector.
struct Writes {
    float* out;
    int64_t hop, channels;
    float floor;
};

// Tiles of P outputs, `tiles` of them `count` apart, of which `count` are written.
template <int M, int P, bool Slides>
__attribute__((noinline)) void row(const Reads& r, const float* in, const float* packed, const float* start, const Writes& w,
                                   int64_t tiles, int64_t count) {
    const Vec<float> lowest = broadcast(w.floor), init = load(start);
    float* out = w.out;
    for (int64_t k = 0; k < tiles; ++k, in += count * (M ? kL : r.hop), out += count * w.hop) {
        Vec<float> acc[P];
        if constexpr (Slides) sliding_sums<M, P>(r, in, packed, init, acc);
        else sums<M, P>(r, in, packed, init, acc);
        if (count == P && w.channels >= kL) {
            for (int p = 0; p < P; ++p) store(out + p * w.hop, larger(acc[p], lowest));
        } else {
            for (int p = 0; p < P; ++p) acc[p] = larger(acc[p], lowest);
            float part[P * kL];
            __builtin_memcpy(part, acc, sizeof part);
            for (int64_t p = 0; p < count; ++p) store_first(out + p * w.hop, load(part + p * kL), min(kL, w.channels));
        }
    }
}

// Rows of outputs whose gradients are multiplied with what they read: steps of both from row to row.
struct Sweep {
    int64_t planes, rows, count;
    int64_t in_plane, in_row, grad_plane, grad_row;
};

// Sums of N taps, those of row `row`, over all outputs; they lie at `to` and go on from what they are.
template <int M, int N> __attribute__((noinline)) void weights(const Reads& r, const Sweep& s, const float* in, int64_t first,
                                                               const float* grad, float* to) {
    const int64_t hop = M ? kL : r.hop;
    each_input<M>(r.inputs, in, [&](auto number, int64_t i, const float* pixel) __attribute__((always_inline)) {
        float* sums_at = to + (i * r.taps + first) * kL;
        Vec<float> acc[N];
        for (int n = 0; n < N; ++n) acc[n] = load(sums_at + n * kL);
        for (int64_t z = 0; z < s.planes; ++z)
            for (int64_t y = 0; y < s.rows; ++y) {
                const float *up = grad + z * s.grad_plane + y * s.grad_row, *at[N];
                for (int n = 0; n < N; ++n) at[n] = pixel + z * s.in_plane + y * s.in_row + r.at[first + n] * hop;
                for (int64_t k = 0; k < s.count; ++k, up += kL) {
                    const Vec<float> g = load(up);
                    for (int n = 0; n < N; ++n) acc[n] += g * input<M, decltype(number)::value>(at[n] + k * hop);
                }
            }
        for (int n = 0; n < N; ++n) store(sums_at + n * kL, acc[n]);
    });
}

// The same for R rows of three neighbouring taps each.
template <int M, int R> __attribute__((noinline)) void sliding_weights(const Reads& r, const Sweep& s, const float* in,
                                                                       int64_t first, const float* grad, float* to) {
    const int64_t hop = M ? kL : r.hop, next = r.inputs * 3 * kL;
    each_input<M>(r.inputs, in, [&](auto number, int64_t i, const float* pixel) __attribute__((always_inline)) {
        float* sums_at = to + i * 3 * kL;
        Vec<float> acc[R][3];
        for (int q = 0; q < R; ++q)
            for (int n = 0; n < 3; ++n) acc[q][n] = load(sums_at + q * next + n * kL);
        for (int64_t z = 0; z < s.planes; ++z)
            for (int64_t y = 0; y < s.rows; ++y) {
                const float *up = grad + z * s.grad_plane + y * s.grad_row, *at[R];
                for (int q = 0; q < R; ++q) at[q] = pixel + z * s.in_plane + y * s.in_row + r.rows[first + q] + r.at[0] * hop;
                for (int64_t k = 0; k < s.count; ++k, up += kL) {
                    const Vec<float> g = load(up);
                    for (int q = 0; q < R; ++q) {
                        for (int n = 0; n < 3; ++n) acc[q][n] += g * input<M, decltype(number)::value>(at[q] + n * hop);
                        at[q] += hop;
                    }
                }
            }
        for (int q = 0; q < R; ++q)
            for (int n = 0; n < 3; ++n) store(sums_at + q * next + n * kL, acc[q][n]);
    });
}

// How many of `count` outputs a tile makes, and with it the tile that a kernel of its own has.
NINEFOLD_INLINE int64_t tile_count(int64_t count) { return ceil_div(count, ceil_div(count, kMostPixels)); }
NINEFOLD_INLINE int64_t tile_size(int64_t count) { return count <= 4 ? 4 : count <= 8 ? 8 : kMostPixels; }

}  // namespace
}  // namespace NINEFOLD_NS
