// Backward_data of an unshared layer: the gradient of the patch of p is the sum over o of K[o][p][l] G[b][o][p]. It is added to
// where the patch was read.
//
// The mirror of forward: weights are read once, a few outputs at a time along the positions.
// Positions are cut into parts. Each part sums for itself, and parts are added in order: the result does not depend on which
// thread ends first. What lies on the border is added to its source on the way out.
#include "common/threads.hpp"
#include "unshared/unshared_staging.hpp"

namespace NINEFOLD_NS {
namespace {

constexpr int kWide2 = kRegisters == 32 ? 12 : 6, kWide1 = kRegisters == 32 ? 16 : 12;  // outputs beside 2 vectors of examples, 1
constexpr int64_t kTile = 64 << 10;      // bytes of gradients or patches of an item
constexpr int kFew[] = {0, 8, 6, 4, 3};  // outputs beside 1 to 4 examples

int64_t wide_rows(const Shape& s) { return s.blocks > 1 ? kWide2 : kWide1; }

template <class T> int64_t place_of(const Unshared& d, const Shape& s) {
    int64_t each = s.wide ? s.blocks * wide_rows(s) * kBytes : min(d.cut, d.batch) * s.pitch * int64_t(sizeof(T));
    return min(kMostPlaces, max(s.wide ? kLanes<T> : 1, kTile / each));
}

// What the positions of part t read: extended positions [low, high), and the elements from one channel of them to the next.
struct Slab {
    int64_t low, high, channel;
};
template <class T> Slab slab_of(const Unshared& d, const Shape& s, int64_t t) {
    Range ps = part(d.positions, t, s.parts);
    int64_t a = d.base(ps.begin), b = d.base(ps.end - 1);  // bases rise throughout, or fall
    int64_t low = min(a, b), high = max(a, b) + d.at[d.taps - 1] + 1;
    return Slab{low, high, channel_stride<T>((high - low) * s.deep)};
}
template <class T> int64_t slab_elements(const Shape& s, const Slab& slab) {
    return s.blocks * s.inputs * slab.channel + kLanes<T>;
}

template <class T> using Wide = void (*)(const Unshared&, const T*, int64_t, const T*, int64_t, int64_t, T*, int64_t, int64_t);

// R outputs of one position, V vectors of examples, added to the sums at x.
template <class T, int R, int V>
void rows_wide(const Unshared& d, const T* k, int64_t step, const T* given, int64_t given_r, int64_t given_v, T* x, int64_t block,
               int64_t channel) {
    Vec<T> g[R][V];
    for (int r = 0; r < R; ++r)
        for (int u = 0; u < V; ++u) g[r][u] = load(given + r * given_r + u * given_v);
    const int64_t* at = d.at;
    const int64_t ins = d.ins, taps = d.taps, ahead = kAhead / int64_t(sizeof(T));
    for (int64_t i = 0; i < ins; ++i, x += channel) {
        for (int r = 0; r < R; ++r) __builtin_prefetch(k + r * step + ahead);
        for (int64_t m = 0; m < taps; ++m, ++k) {
            T* patch = x + at[m] * kLanes<T>;
            Vec<T> v[V];
            for (int u = 0; u < V; ++u) v[u] = load(patch + u * block);
            for (int r = 0; r < R; ++r) {
                Vec<T> w = broadcast(k[r * step]);
                for (int u = 0; u < V; ++u) v[u] += w * g[r][u];
            }
            for (int u = 0; u < V; ++u) store(patch + u * block, v[u]);
        }
    }
}

template <class T, int V, int R> Wide<T> wide_named(int64_t rows) {
    if constexpr (R > 1)
        if (rows < R) return wide_named<T, V, R - 1>(rows);
    return rows_wide<T, R, V>;
}

template <class T> using FewExamples = void (*)(const T*, int64_t, const T*, int64_t, int64_t, bool, T*);

// R outputs of one position and B examples, given[r * B + b], added to rows of taps, or written to them at first.
template <class T, int R, int B> void rows_few(const T* k, int64_t step, const T* given, int64_t row, int64_t pitch, bool first,
                                               T* to) {
    constexpr int64_t n = kLanes<T>;
    Vec<T> g[R][B];
    for (int r = 0; r < R; ++r)
        for (int b = 0; b < B; ++b) g[r][b] = broadcast(given[r * B + b]);
    auto add = [&](int64_t l, auto&& weight) NINEFOLD_LAMBDA {
        Vec<T> w[R];
        for (int r = 0; r < R; ++r) w[r] = weight(k + r * step + l);
        for (int b = 0; b < B; ++b) {
            Vec<T> v = first ? Vec<T>{} : load(to + b * pitch + l);
            for (int r = 0; r < R; ++r) v += w[r] * g[r][b];
            store(to + b * pitch + l, v);
        }
    };
    int64_t l = 0;
    for (; l + n <= row; l += n) add(l, [](const T* p) NINEFOLD_LAMBDA { return load(p); });
    if (l < row) add(l, [&](const T* p) NINEFOLD_LAMBDA { return load_some(p, row - l); });
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

template <class T> struct Run_h {
    const Unshared& d;
    const Shape& s;
    int64_t place;
    const T *K, *G;  // G at the first example of the cut
    int64_t examples;

    const T* weights(int64_t o, int64_t row) const { return K + (o * d.kernels + row) * s.row; }

    // Gradients come into a tile of [block][output][position] vectors.
    void wide(Range ps, const Places& at, int64_t g, const Slab& slab, T* sums, T* tile) const {
        const int64_t lanes = kLanes<T>, step = d.kernels * s.row, channel = slab.channel, block = s.inputs * channel;
        const int64_t blocks = ceil_div(examples, lanes), parts = ceil_div(d.outs, wide_rows(s));
        T* x = sums + g * d.ins * channel;
        for (int64_t k = 0; k < parts; ++k) {
            Range rows = part(d.outs, k, parts);
            int64_t o = g * d.outs + rows.begin, count = rows.size(), to_r = place * lanes, to_v = count * to_r;
            for (int64_t b = 0; b < blocks; ++b)
                for (int64_t r = 0; r < count; ++r)
                    stage_run(tile + b * to_v + r * to_r, G + b * lanes * d.out_n + (o + r) * d.out_c + ps.begin * d.out_p,
                              d.out_p, d.out_n, ps.size(), min(lanes, examples - b * lanes));
            Wide<T> one = wide_named<T, 1, kWide1>(count), two = wide_named<T, 2, kWide2>(count);
            for (int64_t p = 0; p < ps.size(); ++p) {
                const T *given = tile + p * lanes, *k = weights(o, at.row[p]);
                T* patch = x + (at.base[p] - slab.low) * lanes;
                int64_t b = 0;
                for (; b + 1 < blocks; b += 2) two(d, k, step, given + b * to_v, to_r, to_v, patch + b * block, block, channel);
                if (b < blocks) one(d, k, step, given + b * to_v, to_r, to_v, patch + b * block, block, channel);
            }
        }
    }

    // Rows of the patches' gradients, [position][example], first over all outputs, then to their places.
    void few_examples(Range ps, const Places& at, int64_t g, const Slab& slab, T* sums, T* patches) const {
        const int64_t step = d.kernels * s.row, channel = slab.channel;
        const int64_t parts_b = ceil_div(examples, 4), most_rows = kFew[ceil_div(examples, parts_b)];
        const int64_t parts = ceil_div(d.outs, most_rows);
        for (int64_t k = 0; k < parts; ++k) {
            Range rows = part(d.outs, k, parts);
            int64_t o = g * d.outs + rows.begin;
            for (int64_t p = ps.begin; p < ps.end; ++p)
                for (int64_t q = 0; q < parts_b; ++q) {
                    Range bs = part(examples, q, parts_b);
                    T given[16];
                    T* to = given;
                    for (int64_t r = 0; r < rows.size(); ++r)
                        for (int64_t b = bs.begin; b < bs.end; ++b) *to++ = G[b * d.out_n + (o + r) * d.out_c + p * d.out_p];
                    few_examples_of<T>(rows.size(), bs.size())(weights(o, at.row[p - ps.begin]), step, given, s.row, s.pitch,
                                                               k == 0,
                                                               patches + ((p - ps.begin) * examples + bs.begin) * s.pitch);
                }
        }
        for (int64_t p = ps.begin; p < ps.end; ++p)
            for (int64_t b = 0; b < examples; ++b)
                scatter_patch(d, patches + ((p - ps.begin) * examples + b) * s.pitch,
                              sums + (b * s.inputs + g * d.ins) * channel + at.base[p - ps.begin] - slab.low, channel);
    }

    void part_of(int64_t t, T* sums, char* mine) const {
        const Slab slab = slab_of<T>(d, s, t);
        __builtin_memset(static_cast<void*>(sums), 0, size_t(slab_elements<T>(s, slab)) * sizeof(T));
        const Range all = part(d.positions, t, s.parts);
        const int64_t items = ceil_div(all.size(), place);
        for (int64_t k = 0; k < items; ++k) {
            Range ps{all.begin + k * place, min(all.end, all.begin + (k + 1) * place)};
            const Places at(d, ps);
            for (int64_t g = 0; g < d.groups; ++g) {
                if (s.wide) wide(ps, at, g, slab, sums, reinterpret_cast<T*>(mine));
                else few_examples(ps, at, g, slab, sums, reinterpret_cast<T*>(mine));
            }
        }
    }

    // Channel c of the block of examples that starts with b, all parts added up.
    void channel_of(int64_t b, int64_t c, const T* const sums, const T* bias, T* out) const {
        const int64_t have = min(s.deep, examples - b), block = b / s.deep;
        const T plus = bias ? bias[c] : T(0);
        for (int64_t e = 0; e < have; ++e)
            for (int64_t z = 0; z < d.space[0]; ++z)
                for (int64_t y = 0; y < d.space[1]; ++y) {
                    T* row = out + (b + e) * d.in_n + c * d.in_c + z * d.in[0] + y * d.in[1];
                    for (int64_t x = 0; x < d.space[2]; ++x) row[x * d.in[2]] = plus;
                }
        const T* from = sums;
        for (int64_t t = 0; t < s.parts; ++t) {
            const Slab slab = slab_of<T>(d, s, t);
            unstage_channel(d, from + (block * s.inputs + c) * slab.channel, slab.low, slab.high, s.deep, have,
                            out + b * d.in_n + c * d.in_c);
            from += slab_elements<T>(s, slab);
        }
    }
};

template <class T> int64_t sums_bytes(const Unshared& d, const Shape& s) {
    int64_t elements = 0;
    for (int64_t t = 0; t < s.parts; ++t) elements += slab_elements<T>(s, slab_of<T>(d, s, t));
    return bytes_of(elements, sizeof(T));
}

template <class T> int64_t own_bytes(const Unshared& d, const Shape& s) {
    int64_t place = place_of<T>(d, s);
    return bytes_of(s.wide ? s.blocks * wide_rows(s) * place * kLanes<T> : place * min(d.cut, d.batch) * s.pitch + kLanes<T>,
                    sizeof(T));
}

template <class T> void run(const Unshared& d, const T* K, const T* G, const T* bias, T* out, char* scratch) {
    const Shape s = shape_of<T>(d);
    T* sums = reinterpret_cast<T*>(scratch);
    char* own = scratch + sums_bytes<T>(d, s);
    const int64_t each = own_bytes<T>(d, s), threads = d.threads;
    for (int64_t first = 0; first < d.batch; first += d.cut) {
        const int64_t examples = min(d.cut, d.batch - first), blocks = ceil_div(examples, s.deep);
        const Run_h<T> r{d, s, place_of<T>(d, s), K, G + first * d.out_n, examples};
#pragma omp parallel num_threads(threads) if (threads > 1 && !d.forked)
        {
#pragma omp for schedule(static, 1)
            for (int64_t t = 0; t < s.parts; ++t) {
                T* mine = sums;
                for (int64_t u = 0; u < t; ++u) mine += slab_elements<T>(s, slab_of<T>(d, s, u));
                r.part_of(t, mine, own + this_thread() * each);
            }
#pragma omp for schedule(static)
            for (int64_t k = 0; k < blocks * s.inputs; ++k)
                r.channel_of(k / s.inputs * s.deep, k % s.inputs, sums, bias, out + first * d.in_n);
        }
    }
}

}  // namespace

size_t unshared_backward_data_scratch(const Unshared& d) {
    if (d.type == Type::float64) {
        Shape s = shape_of<double>(d);
        return size_t(sums_bytes<double>(d, s) + d.threads * own_bytes<double>(d, s));
    }
    Shape s = shape_of<float>(d);
    return size_t(sums_bytes<float>(d, s) + d.threads * own_bytes<float>(d, s));
}

void unshared_backward_data(const Unshared& d, const void* K, const void* G, const void* bias, void* out, char* scratch) {
    if (d.type == Type::float64)
        run(d, static_cast<const double*>(K), static_cast<const double*>(G), static_cast<const double*>(bias),
            static_cast<double*>(out), scratch);
    else
        run(d, static_cast<const float*>(K), static_cast<const float*>(G), static_cast<const float*>(bias),
            static_cast<float*>(out), scratch);
}

}  // namespace NINEFOLD_NS
