// Backward_weights by direct summation: for every kernel element, the sum over outputs of gradient times input.
//
// Vectors run along x. Q gradients and B inputs make Q * B products. Each product has an accumulator that stays in a register
// over all rows of a band. Lanes are added up once per band. An item of work is an input channel with up to Q outputs of its
// group.
#include "common/staging.hpp"
#include "common/threads.hpp"
#include "direct/direct.hpp"

namespace NINEFOLD_NS {

namespace {

constexpr int64_t kBand = 20 << 10;
constexpr int kAlone = 9;     // taps at once for a single output
constexpr int kTogether = 3;  // and for up to four

struct Layout {
    Bands bands;
    bool in_place, grad_in_place;
    int64_t q, outs_blocks, items, chunks;
    int64_t pairs;                                        // of channels that have a kernel
    int64_t width;                                        // padded outputs along x of all lines
    int64_t staged, grads, offsets, sums, each, partial;  // bytes
};

template <class T> Layout layout(const Direct& d) {
    Layout s{};
    s.q = d.edges.lists ? d.edges.most : min(d.outs, 4);
    s.outs_blocks = ceil_div(d.outs, s.q);
    for (int64_t l = 0; l < d.n_x; ++l) s.width += round_up(d.x[l].count, kLanes<T>);
    s.in_place = d.in_place && d.type != Type::bfloat16;
    s.grad_in_place = !d.edges.lists && d.n_x == 1 && d.out[2] * d.jump[2] == 1;
    int64_t pitch = round_up(d.staged[2] + kLanes<T>, kLanes<T>);
    int64_t row = pitch * int64_t(sizeof(T)), grad_row = s.width * int64_t(sizeof(T)) * s.q;
    int64_t items = d.edges.lists ? d.edges.lists : d.groups * d.ins * s.outs_blocks;
    s.pairs = d.edges.lists ? d.edges.first[d.edges.lists] : d.groups * d.outs * d.ins;
    int64_t wanted = items < 2 * d.threads ? ceil_div(2 * d.threads, d.batch) : 1;
    s.bands = bands(d, pitch, row + grad_row, kBand, wanted);
    int64_t parts = d.batch * s.bands.n_z * s.bands.n_y;
    s.chunks = items < 2 * d.threads ? min(parts, d.threads) : 1;
    s.items = items * s.chunks;
    s.staged = s.in_place ? 0 : round_up(row * s.bands.staged_z * s.bands.staged_y, 64);
    s.grads = round_up(grad_row * s.bands.z * s.bands.y, 64);
    s.offsets = round_up(d.taps * 8, 64);
    s.sums = round_up(d.taps * s.q * int64_t(sizeof(T)), 64);
    s.each = s.staged + s.grads + s.offsets + s.sums + 4096;
    s.partial = s.chunks > 1 ? round_up(s.pairs * d.taps * int64_t(sizeof(T)), 64) : 0;
    return s;
}

template <class T> struct Sweep {
    const T* in;               // staged, at the first output
    int64_t in_row, in_plane;  // steps per output row and plane
    const T* grad;
    int64_t grad_row, grad_plane, grad_q;
    int64_t rows, planes, count;
    const int64_t* at;
};

template <class T, int Q, int B> void sweep(const Sweep<T>& a, T* sums, int64_t taps) {
    Vec<T> acc[Q][B];
    for (int q = 0; q < Q; ++q)
        for (int b = 0; b < B; ++b) acc[q][b] = broadcast(T(0));
    int64_t at[B];
    for (int b = 0; b < B; ++b) at[b] = a.at[b];
    const int64_t count = a.count, whole = count / kLanes<T> * kLanes<T>, left = count - whole, grad_q = a.grad_q;
    for (int64_t z = 0; z < a.planes; ++z)
        for (int64_t y = 0; y < a.rows; ++y) {
            const T* in = a.in + z * a.in_plane + y * a.in_row;
            const T* grad = a.grad + z * a.grad_plane + y * a.grad_row;
            for (int64_t k = 0; k < whole; k += kLanes<T>, in += kLanes<T>, grad += kLanes<T>) {
                Vec<T> g[Q];
                for (int q = 0; q < Q; ++q) g[q] = load(grad + q * grad_q);
                for (int b = 0; b < B; ++b) {
                    Vec<T> v = load(in + at[b]);
                    for (int q = 0; q < Q; ++q) acc[q][b] += g[q] * v;
                }
            }
            if (left) {
                Vec<T> g[Q];
                for (int q = 0; q < Q; ++q) g[q] = load_first(grad + q * grad_q, left);
                for (int b = 0; b < B; ++b) {
                    Vec<T> v = load_first(in + at[b], left);
                    for (int q = 0; q < Q; ++q) acc[q][b] += g[q] * v;
                }
            }
        }
    for (int q = 0; q < Q; ++q)
        for (int b = 0; b < B; ++b) sums[q * taps + b] += sum<T>(acc[q][b]);
}

template <class T, int Q> void sweep_taps(int64_t b, const Sweep<T>& a, T* sums, int64_t taps) {
    switch (b) {
        case 1: return sweep<T, Q, 1>(a, sums, taps);
        case 2: return sweep<T, Q, 2>(a, sums, taps);
        case 3: return sweep<T, Q, 3>(a, sums, taps);
        case 4: return sweep<T, Q, Q == 1 ? 4 : 1>(a, sums, taps);
        case 5: return sweep<T, Q, Q == 1 ? 5 : 1>(a, sums, taps);
        case 6: return sweep<T, Q, Q == 1 ? 6 : 1>(a, sums, taps);
        case 7: return sweep<T, Q, Q == 1 ? 7 : 1>(a, sums, taps);
        case 8: return sweep<T, Q, Q == 1 ? 8 : 1>(a, sums, taps);
        default: return sweep<T, Q, Q == 1 ? kAlone : 1>(a, sums, taps);
    }
}

template <class T, class S> class BackwardWeights {
public:
    BackwardWeights(const Direct& direct, const void* in, const void* grad, void* weight, char* scratch)
        : d(direct), s(layout<T>(direct)), in(static_cast<const S*>(in)), grad(static_cast<const S*>(grad)),
          weight(static_cast<S*>(weight)), scratch(scratch) {
        in_place = s.in_place;
        grad_in_place = Same<T, S>::value && s.grad_in_place;
    }

    void run() {
        int64_t n = min(d.threads, s.items), parts = d.batch * s.bands.n_z * s.bands.n_y;
        char* partial = scratch + s.each * n;
        int64_t per_chunk = s.partial / int64_t(sizeof(T));
#pragma omp parallel num_threads(n) if (n > 1)
        {
            char* mine = scratch + s.each * this_thread();
#pragma omp for schedule(dynamic, omp_chunk(s.items, n))
            for (int64_t k = 0; k < s.items; ++k) {
                int64_t chunk = k % s.chunks;
                T* to = s.chunks > 1 ? reinterpret_cast<T*>(partial) + chunk * per_chunk : nullptr;
                item(k / s.chunks, parts * chunk / s.chunks, parts * (chunk + 1) / s.chunks, to, mine);
            }
            if (s.chunks > 1) {
#pragma omp for schedule(static)
                for (int64_t k = 0; k < s.pairs; ++k) {
                    T* sums = reinterpret_cast<T*>(partial) + k * d.taps;
                    for (int64_t chunk = 1; chunk < s.chunks; ++chunk)
                        for (int64_t t = 0; t < d.taps; ++t) sums[t] += sums[chunk * per_chunk + t];
                    write(sums, place(k));
                }
            }
        }
    }

private:
    // An input channel, and what it is multiplied with: q outputs, whose pairs are `pair_stride` apart.
    struct Block {
        int64_t input, q, outputs[4], pair, pair_stride;
    };

    Block block(int64_t k) const {
        Block b{};
        if (d.edges.lists) {
            b.pair = d.edges.first[k], b.pair_stride = 1, b.input = d.edges.shared[k];
            b.q = d.edges.first[k + 1] - b.pair;
            for (int64_t j = 0; j < b.q; ++j) b.outputs[j] = d.edges.channel[b.pair + j];
            return b;
        }
        int64_t i = k % d.ins, o = k / d.ins % s.outs_blocks * s.q, g = k / d.ins / s.outs_blocks;
        b.input = g * d.ins + i, b.q = min(s.q, d.outs - o), b.pair = (g * d.outs + o) * d.ins + i, b.pair_stride = d.ins;
        for (int64_t j = 0; j < b.q; ++j) b.outputs[j] = g * d.outs + o + j;
        return b;
    }

    // Where the kernel of a pair lies in the weight.
    int64_t place(int64_t pair) const {
        if (d.edges.lists) return d.edges.place[pair];
        return pair / d.ins / d.outs * d.w_group + pair / d.ins % d.outs * d.w_out + pair % d.ins * d.w_in;
    }

    void item(int64_t k, int64_t from, int64_t until, T* partial, char* mine) {
        const Block b = block(k);
        T* sums = reinterpret_cast<T*>(mine + s.staged + s.grads + s.offsets);
        for (int64_t t = 0; t < d.taps * b.q; ++t) sums[t] = 0;
        for (int64_t part = from; part < until; ++part) band(part, b, sums, mine);
        for (int64_t j = 0; j < b.q; ++j) {
            const int64_t pair = b.pair + j * b.pair_stride;
            if (partial)
                for (int64_t t = 0; t < d.taps; ++t) partial[pair * d.taps + t] = sums[j * d.taps + t];
            else write(sums + j * d.taps, place(pair));
        }
    }

    void write(const T* sums, int64_t place) {
        S* to = weight + place;
        for (int64_t l = 0; l < d.n_x; ++l)
            for (int64_t a = 0; a < d.z.taps; ++a)
                for (int64_t b = 0; b < d.y.taps; ++b)
                    for (int64_t c = 0; c < d.x[l].taps; ++c)
                        narrow(*sums++, to + d.z.weight[a] + d.y.weight[b] + d.x[l].weight[c]);
    }

    void band(int64_t part, const Block& block, T* sums, char* mine) {
        int64_t by = part % s.bands.n_y, bz = part / s.bands.n_y % s.bands.n_z, n = part / s.bands.n_y / s.bands.n_z;
        int64_t z0 = bz * s.bands.z, z1 = min(z0 + s.bands.z, d.z.count), y0 = by * s.bands.y,
                y1 = min(y0 + s.bands.y, d.y.count);
        const S* source = in + n * d.in_n + block.input * d.in_c;
        int64_t ys, zs;
        const T* staged = stage(source, z0, y0, reinterpret_cast<T*>(mine), zs, ys);
        const S* given = grad + n * d.out_n;
        const int64_t q = block.q;
        T* grads = reinterpret_cast<T*>(mine + s.staged);
        int64_t* at = reinterpret_cast<int64_t*>(mine + s.staged + s.grads);
        Sweep<T> a;
        a.in = staged;
        a.in_row = d.step[1] * ys;
        a.in_plane = d.step[0] * zs;
        a.rows = y1 - y0;
        a.planes = z1 - z0;
        if (!grad_in_place) stage_grads(given, block, z0, z1, y0, y1, grads);
        int64_t before = 0;
        for (int64_t l = 0; l < d.n_x; ++l) {
            const Line& x = d.x[l];
            int64_t taps = 0;
            for (int64_t b = 0; b < d.z.taps; ++b)
                for (int64_t c = 0; c < d.y.taps; ++c)
                    for (int64_t e = 0; e < x.taps; ++e) at[taps++] = d.z.at[b] * zs + d.y.at[c] * ys + x.at[e];
            a.count = x.count;
            if constexpr (Same<T, S>::value) {
                if (grad_in_place) {
                    a.grad = given + block.outputs[0] * d.out_c + (d.z.first + z0 * d.jump[0]) * d.out[0] +
                             (d.y.first + y0 * d.jump[1]) * d.out[1] + x.first * d.out[2];
                    a.grad_row = d.jump[1] * d.out[1];
                    a.grad_plane = d.jump[0] * d.out[0];
                    a.grad_q = d.out_c;
                }
            }
            if (!grad_in_place) {
                a.grad = grads;
                a.grad_row = s.width;
                a.grad_plane = s.width * (y1 - y0);
                a.grad_q = s.width * (y1 - y0) * (z1 - z0);
                grads += round_up(x.count, kLanes<T>);
            }
            sweep_line(q, taps, at, a, sums + before);
            before += taps;
        }
    }

    // All taps of a line, up to kAlone or kTogether of them at once.
    void sweep_line(int64_t q, int64_t taps, const int64_t* at, Sweep<T>& a, T* sums) const {
        int64_t most_taps = q == 1 ? kAlone : kTogether;
        for (int64_t t = 0; t < taps;) {
            int64_t b = balanced_chunk(taps - t, most_taps);
            a.at = at + t;
            T* to = sums + t;
            switch (q) {
                case 1: sweep_taps<T, 1>(b, a, to, d.taps); break;
                case 2: sweep_taps<T, 2>(b, a, to, d.taps); break;
                case 3: sweep_taps<T, 3>(b, a, to, d.taps); break;
                default: sweep_taps<T, 4>(b, a, to, d.taps); break;
            }
            t += b;
        }
    }

    const T* stage(const S* source, int64_t z0, int64_t y0, T* to, int64_t& zs, int64_t& ys) {
        int64_t z = z0 * d.step[0], y = y0 * d.step[1];
        if constexpr (Same<T, S>::value) {
            if (in_place) {
                zs = d.in[0];
                ys = d.in[1];
                return source + d.source[0][z] * d.in[0] + d.source[1][y] * d.in[1] + d.runs[0].from;
            }
        }
        ys = s.bands.pitch;
        zs = ys * s.bands.staged_y;
        int64_t rows_z = min(s.bands.staged_z, d.staged[0] - z), rows_y = min(s.bands.staged_y, d.staged[1] - y);
        Stager<T, S>(d).plane(to, source, z, y, rows_z, rows_y, zs, ys, false);
        return to;
    }

    // [q][z][y][lines, each padded to whole vectors]; what pads is never read.
    void stage_grads(const S* given, const Block& block, int64_t z0, int64_t z1, int64_t y0, int64_t y1, T* to) {
        int64_t hop = d.jump[2] * d.out[2];
        for (int64_t j = 0; j < block.q; ++j)
            for (int64_t z = z0; z < z1; ++z)
                for (int64_t y = y0; y < y1; ++y, to += s.width) {
                    const S* row = given + block.outputs[j] * d.out_c + (d.z.first + z * d.jump[0]) * d.out[0] +
                                   (d.y.first + y * d.jump[1]) * d.out[1];
                    T* line = to;
                    for (int64_t l = 0; l < d.n_x; ++l) {
                        const S* f = row + d.x[l].first * d.out[2];
                        for (int64_t k = 0; k < d.x[l].count; ++k) line[k] = wide(f[k * hop]);
                        line += round_up(d.x[l].count, kLanes<T>);
                    }
                }
    }

    const Direct& d;
    Layout s;
    const S *in, *grad;
    S* weight;
    char* scratch;
    bool in_place, grad_in_place;
};

template <class T> size_t scratch_of(const Direct& d) {
    Layout s = layout<T>(d);
    return size_t(s.each * min(d.threads, s.items) + s.partial * s.chunks);
}

}  // namespace

size_t planar_backward_weights_scratch(const Direct& d) {
    return d.type == Type::float64 ? scratch_of<double>(d) : scratch_of<float>(d);
}

void planar_backward_weights(const Direct& d, const void* in, const void* grad, void* weight, char* scratch) {
    switch (d.type) {
        case Type::float32: return BackwardWeights<float, float>(d, in, grad, weight, scratch).run();
        case Type::float64: return BackwardWeights<double, double>(d, in, grad, weight, scratch).run();
        case Type::bfloat16: return BackwardWeights<float, BFloat16>(d, in, grad, weight, scratch).run();
    }
}

}  // namespace NINEFOLD_NS
