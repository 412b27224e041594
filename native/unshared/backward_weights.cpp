// Backward_weights of an unshared layer: D[o][k][l] is the sum of G[b][o][p] times the patch of (b, p), over examples and the
// positions of k.
//
// Rows of weights are written once, a few outputs at a time along the positions. Lanes run along the taps, over patches that were
// copied into rows. Positions that share a row come one after another and add to it.
#include "common/threads.hpp"
#include "unshared/unshared_staging.hpp"

namespace NINEFOLD_NS {
namespace {

constexpr int kRows = 4, kVecs = kRegisters == 32 ? 6 : 3;  // outputs, vectors of taps
constexpr int64_t kTile = 256 << 10;                        // bytes of patches of an item
constexpr int64_t kExamples = 16;                           // patches of a position at once

struct Items {
    int64_t place, parts_k, parts_o, count, examples;
};

template <class T> Items items_of(const Unshared& d, const Shape& s) {
    Items k;
    k.examples = min(kExamples, min(d.cut, d.batch));
    k.place = min(kMostPlaces, max(1, kTile / (k.examples * s.pitch * int64_t(sizeof(T)))));
    k.parts_k = ceil_div(d.kernels, k.place);
    k.place = ceil_div(d.kernels, k.parts_k);
    k.parts_o = d.threads > 1 ? min(ceil_div(d.outs, kRows), ceil_div(4 * d.threads, k.parts_k * d.groups)) : 1;
    k.count = k.parts_k * d.groups * k.parts_o;
    return k;
}

template <class T> struct Sums {
    const T *given, *patches;
    int64_t given_r, given_b, pitch, examples;
    T* to;
    int64_t to_r;
    bool add;
};

// R rows of weights, V vectors of their taps from l on. `whole` vectors may be written over what follows them in the row, which
// comes later; the last one of a row must leave alone what is behind it where `room` ends.
template <class T, int R, int V> NINEFOLD_INLINE void taps_of(const Sums<T>& a, int64_t l, int64_t row, int64_t room) {
    constexpr int64_t n = kLanes<T>;
    Vec<T> sums[R][V] = {};
    const T *given = a.given, *patch = a.patches + l;
    // the same taps of the next row, which follows
    for (int r = 0; r < R; ++r)
        for (int u = 0; u < V; u += 64 / kBytes) __builtin_prefetch(a.to + r * a.to_r + l + u * n + row, 1);
    for (int64_t b = 0; b < a.examples; ++b, given += a.given_b, patch += a.pitch) {
        Vec<T> v[V];
        for (int u = 0; u < V; ++u) {
            v[u] = load(patch + u * n);
            NINEFOLD_KEEP(v[u]);
        }
        for (int r = 0; r < R; ++r) {
            Vec<T> w = broadcast(given[r * a.given_r]);
            for (int u = 0; u < V; ++u) sums[r][u] += w * v[u];
        }
    }
    NINEFOLD_UNROLL
    for (int r = 0; r < R; ++r) NINEFOLD_UNROLL
    for (int u = 0; u < V; ++u) {
        T* to = a.to + r * a.to_r + l + u * n;
        int64_t left = row - l - u * n, behind = room - l - u * n;
        if (behind < n) {
            T part[n];
            store(part, sums[r][u]);
            for (int64_t k = 0; k < min(left, n); ++k) to[k] = a.add ? to[k] + part[k] : part[k];
        } else if (a.add) {
            store(to, load(to) + (left < n ? masked<T>(sums[r][u], first<T>(left)) : sums[r][u]));
        } else {
            store(to, sums[r][u]);
        }
    }
}

template <class T, int R> void rows_of(const Sums<T>& a, int64_t row, int64_t room) {
    const int64_t vecs = ceil_div(row, kLanes<T>);
    int64_t u = 0;
    for (; u + kVecs <= vecs; u += kVecs) taps_of<T, R, kVecs>(a, u * kLanes<T>, row, room);
    if constexpr (kVecs > 3)
        for (; u + 3 <= vecs; u += 3) taps_of<T, R, 3>(a, u * kLanes<T>, row, room);
    if (u + 2 <= vecs) {
        taps_of<T, R, 2>(a, u * kLanes<T>, row, room);
        u += 2;
    }
    if (u < vecs) taps_of<T, R, 1>(a, u * kLanes<T>, row, room);
}

template <class T> struct Run_g {
    const Unshared& d;
    const Shape& s;
    const Items& n;
    const T *X, *G;  // G at the first example of the cut
    T* D;
    int64_t examples;
    bool first, whole;  // whole: row k belongs to position k and to no other

    // The j-th position of each of some rows, or -1, and what it reads from.
    struct Jth {
        int64_t position[kMostPlaces], base[kMostPlaces], sharing[kMostPlaces];
    };
    void find(Range ks, int64_t j, Jth& at) const {
        if (whole) {
            int64_t row[kMostPlaces];
            d.places(ks.begin, ks.size(), at.base, row);
        }
        for (int64_t k = 0; k < ks.size(); ++k) {
            at.position[k] = whole ? ks.begin + k : -1;
            if (!whole && j < at.sharing[k]) at.position[k] = d.shared(ks.begin + k, j, at.base[k]);
            else if (!whole) at.base[k] = 0;  // what is read for no position is not used
        }
    }

    void gather(Range ks, const int64_t* base, int64_t g, Range bs, T* patches) const {
        for (int64_t b = bs.begin; b < bs.end; ++b)
            gather_patches(d, X + (b * s.inputs + g * d.ins) * s.channel, s.channel, base, ks.size(), s.row, s.pitch,
                           patches + (b - bs.begin) * n.place * s.pitch);
    }

    // The gradients of a few outputs, dense, so that examples do not meet in the same places of the cache.
    void collect(Range ks, const int64_t* position, int64_t o, int64_t rows, Range bs, T* given) const {
        constexpr int64_t lanes = kLanes<T>;
        const int64_t count = ks.size(), whole_lanes = count / lanes * lanes, rest = count - whole_lanes;
        for (int64_t b = bs.begin; b < bs.end; ++b)
            for (int64_t r = 0; r < rows; ++r) {
                const T* from = G + b * d.out_n + (o + r) * d.out_c;
                T* to = given + (r * bs.size() + b - bs.begin) * given_pitch();
                if (whole && d.out_p == 1) {
                    from += ks.begin;
                    for (int64_t k = 0; k < whole_lanes; k += lanes) store(to + k, load(from + k));
                    if (rest) store(to + whole_lanes, load_some(from + whole_lanes, rest));
                    continue;
                }
                for (int64_t k = 0; k < count; ++k) {
                    if (position[k] >= 0) to[k] = from[position[k] * d.out_p];
                }
            }
    }
    int64_t given_pitch() const { return round_up(n.place, kLanes<T>); }

    void add_products(Range ks, const int64_t* position, int64_t o, int64_t rows, Range bs, bool add, const T* patches,
                      const T* given) const {
        const int64_t step = d.kernels * s.row, given_b = given_pitch();
        for (int64_t k = ks.begin; k < ks.end; ++k) {
            T* to = D + (o * d.kernels + k) * s.row;
            if (position[k - ks.begin] < 0) {
                if (!add)
                    for (int64_t r = 0; r < rows; ++r)
                        for (int64_t l = 0; l < s.row; ++l) to[r * step + l] = 0;
                continue;
            }
            Sums<T> a{given + k - ks.begin,
                      patches + (k - ks.begin) * s.pitch,
                      bs.size() * given_b,
                      given_b,
                      n.place * s.pitch,
                      bs.size(),
                      to,
                      step,
                      add};
            const int64_t room = (ks.end - k) * s.row;
            if (rows == 4) rows_of<T, 4>(a, s.row, room);
            else if (rows == 3) rows_of<T, 3>(a, s.row, room);
            else if (rows == 2) rows_of<T, 2>(a, s.row, room);
            else rows_of<T, 1>(a, s.row, room);
        }
    }

    void item(int64_t q, char* mine) const {
        Range os = part(d.outs, q % n.parts_o, n.parts_o);
        int64_t g = q / n.parts_o % d.groups, first_k = q / n.parts_o / d.groups * n.place;
        Range ks{first_k, min(d.kernels, first_k + n.place)};
        int64_t shared = 1;
        Jth at;
        for (int64_t k = 0; k < ks.size() && !whole; ++k) shared = max(shared, at.sharing[k] = d.sharing(ks.begin + k));
        T* patches = reinterpret_cast<T*>(mine);
        T* given = patches + n.place * n.examples * s.pitch + kLanes<T>;
        const int64_t parts_b = ceil_div(examples, n.examples), parts = ceil_div(os.size(), kRows);
        bool add = !first;
        for (int64_t j = 0; j < shared; ++j) {
            find(ks, j, at);
            for (int64_t h = 0; h < parts_b; ++h, add = true) {
                Range bs = part(examples, h, parts_b);
                gather(ks, at.base, g, bs, patches);
                for (int64_t k = 0; k < parts; ++k) {
                    Range rows = part(os.size(), k, parts);
                    int64_t o = g * d.outs + os.begin + rows.begin;
                    collect(ks, at.position, o, rows.size(), bs, given);
                    add_products(ks, at.position, o, rows.size(), bs, add, patches, given);
                }
            }
        }
    }
};

template <class T> int64_t staged_bytes(const Shape& s) {
    return bytes_of(s.blocks * s.inputs * s.channel + kLanes<T>, sizeof(T));
}

template <class T> int64_t own_bytes(const Unshared& d, const Shape& s) {
    Items n = items_of<T>(d, s);
    return bytes_of(n.place * n.examples * s.pitch + kLanes<T> + kRows * n.examples * round_up(n.place, kLanes<T>), sizeof(T));
}

template <class T> void run(const Unshared& d, const T* V, const T* G, T* D, char* scratch) {
    const Shape s = shape_of<T>(d);
    const Items n = items_of<T>(d, s);
    T* X = reinterpret_cast<T*>(scratch);
    char* own = scratch + staged_bytes<T>(s);
    const int64_t each = own_bytes<T>(d, s), threads = d.threads;
    const bool whole = d.period[0] == d.outputs[0] && d.period[1] == d.outputs[1] && d.period[2] == d.outputs[2];
    for (int64_t first = 0; first < d.batch; first += d.cut) {
        const int64_t examples = min(d.cut, d.batch - first);
        const Run_g<T> r{d, s, n, X, G + first * d.out_n, D, examples, first == 0, whole};
#pragma omp parallel num_threads(threads) if (threads > 1 && !d.forked)
        {
#pragma omp for schedule(static)
            for (int64_t k = 0; k < examples * s.inputs; ++k)
                stage_channel(d, V + (first + k / s.inputs) * d.in_n + k % s.inputs * d.in_c, 1, 1, X + k * s.channel);
#pragma omp for schedule(static)
            for (int64_t k = 0; k < n.count; ++k) r.item(k, own + this_thread() * each);
        }
    }
}

}  // namespace

size_t unshared_backward_weights_scratch(const Unshared& d) {
    if (d.type == Type::float64) {
        Shape s = shape_of<double>(d);
        return size_t(staged_bytes<double>(s) + d.threads * own_bytes<double>(d, s));
    }
    Shape s = shape_of<float>(d);
    return size_t(staged_bytes<float>(s) + d.threads * own_bytes<float>(d, s));
}

void unshared_backward_weights(const Unshared& d, const void* V, const void* G, void* D, char* scratch) {
    if (d.type == Type::float64)
        run(d, static_cast<const double*>(V), static_cast<const double*>(G), static_cast<double*>(D), scratch);
    else run(d, static_cast<const float*>(V), static_cast<const float*>(G), static_cast<float*>(D), scratch);
}

}  // namespace NINEFOLD_NS
