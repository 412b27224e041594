// Forward of an unshared layer: out[b][o][p] = sum over l of K[o][p][l] times patch[b][p][l].
//
// Weights are read once, a few outputs at a time along the positions: each of these streams runs on through memory.
// Many examples: lanes are examples. A weight is broadcast and multiplies vectors of examples, read where they were staged.
// Few examples: lanes are taps, over patches that are copied once for all outputs.
#include "common/threads.hpp"
#include "unshared/unshared_staging.hpp"

namespace NINEFOLD_NS {
namespace {

constexpr int kWide2 = kRegisters == 32 ? 12 : 6, kWide1 = kRegisters == 32 ? 16 : 8;  // outputs beside 2 vectors of examples, 1
constexpr int64_t kTile = 48 << 10;                                                    // bytes of results or patches of an item
constexpr int kFew[] = {0, 8, 6, 4, 3};                                                // outputs beside 1 to 4 examples

template <class T> int64_t wide_rows(const Shape& s) { return s.blocks > 1 ? kWide2 : kWide1; }

struct Items {
    int64_t place, parts_p, parts_o, count;
};

template <class T> Items items_of(const Unshared& d, const Shape& s) {
    Items k;
    int64_t each = s.wide ? s.blocks * wide_rows<T>(s) * kBytes : min(d.cut, d.batch) * s.pitch * int64_t(sizeof(T));
    k.place = min(kMostPlaces, max(s.wide ? kLanes<T> : 1, kTile / each));
    k.parts_p = ceil_div(d.positions, k.place);
    k.place = ceil_div(d.positions, k.parts_p);
    int64_t rows = s.wide ? wide_rows<T>(s) : kFew[1];
    k.parts_o = d.threads > 1 ? min(ceil_div(d.outs, rows), ceil_div(4 * d.threads, k.parts_p * d.groups)) : 1;
    k.count = k.parts_p * d.groups * k.parts_o;
    return k;
}

template <class T> using Wide = void (*)(const Unshared&, const T*, int64_t, const T*, int64_t, int64_t, T*, int64_t, int64_t);

// R outputs of one position, V vectors of examples: x at the position, `block` and `channel` apart.
template <class T, int R, int V>
void rows_wide(const Unshared& d, const T* k, int64_t step, const T* x, int64_t block, int64_t channel, T* to, int64_t to_r,
               int64_t to_v) {
    Vec<T> sums[R][V] = {};
    const int64_t* at = d.at;
    const int64_t ins = d.ins, taps = d.taps, ahead = kAhead / int64_t(sizeof(T));
    for (int64_t i = 0; i < ins; ++i, x += channel) {
        for (int r = 0; r < R; ++r) __builtin_prefetch(k + r * step + ahead);
        for (int64_t m = 0; m < taps; ++m, ++k) {
            const T* patch = x + at[m] * kLanes<T>;
            Vec<T> v[V];
            for (int u = 0; u < V; ++u) v[u] = load(patch + u * block);
            for (int r = 0; r < R; ++r) {
                Vec<T> w = broadcast(k[r * step]);
                for (int u = 0; u < V; ++u) sums[r][u] += w * v[u];
            }
        }
    }
    NINEFOLD_UNROLL
    for (int r = 0; r < R; ++r) NINEFOLD_UNROLL
    for (int u = 0; u < V; ++u) store(to + r * to_r + u * to_v, sums[r][u]);
}

template <class T, int V, int R> Wide<T> wide_named(int64_t rows) {
    if constexpr (R > 1)
        if (rows < R) return wide_named<T, V, R - 1>(rows);
    return rows_wide<T, R, V>;
}

template <class T> using FewExamples = void (*)(const T*, int64_t, const T*, int64_t, int64_t, T*);

// R outputs of one position and B examples: sums[r * B + b].
template <class T, int R, int B> void rows_few(const T* k, int64_t step, const T* patch, int64_t row, int64_t pitch, T* out) {
    constexpr int64_t n = kLanes<T>;
    constexpr int padded = (R * B + n - 1) / n * n;
    Vec<T> sums[padded] = {};
    auto add = [&](int64_t l, auto&& weight) NINEFOLD_LAMBDA {
        Vec<T> v[B];
        for (int b = 0; b < B; ++b) v[b] = load(patch + b * pitch + l);
        for (int r = 0; r < R; ++r) {
            Vec<T> w = weight(k + r * step + l);
            for (int b = 0; b < B; ++b) sums[r * B + b] += w * v[b];
        }
    };
    int64_t l = 0;
    for (; l + n <= row; l += n) add(l, [](const T* p) NINEFOLD_LAMBDA { return load(p); });
    if (l < row) add(l, [&](const T* p) NINEFOLD_LAMBDA { return load_some(p, row - l); });
    for (int s = 0; s < padded; s += n) store(out + s, sums_of<T>(sums + s));
}

template <class T, int B, int R> FewExamples<T> few_examples_of(int64_t rows) {
    if constexpr (R > 1)
        if (rows < R) return few_examples_of<T, B, R - 1>(rows);
    return rows_few<T, R, B>;
}

template <class T> FewExamples<T> few_examples_of(int64_t rows, int64_t examples) {
    return examples == 1   ? few_examples_of<T, 1, kFew[1]>(rows)
           : examples == 2 ? few_examples_of<T, 2, kFew[2]>(rows)
           : examples == 3 ? few_examples_of<T, 3, kFew[3]>(rows)
                           : few_examples_of<T, 4, kFew[4]>(rows);
}

template <class T> struct Run_c {
    const Unshared& d;
    const Shape& s;
    const Items& n;
    const T *K, *X, *bias;
    T* out;  // at the first example of the cut
    int64_t examples;

    const T* weights(int64_t o, int64_t row) const { return K + (o * d.kernels + row) * s.row; }

    // Many examples: a tile of [block][output][position] vectors, then exchanged into the output's own order.
    void wide(Range ps, const Places& at, int64_t g, Range os, T* tile) const {
        const int64_t lanes = kLanes<T>, step = d.kernels * s.row, channel = s.channel, block = s.inputs * channel;
        const int64_t blocks = ceil_div(examples, lanes), most_rows = wide_rows<T>(s), parts = ceil_div(os.size(), most_rows);
        const T* x = X + g * d.ins * channel;
        for (int64_t k = 0; k < parts; ++k) {
            Range rows = part(os.size(), k, parts);
            int64_t o = g * d.outs + os.begin + rows.begin, count = rows.size(), to_r = n.place * lanes, to_v = count * to_r;
            for (int64_t r = 0; r < count; ++r)
                if (d.out_p == 1) expect<T, true>(out + (o + r) * d.out_c + ps.begin, d.out_n, examples, ps.size());
            Wide<T> one = wide_named<T, 1, kWide1>(count), two = wide_named<T, 2, kWide2>(count);
            for (int64_t p = 0; p < ps.size(); ++p) {
                T* to = tile + p * lanes;
                const T *patch = x + at.base[p] * lanes, *k = weights(o, at.row[p]);
                int64_t b = 0;
                for (; b + 1 < blocks; b += 2) two(d, k, step, patch + b * block, block, channel, to + b * to_v, to_r, to_v);
                if (b < blocks) one(d, k, step, patch + b * block, block, channel, to + b * to_v, to_r, to_v);
            }
            for (int64_t b = 0; b < blocks; ++b)
                for (int64_t r = 0; r < count; ++r)
                    spread_run(out + b * lanes * d.out_n + (o + r) * d.out_c + ps.begin * d.out_p, tile + b * to_v + r * to_r,
                               d.out_p, d.out_n, ps.size(), min(lanes, examples - b * lanes), bias ? bias[o + r] : T(0));
        }
    }

    // Few examples: rows of patches [example][position], shared by all outputs.
    void few_examples(Range ps, const Places& at, int64_t g, Range os, T* patches) const {
        const int64_t step = d.kernels * s.row;
        for (int64_t b = 0; b < examples; ++b)
            gather_patches(d, X + (b * s.inputs + g * d.ins) * s.channel, s.channel, at.base, ps.size(), s.row, s.pitch,
                           patches + b * n.place * s.pitch);
        const int64_t parts_b = ceil_div(examples, 4), most_rows = kFew[ceil_div(examples, parts_b)];
        const int64_t parts = ceil_div(os.size(), most_rows);
        for (int64_t k = 0; k < parts; ++k) {
            Range rows = part(os.size(), k, parts);
            int64_t o = g * d.outs + os.begin + rows.begin;
            for (int64_t p = ps.begin; p < ps.end; ++p)
                for (int64_t q = 0; q < parts_b; ++q) {
                    Range bs = part(examples, q, parts_b);
                    T sums[32];
                    few_examples_of<T>(rows.size(), bs.size())(weights(o, at.row[p - ps.begin]), step,
                                                               patches + (bs.begin * n.place + p - ps.begin) * s.pitch, s.row,
                                                               n.place * s.pitch, sums);
                    const T* from = sums;
                    for (int64_t r = 0; r < rows.size(); ++r)
                        for (int64_t b = bs.begin; b < bs.end; ++b)
                            out[b * d.out_n + (o + r) * d.out_c + p * d.out_p] = *from++ + (bias ? bias[o + r] : T(0));
                }
        }
    }

    void item(int64_t k, char* mine) const {
        Range os = part(d.outs, k % n.parts_o, n.parts_o);
        int64_t g = k / n.parts_o % d.groups, q = k / n.parts_o / d.groups;
        Range ps{q * n.place, min(d.positions, (q + 1) * n.place)};
        const Places at(d, ps);
        if (s.wide) wide(ps, at, g, os, reinterpret_cast<T*>(mine));
        else few_examples(ps, at, g, os, reinterpret_cast<T*>(mine));
    }
};

template <class T> int64_t staged_bytes(const Shape& s) {
    return bytes_of(s.blocks * s.inputs * s.channel + kLanes<T>, sizeof(T));
}

template <class T> int64_t own_bytes(const Unshared& d, const Shape& s) {
    Items n = items_of<T>(d, s);
    int64_t wide = s.blocks * wide_rows<T>(s) * n.place * kLanes<T>;
    return bytes_of(s.wide ? wide : n.place * min(d.cut, d.batch) * s.pitch + kLanes<T>, sizeof(T));
}

template <class T> void run(const Unshared& d, const T* K, const T* V, const T* bias, T* out, char* scratch) {
    const Shape s = shape_of<T>(d);
    const Items n = items_of<T>(d, s);
    T* X = reinterpret_cast<T*>(scratch);
    char* own = scratch + staged_bytes<T>(s);
    const int64_t each = own_bytes<T>(d, s), threads = d.threads;
    for (int64_t first = 0; first < d.batch; first += d.cut) {
        const int64_t examples = min(d.cut, d.batch - first), blocks = ceil_div(examples, s.deep);
        const Run_c<T> r{d, s, n, K, X, bias, out + first * d.out_n, examples};
#pragma omp parallel num_threads(threads) if (threads > 1 && !d.forked)
        {
#pragma omp for schedule(static)
            for (int64_t k = 0; k < blocks * s.inputs; ++k) {
                int64_t b = k / s.inputs * s.deep, c = k % s.inputs;
                stage_channel(d, V + (first + b) * d.in_n + c * d.in_c, s.deep, examples - b, X + k * s.channel);
            }
#pragma omp for schedule(static)
            for (int64_t k = 0; k < n.count; ++k) r.item(k, own + this_thread() * each);
        }
    }
}

}  // namespace

size_t unshared_forward_scratch(const Unshared& d) {
    if (d.type == Type::float64) {
        Shape s = shape_of<double>(d);
        return size_t(staged_bytes<double>(s) + d.threads * own_bytes<double>(d, s));
    }
    Shape s = shape_of<float>(d);
    return size_t(staged_bytes<float>(s) + d.threads * own_bytes<float>(d, s));
}

void unshared_forward(const Unshared& d, const void* K, const void* V, const void* bias, void* out, char* scratch) {
    if (d.type == Type::float64)
        run(d, static_cast<const double*>(K), static_cast<const double*>(V), static_cast<const double*>(bias),
            static_cast<double*>(out), scratch);
    else
        run(d, static_cast<const float*>(K), static_cast<const float*>(V), static_cast<const float*>(bias),
            static_cast<float*>(out), scratch);
}

}  // namespace NINEFOLD_NS
