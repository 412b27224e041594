// The input of an unshared layer with its border written out, examples innermost, and the way back.
//
// Staged element (block, channel, e) is a group of `deep` examples: a vector of them where there are many, a single one where
// there are few. Extended positions e count through all axes, so that a patch is one base and a list of offsets.
#pragma once
#include "common/simd.hpp"
#include "unshared/unshared.hpp"

#define NINEFOLD_LAMBDA __attribute__((always_inline))
#define NINEFOLD_UNROLL _Pragma("GCC unroll 16")
// Keeps a vector in its register: the compiler would rather load it anew for every product.
#if defined(NINEFOLD_AVX512)
#define NINEFOLD_KEEP(v) asm("" : "+v"(v))
#elif defined(__x86_64__) && !defined(NINEFOLD_WIDE)
#define NINEFOLD_KEEP(v) asm("" : "+x"(v))
#else
#define NINEFOLD_KEEP(v) (void)(v)
#endif

namespace NINEFOLD_NS {
namespace {

constexpr int64_t kAhead = 512;  // bytes that weights are asked for ahead of their use

template <class T> NINEFOLD_INLINE Mask<T> interleaving(bool high) {
    typedef Mask<T> M;
    if constexpr (kLanes<T> == 2) return high ? M{1, 3} : M{0, 2};
    if constexpr (kLanes<T> == 4) return high ? M{2, 6, 3, 7} : M{0, 4, 1, 5};
    if constexpr (kLanes<T> == 8) return high ? M{4, 12, 5, 13, 6, 14, 7, 15} : M{0, 8, 1, 9, 2, 10, 3, 11};
    if constexpr (kLanes<T> == 16)
        return high ? M{8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31}
                    : M{0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
}

// Interleaving the first half of the rows with the second, log2 times, exchanges rows and columns.
template <class T> NINEFOLD_INLINE void transpose(Vec<T>* v) {
    constexpr int n = kLanes<T>;
    for (int round = 1; round < n; round *= 2) {
        Vec<T> w[n];
        for (int k = 0; k < n / 2; ++k) {
            w[2 * k] = __builtin_shuffle(v[k], v[k + n / 2], interleaving<T>(false));
            w[2 * k + 1] = __builtin_shuffle(v[k], v[k + n / 2], interleaving<T>(true));
        }
        for (int k = 0; k < n; ++k) v[k] = w[k];
    }
}

// Lane k is the sum of the lanes of v[k].
template <class T> NINEFOLD_INLINE Vec<T> sums_of(const Vec<T>* v) {
    constexpr int n = kLanes<T>;
    Vec<T> w[n];
    for (int k = 0; k < n; ++k) w[k] = v[k];
    for (int half = n / 2; half; half /= 2)
        for (int k = 0; k < half; ++k)
            w[k] = __builtin_shuffle(w[k], w[k + half], interleaving<T>(false)) +
                   __builtin_shuffle(w[k], w[k + half], interleaving<T>(true));
    return w[0];
}

// The first n elements of a row of weights that ends within a vector: what is behind it is not touched.
NINEFOLD_INLINE Vec<float> load_some(const float* p, int64_t n) { return load_first(p, n); }
NINEFOLD_INLINE Vec<double> load_some(const double* p, int64_t n) {
#if defined(NINEFOLD_AVX512)
    return Vec<double>(_mm512_maskz_loadu_pd(__mmask8((1u << n) - 1), p));
#elif defined(NINEFOLD_AVX2)
    return Vec<double>(_mm256_maskload_pd(p, __m256i(first<double>(n))));
#else
    return load_first(p, n);
#endif
}

// How a plan lies in scratch. `deep` examples are neighbours; positions of h are cut into `parts` that sum for themselves.
struct Shape {
    int64_t deep, blocks, inputs, channel, row, pitch, parts;  // channel: elements from one staged channel to the next
    bool wide;
};

// Elements from one channel of so many elements to the next. Short channels lie side by side.
template <class T> NINEFOLD_INLINE int64_t channel_stride(int64_t elements) {
    return elements < 1024 / int64_t(sizeof(T)) ? elements : pad_stride_for_cache_sets<T>(elements);
}

template <class T> NINEFOLD_INLINE Shape shape_of(const Unshared& d) {
    Shape s;
    s.wide = d.map != UnsharedMap::backward_weights && d.batch >= kLanes<T>;
    s.deep = s.wide ? kLanes<T> : 1;
    s.blocks = ceil_div(min(d.cut, d.batch), s.deep);
    s.inputs = d.groups * d.ins;
    s.channel = channel_stride<T>(d.extended[0] * d.extended[1] * d.extended[2] * s.deep);
    s.row = d.ins * d.taps;
    s.pitch = channel_stride<T>(round_up(s.row + kLanes<T> - 1, kLanes<T>));
    s.parts = max(1, min(d.threads, d.positions));
    return s;
}

// Bring `count` places of a run into vectors of examples; `have` of them exist.
template <class T>
NINEFOLD_INLINE void stage_run(T* to, const T* from, int64_t hop, int64_t example, int64_t count, int64_t have) {
    constexpr int64_t n = kLanes<T>;
    int64_t k = 0;
    if (hop == 1) {
        for (; k + n <= count; k += n) {
            Vec<T> v[n];
            for (int64_t b = 0; b < n; ++b) v[b] = b < have ? load(from + b * example + k) : Vec<T>{};
            transpose<T>(v);
            for (int64_t b = 0; b < n; ++b) store(to + (k + b) * n, v[b]);
        }
    }
    for (; k < count; ++k)
        for (int64_t b = 0; b < n; ++b) to[k * n + b] = b < have ? from[b * example + k * hop] : T(0);
}

// Add vectors of examples to `count` places of a run.
template <class T>
NINEFOLD_INLINE void unstage_run(T* to, const T* from, int64_t hop, int64_t example, int64_t count, int64_t have) {
    constexpr int64_t n = kLanes<T>;
    int64_t k = 0;
    if (hop == 1) {
        for (; k + n <= count; k += n) {
            Vec<T> v[n];
            for (int64_t b = 0; b < n; ++b) v[b] = load(from + (k + b) * n);
            transpose<T>(v);
            for (int64_t b = 0; b < n; ++b)
                if (b < have) store(to + b * example + k, load(to + b * example + k) + v[b]);
        }
    }
    for (; k < count; ++k)
        for (int64_t b = 0; b < have; ++b) to[b * example + k * hop] += from[k * n + b];
}

// Write vectors of examples to `count` places of a run, plus a number.
template <class T>
NINEFOLD_INLINE void spread_run(T* to, const T* from, int64_t hop, int64_t example, int64_t count, int64_t have, T plus) {
    constexpr int64_t n = kLanes<T>;
    int64_t k = 0;
    if (hop == 1) {
        for (; k + n <= count; k += n) {
            Vec<T> v[n];
            for (int64_t b = 0; b < n; ++b) v[b] = load(from + (k + b) * n);
            transpose<T>(v);
            for (int64_t b = 0; b < n; ++b)
                if (b < have) store(to + b * example + k, v[b] + broadcast(plus));
        }
    }
    for (; k < count; ++k)
        for (int64_t b = 0; b < have; ++b) to[b * example + k * hop] = from[k * n + b] + plus;
}

// Stage channel c of the block of examples that starts at `in`; `have` of them exist.
template <class T> void stage_channel(const Unshared& d, const T* in, int64_t deep, int64_t have, T* to) {
    for (int64_t z = 0; z < d.extended[0]; ++z)
        for (int64_t y = 0; y < d.extended[1]; ++y, to += d.extended[2] * deep) {
            int64_t from_z = d.source[0][z], from_y = d.source[1][y];
            const T* row = in + from_z * d.in[0] + from_y * d.in[1];
            for (int64_t r = 0; r < d.n_runs; ++r) {
                const Run& run = d.runs[r];
                T* t = to + run.to * deep;
                if (from_z < 0 || from_y < 0 || run.from < 0) {
                    for (int64_t k = 0; k < run.count * deep; ++k) t[k] = 0;
                    continue;
                }
                const T* f = row + run.from * d.in[2];
                int64_t hop = run.step * d.in[2];
                if (deep > 1) stage_run(t, f, hop, d.in_n, run.count, have);
                else if (hop == 1)
                    for (int64_t k = 0; k < run.count; ++k) t[k] = f[k];
                else
                    for (int64_t k = 0; k < run.count; ++k) t[k] = f[k * hop];
            }
        }
}

// The same from one part's sums of extended positions [low, high) back, adding.
template <class T>
void unstage_channel(const Unshared& d, const T* sums, int64_t low, int64_t high, int64_t deep, int64_t have, T* out) {
    int64_t e = 0;
    for (int64_t z = 0; z < d.extended[0]; ++z)
        for (int64_t y = 0; y < d.extended[1]; ++y, e += d.extended[2]) {
            int64_t to_z = d.source[0][z], to_y = d.source[1][y];
            if (to_z < 0 || to_y < 0) continue;
            T* row = out + to_z * d.in[0] + to_y * d.in[1];
            for (int64_t r = 0; r < d.n_runs; ++r) {
                const Run& run = d.runs[r];
                if (run.from < 0) continue;
                int64_t first = max(e + run.to, low), past = min(e + run.to + run.count, high);
                if (first >= past) continue;
                const T* f = sums + (first - low) * deep;
                T* t = row + (run.from + (first - e - run.to) * run.step) * d.in[2];
                int64_t hop = run.step * d.in[2], count = past - first;
                if (deep > 1) unstage_run(t, f, hop, d.in_n, count, have);
                else
                    for (int64_t k = 0; k < count; ++k) t[k * hop] += f[k];
            }
        }
}

constexpr int64_t kMostPlaces = 32;  // positions that are worked on together

// Copy the patches of one example at `count` positions into rows of taps, `pitch` apart. Pieces of `run` taps are copied by wider
// ones, each overwritten by the next: reads and writes up to a vector past the end, for which there is room; zeros up to a whole
// vector are put there afterwards. Positions come last, for neighbours read the same cache lines.
template <class T, class Piece>
NINEFOLD_INLINE void gather_pieces(const Unshared& d, const T* x, int64_t channel, const int64_t* base, int64_t count,
                                   int64_t pitch, T* to, int64_t width, Piece&& piece) {
    const int64_t ins = d.ins, taps = d.taps, *at = d.at;
    for (int64_t i = 0; i < ins; ++i, x += channel)
        for (int64_t m = 0; m < taps; m += width, to += width) {
            const T* from = x + at[m];
            T* t = to;
            for (int64_t p = 0; p < count; ++p, t += pitch) piece(t, from + base[p]);
        }
}
template <class T>
NINEFOLD_INLINE void gather_patches(const Unshared& d, const T* x, int64_t channel, const int64_t* base, int64_t count,
                                    int64_t row, int64_t pitch, T* to) {
    constexpr int64_t n = kLanes<T>;
    const int64_t run = d.run;
    if (run == 1) gather_pieces(d, x, channel, base, count, pitch, to, run, [](T* t, const T* f) NINEFOLD_LAMBDA { *t = *f; });
    else if (run <= 4 && 4 < n)
        gather_pieces(d, x, channel, base, count, pitch, to, run,
                      [](T* t, const T* f) NINEFOLD_LAMBDA { __builtin_memcpy(t, f, 4 * sizeof(T)); });
    else if (run <= n)
        gather_pieces(d, x, channel, base, count, pitch, to, run, [](T* t, const T* f) NINEFOLD_LAMBDA { store(t, load(f)); });
    else
        gather_pieces(d, x, channel, base, count, pitch, to, run, [run](T* t, const T* f) NINEFOLD_LAMBDA {
            for (int64_t k = 0; k < run; k += n) store(t + k, load(f + k));
        });
    for (int64_t p = 0; p < count; ++p)
        for (int64_t k = row; k < round_up(row, n); ++k) to[p * pitch + k] = 0;
}

// Add a row of taps to where the patch was read; touches up to a vector past the end and leaves it as it was.
template <class T> NINEFOLD_INLINE void scatter_patch(const Unshared& d, const T* from, T* x, int64_t channel) {
    constexpr int64_t n = kLanes<T>;
    const int64_t ins = d.ins, taps = d.taps, run = d.run, *at = d.at;
    if (run > 1) {
        const Mask<T> end = first<T>(run % n ? run % n : n);
        for (int64_t i = 0; i < ins; ++i, x += channel)
            for (int64_t m = 0; m < taps; m += run, from += run) {
                T* to = x + at[m];
                int64_t k = 0;
                for (; k + n < run; k += n) store(to + k, load(to + k) + load(from + k));
                store(to + k, load(to + k) + masked<T>(load(from + k), end));
            }
    } else {
        for (int64_t i = 0; i < ins; ++i, x += channel)
            for (int64_t m = 0; m < taps; ++m) x[at[m]] += *from++;
    }
}

// Ask for what is soon read, or written: `rows` pieces of `count` elements, `step` apart. Caches foresee long streams, not short
// ones.
template <class T, bool Written = false> NINEFOLD_INLINE void expect(const T* p, int64_t step, int64_t rows, int64_t count) {
    constexpr int64_t line = 64 / int64_t(sizeof(T));
    for (int64_t r = 0; r < rows; ++r, p += step) {
        for (int64_t k = 0; k < count; k += line) __builtin_prefetch(p + k, Written);
        __builtin_prefetch(p + count - 1, Written);
    }
}

// Part k of n of [0, total).
struct Range {
    int64_t begin, end;
    NINEFOLD_INLINE int64_t size() const { return end - begin; }
};
NINEFOLD_INLINE Range part(int64_t total, int64_t k, int64_t n) {
    int64_t each = total / n, more = total % n;
    int64_t begin = k * each + min(k, more);
    return Range{begin, begin + each + (k < more)};
}

// What some positions read from, and their rows of weights.
struct Places {
    int64_t base[kMostPlaces], row[kMostPlaces];
    Places(const Unshared& d, Range ps) { d.places(ps.begin, ps.size(), base, row); }
};

NINEFOLD_INLINE int64_t bytes_of(int64_t elements, int64_t size) { return round_up(elements * size + 128, 128) + 64; }

}  // namespace
}  // namespace NINEFOLD_NS
