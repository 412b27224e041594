// The filter, and mean-field steps in which a point reads its messages, forms its marginals and spreads them at once.
#include "lattice/lattice_core.hpp"

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

template <class R> void filter_block(const Filtering& f, const float* in, float* out, int64_t channels, float* scratch,
                                     const Team& team) {
    const LatticeView& l = f.lattice;
    Values<R> values(l, f.order, f.threads, scratch, team.me == 0);
    alignas(64) float row[R::width] = {};
    for (int64_t b = team.me; b < values.count; b += team.size) {
        float* to = values.of_band(b);
        clear(to, values.apart);
        const Part part(l.points, b, values.count);
        for (int64_t i = part.first; i < part.last; ++i) {
            if (i + kAhead < part.last) ask<R>(l, i + kAhead, to);
            for (int64_t c = 0; c < channels; ++c) row[c] = in[i * f.channels + c];
            spread(l, i, R::from(row), to);
        }
    }
    together(team);
    for (int64_t k = 0; k < values.phases(); ++k) {
        values.phase(k, part_of(team, l.vertices));
        together(team);
    }
    const Part part = part_of(team, l.points);
    for (int64_t i = part.first; i < part.last; ++i) {
        if (i + kAhead < part.last) ask<R>(l, i + kAhead, values.blurred);
        read<R>(l, i, values.blurred).to(row);
        for (int64_t c = 0; c < channels; ++c) out[i * f.channels + c] = row[c];
    }
    together(team);  // the next channels use the same buffers
}

// e^x of x <= 0: 2^n * 2^r, r in [-1/2, 1/2] by its series; below 2^-126 it is zero.
template <class V> NINEFOLD_INLINE V exponential(V x) {
    const V y = x * 1.44269504089f, whole = (y + 12582912.0f) - 12582912.0f, r = (y - whole) * 0.69314718056f;
    V p = 1.0f / 5040 + V{};
    p = p * r + 1.0f / 720, p = p * r + 1.0f / 120, p = p * r + 1.0f / 24, p = p * r + 1.0f / 6, p = p * r + 0.5f,
    p = p * r + 1.0f;
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

// A term's matrix by columns, and what is on its vertices.
template <class R> struct Term {
    PairwiseView view;
    Values<R> values;
    float* columns = nullptr;

    static int64_t size(const PairwiseView& view, int64_t labels, int64_t threads) {
        return Values<R>::size(view.lattice, view.order, threads) + labels * R::width;
    }
    Term() = default;
    Term(const PairwiseView& v, const LatticeView& lattice, int64_t labels, int64_t threads, float* at, bool first)
        : view(v), values(lattice, v.order, threads, at + labels * R::width, first), columns(at) {
        if (!first) return;
        clear(columns, labels * R::width);
        for (int64_t a = 0; a < labels; ++a)
            if (v.matrix)
                for (int64_t b = 0; b < labels; ++b) columns[b * R::width + a] = v.matrix[a * labels + b];
            else columns[a] = v.diagonal[a];
    }

    NINEFOLD_INLINE void add_energies(int64_t i, const float* q, int64_t labels, R& energy) const {
        R message = read<R>(view.lattice, i, values.blurred);
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
    int64_t phases = 0;

    Field(const MeanField& field, float* at, bool first) : f(field), keep(field.begun), count(field.threads) {
        for (int64_t k = 0; k < f.count; ++k) {
            terms[k] = Term<R>(f.terms[k], f.terms[k].lattice, f.labels, f.threads, at, first);
            at += Term<R>::size(f.terms[k], f.labels, f.threads);
            keep = keep || f.terms[k].self;
            const int64_t most = terms[k].values.count, last = terms[k].values.phases();
            count = most < count ? most : count, phases = last > phases ? last : phases;
        }
        for (int64_t k = 0; k < f.count; ++k) terms[k].values.count = count;
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
                    for (int64_t k = 0; k < f.count; ++k)
                        ask<R>(terms[k].view.lattice, i + kAhead, step ? terms[k].values.blurred : terms[k].values.of_band(band));
                R q = R::from(marginal + j * R::width);
                if (step || !f.begun) {
                    R energy = R::from(unary + j * R::width);
                    for (int64_t k = 0; step && k < f.count; ++k)
                        terms[k].add_energies(i, marginal + j * R::width, f.labels, energy);
                    q = softmax(energy);
                    q.to(marginal + j * R::width);
                }
                for (int64_t k = 0; step < f.steps && k < f.count; ++k) {
                    const PairwiseView& view = terms[k].view;
                    spread(view.lattice, i, view.before ? q.times(view.before[i]) : q, terms[k].values.of_band(band));
                }
            }
            if (keep || step == f.steps) untile(marginal, first, n, f.q);
        }
    }

    // The steps of one thread: all wait after the pass, and after each phase of the blurs of all terms.
    void run(const Team& team) {
        for (int64_t step = 0; step <= f.steps; ++step) {
            for (int64_t band = team.me; band < count; band += team.size) {
                for (int64_t k = 0; step < f.steps && k < f.count; ++k)
                    clear(terms[k].values.of_band(band), terms[k].values.apart);
                pass(step, Part(f.points, band, count), band);
            }
            together(team);
            for (int64_t phase = 0; step < f.steps && phase < phases; ++phase) {
                for (int64_t k = 0; k < f.count; ++k)
                    if (phase < terms[k].values.phases())
                        terms[k].values.phase(phase, part_of(team, terms[k].view.lattice.vertices));
                together(team);
            }
        }
    }
};

size_t filter_scratch(const Filtering& f) {
    size_t size = 0;
    with_row(f.channels < kBlock ? f.channels : kBlock,
             [&](auto row) { size = size_t(Values<decltype(row)>::size(f.lattice, f.order, f.threads)) * sizeof(float); });
    return size;
}

void filter(const Filtering& f, char* scratch, const Team& team) {
    for (int64_t c = 0; c < f.channels; c += kBlock) {
        const int64_t n = f.channels - c < kBlock ? f.channels - c : kBlock;
        with_row(n, [&](auto row) {
            filter_block<decltype(row)>(f, f.in + c, f.out + c, n, reinterpret_cast<float*>(scratch), team);
        });
    }
}

size_t field_scratch(const MeanField& f) {
    size_t size = 0;
    with_row(f.labels, [&](auto row) {
        for (int64_t k = 0; k < f.count; ++k)
            size += size_t(Term<decltype(row)>::size(f.terms[k], f.labels, f.threads)) * sizeof(float);
    });
    return size;
}

void field(const MeanField& f, char* scratch, const Team& team) {
    with_row(f.labels, [&](auto row) { Field<decltype(row)>(f, reinterpret_cast<float*>(scratch), team.me == 0).run(team); });
}

}  // namespace

const LatticeKernels lattice = {
    .filter_scratch = filter_scratch, .filter = filter, .field_scratch = field_scratch, .field = field};

}  // namespace NINEFOLD_NS
