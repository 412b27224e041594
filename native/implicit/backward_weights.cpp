// Backward_weights as a product summed over positions: D[o][(tap, input)] += G[o][position] x pixels[position][(tap, input)].
//
// Contiguous memory: rows of G are read where they lie, pixels are transposed while they are packed.
// Channels-last memory: both are packed.
#include "common/threads.hpp"
#include "implicit/product.hpp"

namespace NINEFOLD_NS {
namespace {

constexpr int64_t kLong = 256;  // positions of a chunk, about

template <class T> struct BackwardWeights {
    static constexpr int L = kLanes<T>, W = kPanel<T>;

    const Implicit& p;
    int64_t n_taps, each, total, summands, row, share;
    int64_t cuts, together, n_chunks, deep;  // chunks of an image, or images of a chunk; positions of the longest one
    int64_t parts;                           // of the chunks, each summed apart

    explicit BackwardWeights(const Implicit& plan) : p(plan) {
        n_taps = taps(p), each = positions(p), total = p.batch * each;
        summands = n_taps * p.ins, row = round_up(summands, W);
        share = round_up(ceil_div(p.outs, p.split), kRows);
        cuts = together = 1;
        if (p.rows) {
            n_chunks = ceil_div(total, kLong), deep = ceil_div(total, n_chunks), n_chunks = ceil_div(total, deep);
        } else if (each > kLong / 2) {
            deep = ceil_div(each, ceil_div(each, kLong)), cuts = ceil_div(each, deep), n_chunks = p.batch * cuts;
        } else {
            together = min(p.batch, kLong / each), deep = together * each, n_chunks = ceil_div(p.batch, together);
        }
        parts = max(1, min(p.threads / p.split, n_chunks));
    }

    int64_t sums_size() const { return p.groups * p.outs * row; }
    int64_t thread_size() const {
        const int64_t pieces = deep * int64_t(sizeof(Piece)),
                      addresses = (p.rows ? deep : together * share) * int64_t(sizeof(T*));
        return round_up(
            deep * W + (p.rows ? share * deep : 0) + round_up(p.ins, L) + ceil_div(pieces + addresses, int64_t(sizeof(T))), 64);
    }
    size_t scratch() const { return size_t(p.threads * thread_size() + parts * sums_size() + W + 64) * sizeof(T); }

    // What one thread packs, and under which tap it found its pixels last.
    struct Room {
        T *right, *left, *zeros;
        Piece* pieces;
        const T** addresses;
        int64_t tap, count;
    };
    Room room(T* mine) const {
        T* left = mine + deep * W;
        T* zeros = left + (p.rows ? share * deep : 0);
        Piece* pieces = reinterpret_cast<Piece*>(zeros + round_up(p.ins, L));
        for (int64_t i = 0; i < round_up(p.ins, L); ++i) zeros[i] = 0;
        return {mine, left, zeros, pieces, reinterpret_cast<const T**>(pieces + deep), -1, 0};
    }

    // right[position][lane]: the elements that summands [n, n + lanes) read, contiguous memory; zeros in the rest of a vector.
    void pack_columns(Room& r, const T* in, int64_t first, int64_t count, int64_t n, int64_t lanes) const {
        for (int64_t l = 0; l < lanes;) {
            const int64_t t = (n + l) / p.ins, i = (n + l) % p.ins, lanes_here = min(l % L ? 1 : L, min(lanes - l, p.ins - i));
            if (t != r.tap) r.tap = t, r.count = pieces_of(p, t, first, count, r.pieces);
            for (int64_t s = 0; s < r.count; ++s) {
                const Piece& piece = r.pieces[s];
                T* to = r.right + piece.at * W + l;
                if (piece.from < 0) {
                    for (int64_t e = 0; e < piece.count; ++e)
                        for (int64_t k = 0; k < (l % L ? lanes_here : L); ++k) to[e * W + k] = 0;
                } else if (l % L == 0) {
                    gather<T>(in + i * p.in_c + piece.from, p.in_c, lanes_here, piece.step, piece.count, to, W);
                } else {
                    const T* from = in + i * p.in_c + piece.from;
                    for (int64_t e = 0; e < piece.count; ++e) to[e * W] = from[e * piece.step];
                }
            }
            l += lanes_here;
        }
    }

    // The same in channels-last memory.
    void pack_pixels(Room& r, const T* in, int64_t first, int64_t count, int64_t n, int64_t lanes) const {
        for (int64_t e = 0; e < count && lanes % L; ++e) store(r.right + e * W + lanes / L * L, Vec<T>{});
        for (int64_t l = 0; l < lanes;) {
            const int64_t t = (n + l) / p.ins, i = (n + l) % p.ins, lanes_here = min(lanes - l, p.ins - i);
            if (t != r.tap) r.tap = t, pixels_of<T>(p, t, first, count, in, r.zeros, r.addresses);
            T* to = r.right + l;
            if (lanes_here == W) {
                for (int64_t e = 0; e < count; ++e, to += W)
                    for (int v = 0; v < kVectors; ++v) store(to + v * L, load(r.addresses[e] + i + v * L));
            } else {
                for (int64_t e = 0; e < count; ++e, to += W)
                    for (int64_t k = 0; k < lanes_here; ++k) to[k] = r.addresses[e][i + k];
            }
            l += lanes_here;
        }
    }

    // left[tile][position][kRows] of outputs [o, end) out of channels-last G.
    void pack_left(const T* grad, int64_t count, int64_t o, int64_t end, T* to) const {
        for (int64_t k = o; k < end; k += kRows) {
            const int64_t lines = min(kRows, end - k);
            const T* from = grad + k;
            for (int64_t e = 0; e < count; ++e, from += p.out_p, to += kRows) {
                if (lines == kRows) __builtin_memcpy(to, from, sizeof(T) * kRows);
                else
                    for (int64_t l = 0; l < lines; ++l) to[l] = from[l];
            }
        }
    }

    void sum(const T* in, const T* grad, T* D, int64_t group, int64_t from, int64_t to, int64_t o, int64_t end, T* mine) const {
        Room r = room(mine);
        const T none[W] = {};
        in += group * p.ins * p.in_c, grad += group * p.outs * p.out_c;
        for (int64_t c = from; c < to; ++c) {
            int64_t first, count, segments = 1;
            if (p.rows) {
                first = c * deep, count = min(deep, total - first);
                pack_left(grad + first * p.out_p, count, o, end, r.left);
            } else {
                const int64_t image = c / cuts * together, at = c % cuts * deep;
                segments = min(together, p.batch - image);
                first = image * each + at, count = together > 1 ? segments * each : min(deep, each - at);
                for (int64_t s = 0; s < segments; ++s)
                    for (int64_t k = o; k < end; ++k)
                        r.addresses[s * share + k - o] = grad + (image + s) * p.out_n + k * p.out_c + at;
            }
            r.tap = -1;
            for (int64_t n = 0; n < summands; n += W) {
                const int64_t lanes = min(W, summands - n);
                if (p.rows) pack_pixels(r, in, first, count, n, lanes);
                else pack_columns(r, in, first, count, n, lanes);
                for (int64_t k = o; k < end; k += kRows) {
                    const Left<T> left = p.rows ? Left<T>{r.left + (k - o) * count, nullptr, 0, 0, 1, count}
                                                : Left<T>{nullptr, r.addresses + (k - o), share, 0, segments, count / segments};
                    T* sums = D + k * row + n;
                    tile_of<T>(end - k, ceil_div(lanes, L), left, r.right, W, c == from ? none : sums, c == from ? 0 : row, sums,
                               row, -T(__builtin_inf()));
                }
            }
        }
    }

    void run(const T* in, const T* grad, T* weight, T* scratch) const {
        T* sums = scratch + p.threads * thread_size();
        // vectors are read from any summand on: over the end of a row that is not a whole panel, and of the last row
        const int64_t kept = round_up(summands, L);
        for (int64_t l = 0; l < W; ++l) sums[parts * sums_size() + l] = 0;
        const int64_t jobs = p.groups * parts * p.split;
#pragma omp parallel num_threads(p.threads) if (p.threads > 1)
        {
#pragma omp for schedule(dynamic)
            for (int64_t job = 0; job < jobs; ++job) {
                const int64_t k = job % p.split, part = job / p.split % parts, group = job / p.split / parts;
                const int64_t o = k * share, end = min(p.outs, o + share);
                T* mine = scratch + this_thread() * thread_size();
                if (o < end)
                    sum(in, grad, sums + part * sums_size() + group * p.outs * row, group, n_chunks * part / parts,
                        n_chunks * (part + 1) / parts, o, end, mine);
            }
#pragma omp for schedule(static)
            for (int64_t o = 0; o < p.groups * p.outs; ++o) {
                T* to = weight + o / p.outs * p.w_group + o % p.outs * p.w_out;
                T* from = sums + o * row;
                for (int64_t n = kept; n < row; n += L) store(from + n, Vec<T>{});
                for (int64_t k = 1; k < parts; ++k)
                    for (int64_t n = 0; n < kept; n += L)
                        store(from + n, Vec<T>(load(from + n) + load(from + k * sums_size() + n)));
                for (int64_t i = 0; i < p.ins; i += L) {
                    const int64_t step = p.flip ? -p.ins : p.ins;
                    scatter<T>(p.flip ? from + (n_taps - 1) * p.ins + i : from + i, step, Vec<T>{}, -T(__builtin_inf()),
                               to + i * p.w_in, p.w_in, min(L, p.ins - i), p.w_tap, n_taps);
                }
            }
        }
    }
};

}  // namespace

size_t implicit_backward_weights_scratch(const Implicit& p) {
    return p.type == Type::float64 ? BackwardWeights<double>(p).scratch() : BackwardWeights<float>(p).scratch();
}

void implicit_backward_weights(const Implicit& p, const void* in, const void* grad, void* weight, char* scratch) {
    if (p.type == Type::float64)
        BackwardWeights<double>(p).run(static_cast<const double*>(in), static_cast<const double*>(grad),
                                       static_cast<double*>(weight), reinterpret_cast<double*>(scratch));
    else
        BackwardWeights<float>(p).run(static_cast<const float*>(in), static_cast<const float*>(grad), static_cast<float*>(weight),
                                      reinterpret_cast<float*>(scratch));
}

}  // namespace NINEFOLD_NS
