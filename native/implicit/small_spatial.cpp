// Gradients where there are few positions and the weight is the large operand: it is passed once, in its own order, a few rows at
// a time, and nothing of it is copied. Its row of one output channel has the elements n = input * w_in + tap * w_tap.
//
//   h: spread[q][n] = sum over outputs o of G[o][q] K[o][n], then every input position sums what its taps spread;
//   g: D[o][n] = sum over positions q of G[o][q] x (what q reads under n).
#include "common/threads.hpp"
#include "implicit/product.hpp"

namespace NINEFOLD_NS {
namespace {

constexpr int64_t kTogether = 16;  // rows of the weight that are passed side by side: as many streams as a processor follows

template <class T> struct SmallSpatial {
    static constexpr int L = kLanes<T>, W = kPanel<T>;

    const Implicit& p;
    bool weights;
    int64_t n_taps, ins, outs, row, wide;  // channels of the form itself; elements of a row, and between rows beside it
    int64_t step_in;                       // between inputs in a row
    int64_t reads, each, count;            // positions of the input's image, of the output's, of all outputs

    SmallSpatial(const Implicit& plan, bool g) : p(plan), weights(g) {
        n_taps = taps(p);
        ins = g ? p.ins : p.outs, outs = g ? p.outs : p.ins;
        step_in = g ? p.w_in : p.w_out;
        row = ins * n_taps, wide = round_up(row, W) + W;
        reads = g ? p.seen : positions(p), each = g ? positions(p) : p.seen, count = p.batch * each;
    }

    int64_t tap(int64_t t) const { return (p.flip ? n_taps - 1 - t : t) * p.w_tap; }
    int64_t left_size() const { return round_up(round_up(weights ? outs : count, kRows) * (weights ? count : outs), 64); }
    int64_t tail_size() const { return round_up(outs * W, 64); }
    size_t scratch() const { return size_t(left_size() + tail_size() + round_up(count * wide, 64)) * sizeof(T); }

    // The position in the image that written position `at` (of the first operand's grid) reads under a tap, or -1.
    int64_t under(int64_t at, int64_t t) const {
        const ImplicitAxis &az = p.axis[0], &ay = p.axis[1], &ax = p.axis[2];
        const int64_t x = at % ax.size, y = at / ax.size % ay.size, z = at / ax.size / ay.size;
        const int64_t sx = ax.under(t % ax.taps, x), sy = ay.under(t / ax.taps % ay.taps, y),
                      sz = az.under(t / ax.taps / ay.taps, z);
        return sx < 0 || sy < 0 || sz < 0 ? -1 : sz * p.in[0] + sy * p.in[1] + sx * p.in[2];
    }

    void backward_data(const T* G, const T* K, const T* bias, T* out, T* scratch) const {
        T *left = scratch, *tail = left + left_size(), *spread = tail + tail_size();
        const int64_t whole = row / W * W, panels = whole / W, parts = min(p.threads, max(1, panels));
        const T none[W] = {}, *zeros = none;
#pragma omp parallel num_threads(p.threads) if (p.threads > 1)
        for (int64_t g = 0; g < p.groups; ++g) {
            const T *from = G + g * outs * p.in_c, *k = K + g * p.w_group;
#pragma omp for schedule(static)
            for (int64_t o = 0; o < outs; ++o) {
                for (int64_t q = 0; q < round_up(count, kRows); ++q)
                    left[(q / kRows * outs + o) * kRows + q % kRows] =
                        q < count ? from[o * p.in_c + q / each * p.in_n + q % each * p.in[2]] : T(0);
                for (int64_t l = 0; l < W; ++l) tail[o * W + l] = whole + l < row ? k[o * row + whole + l] : T(0);
            }
#pragma omp for schedule(static)
            for (int64_t part = 0; part < parts; ++part) {
                const int64_t begin = panels * part / parts,
                              end = panels * (part + 1) / parts + (part + 1 == parts && whole < row);
                for (int64_t o = 0; o < outs; o += kTogether)
                    for (int64_t j = begin; j < end; ++j)
                        for (int64_t q = 0; q < count; q += kRows) {
                            const Left<T> a{left + (q / kRows * outs + o) * kRows, nullptr, 0, 0, 1, min(kTogether, outs - o)};
                            T* to = spread + q * wide + j * W;
                            const T* b = j < panels ? k + o * row + j * W : tail + o * W;
                            tile_of<T>(count - q, kVectors, a, b, j < panels ? row : W, o == 0 ? zeros : to, o == 0 ? 0 : wide,
                                       to, wide, -T(__builtin_inf()));
                        }
            }
#pragma omp for schedule(static)
            for (int64_t at = 0; at < p.batch * reads; ++at) {
                T* to = out + at / reads * p.out_n + at % reads * p.out_p + g * ins * p.out_c;
                for (int64_t i = 0; i < ins; ++i) to[i * p.out_c] = bias == nullptr ? T(0) : bias[g * ins + i];
                for (int64_t t = 0; t < n_taps; ++t) {
                    const int64_t q = under(at % reads, t);
                    if (q < 0) continue;
                    const T* fed = spread + (at / reads * each + q / p.in[2]) * wide + tap(t);
                    for (int64_t i = 0; i < ins; ++i) to[i * p.out_c] += fed[i * step_in];
                }
                for (int64_t i = 0; i < ins; ++i)
                    if (to[i * p.out_c] < T(p.floor)) to[i * p.out_c] = T(p.floor);
            }
        }
    }

    void backward_weights(const T* V, const T* G, T* D, T* scratch) const {
        T *left = scratch, *columns = left + left_size() + tail_size();
        const int64_t whole = row / L * L;
        const T none[W] = {}, *zeros = none;
#pragma omp parallel num_threads(p.threads) if (p.threads > 1)
        for (int64_t g = 0; g < p.groups; ++g) {
            const T *from = V + g * ins * p.in_c, *up = G + g * outs * p.out_c;
            T* to = D + g * p.w_group;
#pragma omp for schedule(static)
            for (int64_t q = 0; q < count; ++q) {
                T* column = columns + q * wide;
                for (int64_t t = 0; t < n_taps; ++t) {
                    const int64_t at = under(q % each, t);
                    const T* pixel = from + q / each * p.in_n + at;
                    for (int64_t i = 0; i < ins; ++i) column[i * step_in + tap(t)] = at < 0 ? T(0) : pixel[i * p.in_c];
                }
                for (int64_t n = row; n < wide; ++n) column[n] = 0;
                for (int64_t o = 0; o < round_up(outs, kRows); ++o)
                    left[(o / kRows * count + q) * kRows + o % kRows] =
                        o < outs ? up[q / each * p.out_n + q % each * p.out_p + o * p.out_c] : T(0);
            }
#pragma omp for schedule(static)
            for (int64_t o = 0; o < outs; o += kRows) {
                const Left<T> a{left + o * count, nullptr, 0, 0, 1, count};
                const int64_t lines = min(kRows, outs - o);
                for (int64_t n = 0; n < whole; n += W)
                    tile_of<T>(lines, min(kVectors, (whole - n) / L), a, columns + n, wide, zeros, 0, to + o * row + n, row,
                               -T(__builtin_inf()));
                if (whole == row) continue;
                T rest[kRows * L];
                tile_of<T>(lines, 1, a, columns + whole, wide, zeros, 0, rest, L, -T(__builtin_inf()));
                for (int64_t l = 0; l < lines; ++l)
                    for (int64_t n = whole; n < row; ++n) to[(o + l) * row + n] = rest[l * L + n - whole];
            }
        }
    }
};

}  // namespace

size_t small_spatial_scratch(const Implicit& p, bool weights) {
    return p.type == Type::float64 ? SmallSpatial<double>(p, weights).scratch() : SmallSpatial<float>(p, weights).scratch();
}

template <class T> void small_spatial_run_of(const Implicit& p, const void* in, const void* weight, const void* bias, void* out,
                                             char* scratch) {
    SmallSpatial<T>(p, false).backward_data(static_cast<const T*>(in), static_cast<const T*>(weight), static_cast<const T*>(bias),
                                            static_cast<T*>(out), reinterpret_cast<T*>(scratch));
}
template <class T> void small_spatial_backward_weights_of(const Implicit& p, const void* in, const void* grad, void* weight,
                                                          char* scratch) {
    SmallSpatial<T>(p, true).backward_weights(static_cast<const T*>(in), static_cast<const T*>(grad), static_cast<T*>(weight),
                                              reinterpret_cast<T*>(scratch));
}
void small_spatial_run(const Implicit& p, const void* in, const void* weight, const void* bias, void* out, char* scratch) {
    (p.type == Type::float64 ? small_spatial_run_of<double> : small_spatial_run_of<float>)(p, in, weight, bias, out, scratch);
}
void small_spatial_backward_weights(const Implicit& p, const void* in, const void* grad, void* weight, char* scratch) {
    (p.type == Type::float64 ? small_spatial_backward_weights_of<double>
                             : small_spatial_backward_weights_of<float>)(p, in, grad, weight, scratch);
}

}  // namespace NINEFOLD_NS
