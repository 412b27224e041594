// The filter, and mean-field steps in which a point reads its messages, forms its marginals and spreads them at once.
#include "lattice_core.hpp"

namespace NINEFOLD_NS {

namespace {

// Calls what is given with the narrowest row that holds so many channels.
template <class F> NINEFOLD_INLINE void with_row(int64_t channels, F&& call) {
    if (channels <= 4) call(Row<Four, 1>{});
    else if (channels <= 8) call(Row<Eight, 1>{});
    else if (channels <= 16) call(Row<Eight, 2>{});
    else if (channels <= 24) call(Row<Eight, 3>{});
    else if (channels <= 32) call(Row<Eight, 4>{});
    else if (channels <= 48) call(Row<Eight, 6>{});
    else call(Row<Eight, 8>{});
}

constexpr int64_t kBlock = 32;  // channels of a filter at once

NINEFOLD_INLINE int64_t buffers(const LatticeView& l, int64_t threads) {
    const int64_t count = bands(l, threads);
    return count < 2 ? 2 : count;
}

template <class R>
void filter_block(const LatticeView& l, const float* in, float* out, int64_t stride, int64_t channels, bool reversed, int64_t threads, float* values) {
    const int64_t count = bands(l, threads), apart = floats<R>(l);
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int64_t b = 0; b < count; ++b) {
        float* mine = values + b * apart;
        clear(mine, apart);
        alignas(64) float row[R::width] = {};
        const Part part(l.points, b, count);
        for (int64_t i = part.first; i < part.last; ++i) {
            if (i + kAhead < part.last) ask<R>(l, i + kAhead, mine);
            for (int64_t c = 0; c < channels; ++c) row[c] = in[i * stride + c];
            spread(l, i, R::from(row), mine);
        }
    }
    gather_up<R>(l, values, values + apart, count, threads);
    const float* done = blur<R>(l, values, values + apart, reversed, threads);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < l.points; ++i) {
        if (i + kAhead < l.points) ask<R>(l, i + kAhead, done);
        alignas(64) float row[R::width];
        read<R>(l, i, done).to(row);
        for (int64_t c = 0; c < channels; ++c) out[i * stride + c] = row[c];
    }
}

// e^x of x <= 0: 2^n * 2^r, r in [-1/2, 1/2] by its series; below 2^-126 it is zero.
template <class V> NINEFOLD_INLINE V exponential(V x) {
    const V y = x * 1.44269504089f, whole = (y + 12582912.0f) - 12582912.0f, r = (y - whole) * 0.69314718056f;
    V p = 1.0f / 5040 + V{};
    p = p * r + 1.0f / 720, p = p * r + 1.0f / 120, p = p * r + 1.0f / 24, p = p * r + 1.0f / 6, p = p * r + 0.5f, p = p * r + 1.0f;
    p = p * r + 1.0f;
    typedef int32_t I __attribute__((vector_size(sizeof(V))));
    const I n = __builtin_convertvector(whole < -126.0f ? V{} : whole, I);
    return whole < -126.0f ? V{} : p * V((n + 127) << 23);
}

template <class V> NINEFOLD_INLINE V smaller(V a, V b) { return a < b ? a : b; }

// Softmax of minus energies; lanes without a label have kNever.
template <class V, int K> NINEFOLD_INLINE Row<V, K> softmax(const Row<V, K>& energies) {
    constexpr int lanes = int(sizeof(V) / sizeof(float));
    V low = energies.v[0];
    for (int k = 1; k < K; ++k) low = smaller(low, energies.v[k]);
    float least = low[0];
    for (int j = 1; j < lanes; ++j) least = low[j] < least ? low[j] : least;
    Row<V, K> q;
    V sums{};
    for (int k = 0; k < K; ++k) q.v[k] = exponential(least - energies.v[k]), sums += q.v[k];
    float sum = 0;
    for (int j = 0; j < lanes; ++j) sum += sums[j];
    return q.times(1 / sum);
}

constexpr float kNever = 1e30f;
constexpr int64_t kTile = 64;  // points whose energies are turned from planes into rows at once

// A term's matrix by columns, and its buffers: blurred values, which a pass reads, and one per band to spread into.
template <class R> struct Term {
    PairwiseView view;
    float *blurred, *fresh, *others, *columns;

    static int64_t size(const PairwiseView& view, int64_t labels, int64_t threads) {
        const int64_t count = bands(view.lattice, threads);
        return (1 + count) * floats<R>(view.lattice) + labels * R::width;
    }
    Term() = default;
    Term(const PairwiseView& v, int64_t labels, float* at) : view(v) {
        const int64_t apart = floats<R>(v.lattice);
        columns = at, blurred = at + labels * R::width, fresh = blurred + apart, others = fresh + apart;
        clear(columns, labels * R::width);
        for (int64_t a = 0; a < labels; ++a)
            if (v.matrix)
                for (int64_t b = 0; b < labels; ++b) columns[b * R::width + a] = v.matrix[a * labels + b];
            else
                columns[a] = v.diagonal[a];
    }
    float* of_band(int64_t band) const { return band ? others + (band - 1) * floats<R>(view.lattice) : fresh; }

    void blur_up(int64_t count, int64_t threads) {
        gather_up<R>(view.lattice, fresh, others, count, threads);
        if (blur<R>(view.lattice, fresh, blurred, false, threads) == fresh) {
            float* t = fresh;
            fresh = blurred, blurred = t;
        }
    }

    NINEFOLD_INLINE void add_energies(int64_t i, const float* q, int64_t labels, R& energy) const {
        R message = read<R>(view.lattice, i, blurred);
        if (view.self) message.add(R::from(q), -view.self[i] * (view.before ? view.before[i] : 1.0f));
        if (view.after) message = message.times(view.after[i]);
        if (view.matrix) {
            alignas(64) float m[R::width];
            message.to(m);
            for (int64_t b = 0; b < labels; ++b) energy.add(R::from(columns + b * R::width), m[b]);
            return;
        }
        const R diagonal = R::from(columns);
        for (size_t j = 0; j < sizeof(energy.v) / sizeof(energy.v[0]); ++j) energy.v[j] += diagonal.v[j] * message.v[j];
    }
};

template <class R> struct Field {
    const MeanField& f;
    Term<R> terms[kMostTerms];
    bool keep;      // whether marginals are read again: as the start, or to take the self term off
    int64_t count;  // bands: those of the lattice that allows the fewest

    Field(const MeanField& field, float* at) : f(field), keep(field.begun), count(field.threads) {
        for (int64_t k = 0; k < f.count; ++k) {
            terms[k] = Term<R>(f.terms[k], f.labels, at);
            at += Term<R>::size(f.terms[k], f.labels, f.threads);
            keep = keep || f.terms[k].self;
            const int64_t most = bands(f.terms[k].lattice, f.threads);
            count = most < count ? most : count;
        }
    }

    NINEFOLD_INLINE void tile(const float* planes, int64_t first, int64_t n, float* rows) const {
        for (int64_t c = 0; c < f.labels; ++c)
            for (int64_t i = 0; i < n; ++i) rows[i * R::width + c] = planes[c * f.points + first + i];
    }
    NINEFOLD_INLINE void untile(const float* rows, int64_t first, int64_t n, float* planes) const {
        for (int64_t c = 0; c < f.labels; ++c)
            for (int64_t i = 0; i < n; ++i) planes[c * f.points + first + i] = rows[i * R::width + c];
    }

    // One pass over a band of points. Pass 0 makes the first marginals; the last one spreads nothing.
    void pass(int64_t step, const Part& part, int64_t band) const {
        alignas(64) float unary[kTile * R::width], marginal[kTile * R::width];
        for (int64_t k = 0; k < kTile * R::width; ++k) unary[k] = kNever, marginal[k] = 0;
        for (int64_t first = part.first; first < part.last; first += kTile) {
            const int64_t n = first + kTile < part.last ? kTile : part.last - first;
            tile(f.unary, first, n, unary);
            if (keep && (step || f.begun)) tile(f.q, first, n, marginal);
            for (int64_t j = 0; j < n; ++j) {
                const int64_t i = first + j;
                if (i + kAhead < part.last)
                    for (int64_t k = 0; k < f.count; ++k) ask<R>(terms[k].view.lattice, i + kAhead, step ? terms[k].blurred : terms[k].fresh);
                R q = R::from(marginal + j * R::width);
                if (step || !f.begun) {
                    R energy = R::from(unary + j * R::width);
                    for (int64_t k = 0; step && k < f.count; ++k) terms[k].add_energies(i, marginal + j * R::width, f.labels, energy);
                    q = softmax(energy);
                    q.to(marginal + j * R::width);
                }
                for (int64_t k = 0; step < f.steps && k < f.count; ++k) {
                    const PairwiseView& view = terms[k].view;
                    spread(view.lattice, i, view.before ? q.times(view.before[i]) : q, terms[k].of_band(band));
                }
            }
            if (keep || step == f.steps) untile(marginal, first, n, f.q);
        }
    }

    void run() {
        for (int64_t step = 0; step <= f.steps; ++step) {
#pragma omp parallel for num_threads(f.threads) schedule(static, 1)
            for (int64_t band = 0; band < count; ++band) {
                for (int64_t k = 0; step < f.steps && k < f.count; ++k) clear(terms[k].of_band(band), floats<R>(terms[k].view.lattice));
                pass(step, Part(f.points, band, count), band);
            }
            for (int64_t k = 0; step < f.steps && k < f.count; ++k) terms[k].blur_up(count, f.threads);
        }
    }
};

size_t filter_scratch(const LatticeView& l, int64_t channels, int64_t threads) {
    size_t size = 0;
    with_row(channels < kBlock ? channels : kBlock, [&](auto row) { size = size_t(buffers(l, threads) * floats<decltype(row)>(l)) * sizeof(float); });
    return size;
}

void filter(const LatticeView& l, const float* in, float* out, int64_t channels, bool reversed, int64_t threads, char* scratch) {
    for (int64_t c = 0; c < channels; c += kBlock) {
        const int64_t n = channels - c < kBlock ? channels - c : kBlock;
        with_row(n, [&](auto row) { filter_block<decltype(row)>(l, in + c, out + c, channels, n, reversed, threads, reinterpret_cast<float*>(scratch)); });
    }
}

size_t field_scratch(const MeanField& f) {
    size_t size = 0;
    with_row(f.labels, [&](auto row) {
        for (int64_t k = 0; k < f.count; ++k) size += size_t(Term<decltype(row)>::size(f.terms[k], f.labels, f.threads)) * sizeof(float);
    });
    return size;
}

void field(const MeanField& f, char* scratch) {
    with_row(f.labels, [&](auto row) { Field<decltype(row)>(f, reinterpret_cast<float*>(scratch)).run(); });
}

}  // namespace

extern const LatticeKernels lattice;
const LatticeKernels lattice = {.filter_scratch = filter_scratch, .filter = filter, .field_scratch = field_scratch, .field = field};

}  // namespace NINEFOLD_NS
