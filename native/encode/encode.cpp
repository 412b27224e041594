// A block of patches is small enough for what they have in common with the atoms to stay in the L2 cache: it is written there by
// a product, and read once by the encoder. Threads share out images, or parts of them where there are few, and meet only at the
// end.
#include "encode/encode.hpp"
#include "common/gemm.hpp"
#include "common/threads.hpp"

namespace NINEFOLD_NS {
namespace {

constexpr int64_t kL = kLanes<float>, kBlock = 3 << 16;  // lanes; products of a block, at most: 768 KB

struct Layout {
    int64_t patch, width;  // columns of prepared patches and of products, whole panels
    int64_t block;         // patches of a block
    int64_t parts;         // of an image
    size_t thread, total;  // floats of a thread, bytes in all
};

int64_t wide_of(const Encode& d) { return d.code == Code::split ? 2 * d.atoms : d.atoms; }

Layout layout(const Encode& d, int64_t images) {
    Layout l;
    l.patch = round_up(d.values, kPanel<float>), l.width = round_up(d.atoms, kPanel<float>);
    l.parts = images >= 2 * d.threads ? 1 : min(d.rows, d.threads);
    int64_t positions = ceil_div(d.rows, l.parts) * d.columns;
    l.block = max(kRows, min(round_up(positions, kRows), kBlock / l.width / kRows * kRows));
    l.thread =
        l.block * (2 * l.patch + l.width) + round_up(l.block, kL) + round_up(2 * d.regions, kL);  // a pointer is two floats
    size_t sums = l.parts > 1 ? round_up(images * l.parts * d.regions * wide_of(d), kL) : 0;
    l.total = 4 * (l.thread * d.threads + sums);
    return l;
}

// Sums of `count` numbers, and of their squares, in as many parts as a vector has lanes.
NINEFOLD_INLINE float sum_of(const float* x, int64_t count) {
    Vec<float> total{};
    int64_t k = 0;
    for (; k + kL <= count; k += kL) total += load(x + k);
    return sum<float>(Vec<float>(total + load_first(x + k, count - k)));
}
NINEFOLD_INLINE float squares_of(const float* x, int64_t count) {
    Vec<float> total{};
    int64_t k = 0;
    for (; k + kL <= count; k += kL) total += load(x + k) * load(x + k);
    const Vec<float> rest = load_first(x + k, count - k);
    return sum<float>(Vec<float>(total + rest * rest));
}

// Cuts one patch out, and takes brightness, contrast and the mean patch out of it.
void prepare(const Encode& d, const float* image, int64_t y, int64_t x, float* to) {
    const float* from = image + y * d.stride * d.width + x * d.stride;
    float* at = to;
    for (int64_t c = 0; c < d.channels; ++c)
        for (int64_t i = 0; i < d.kernel[0]; ++i) {
            const float* row = from + (c * d.height + i) * d.width;
            for (int64_t j = 0; j < d.kernel[1]; ++j) *at++ = row[j];
        }
    if (d.contrast >= 0) {
        const float middle = sum_of(to, d.values) / float(d.values);
        for (int64_t k = 0; k < d.values; ++k) to[k] -= middle;
        const float scale = 1 / __builtin_sqrtf(squares_of(to, d.values) / float(max(1, d.values - 1)) + d.contrast);
        for (int64_t k = 0; k < d.values; ++k) to[k] *= scale;
    }
    for (int64_t k = 0; k < d.values; ++k) to[k] -= d.mean[k];
}

// c (count, columns) = a (count, values) * packed b.
void multiply(const float* a, int64_t lda, int64_t count, int64_t values, const float* b, int64_t columns, float* c) {
    const int64_t none = 0;
    const Segments over{&none, 1, values};
    for (int64_t j = 0; j < columns; j += kPanel<float>, b += values * kPanel<float>)
        for (int64_t i = 0; i < count; i += kRows) {
            int64_t row[kRows];
            for (int k = 0; k < kRows; ++k) row[k] = (i + k) * lda;
            product_of<float>(min(kRows, count - i), kVectors, a, row, over, b, c + i * columns + j, columns, false);
        }
}

NINEFOLD_INLINE Vec<float> root(Vec<float> x) {
#if defined(NINEFOLD_AVX512)
    // an estimate of 14 bits and a step of Newton's: as exact as a float, in a third of the time; 0 stays 0
    const __m512 r = _mm512_rsqrt14_ps(_mm512_max_ps(x, _mm512_set1_ps(1e-30f))), g = _mm512_mul_ps(x, r);
    return Vec<float>(_mm512_fmadd_ps(_mm512_fnmadd_ps(g, r, _mm512_set1_ps(1)), _mm512_mul_ps(g, _mm512_set1_ps(0.5f)), g));
#else
    Vec<float> y;
    for (int k = 0; k < kL; ++k) y[k] = __builtin_sqrtf(x[k]);
    return y;
#endif
}

// Adds a row of code to the sums of every region that the position lies in.
struct Sums {
    float** at;
    int64_t count = 0;
    NINEFOLD_INLINE void add(int64_t k, int64_t left, Vec<float> v) const {
        for (int64_t q = 0; q < count; ++q) {
            float* to = at[q] + k;
            if (left >= kL) store(to, Vec<float>(load(to) + v));
            else store_first(to, Vec<float>(load_first(to, left) + v), left);
        }
    }
};

void triangle(const Encode& d, float* z, float energy, const Sums& to) {
    Vec<float> total{};
    const Vec<float> zero{}, two = broadcast(2.0f), more = broadcast(energy);
    for (int64_t k = 0; k < d.atoms; k += kL) {
        const int64_t left = d.atoms - k;
        Vec<float> norms = left >= kL ? load(d.norms + k) : load_first(d.norms + k, left);
        Vec<float> far = root(larger(Vec<float>(norms + more - two * load(z + k)), zero));
        store(z + k, far);
        total += left >= kL ? far : masked<float>(far, first<float>(left));
    }
    const Vec<float> middle = broadcast(sum<float>(total) / float(d.atoms));
    for (int64_t k = 0; k < d.atoms; k += kL) to.add(k, d.atoms - k, larger(Vec<float>(middle - load(z + k)), zero));
}

void hard(const Encode& d, const float* z, float energy, const Sums& to) {
    int64_t nearest = 0;
    float least_far = 0;
    for (int64_t k = 0; k < d.atoms; ++k) {
        const float square = d.norms[k] + energy - 2 * z[k], far = square > 0 ? square : 0;
        if (k == 0 || far < least_far) nearest = k, least_far = far;
    }
    for (int64_t q = 0; q < to.count; ++q) to.at[q][nearest] += 1;
}

void soft(const Encode& d, const float* z, const Sums& to) {
    const Vec<float> zero{}, alpha = broadcast(d.alpha);
    for (int64_t k = 0; k < d.atoms; k += kL) to.add(k, d.atoms - k, larger(Vec<float>(load(z + k) - alpha), zero));
    if (d.code != Code::split) return;
    for (int64_t k = 0; k < d.atoms; k += kL)
        to.add(d.atoms + k, d.atoms - k, larger(Vec<float>(zero - load(z + k) - alpha), zero));
}

void encode_one(const Encode& d, float* z, float energy, const Sums& to) {
    if (d.code == Code::triangle) triangle(d, z, energy, to);
    else if (d.code == Code::hard) hard(d, z, energy, to);
    else soft(d, z, to);
}

// Rows [top, bottom) of one image into sums that nothing else writes to meanwhile.
void rows_of(const Encode& d, const Layout& l, const float* image, int64_t top, int64_t bottom, float* sums, float* memory) {
    float *patches = memory, *white = patches + l.block * l.patch, *z = white + l.block * l.patch,
          *energy = z + l.block * l.width;
    float** at = reinterpret_cast<float**>(energy + round_up(l.block, kL));
    const int64_t wide = wide_of(d), end = bottom * d.columns;
    for (int64_t k = 0; k < d.regions * wide; ++k) sums[k] = 0;
    for (int64_t p = top * d.columns; p < end; p += l.block) {
        const int64_t count = min(l.block, end - p);
        for (int64_t k = 0; k < count; ++k) prepare(d, image, (p + k) / d.columns, (p + k) % d.columns, patches + k * l.patch);
        const float* ready = patches;
        if (d.matrix) {
            multiply(patches, l.patch, count, d.values, d.matrix, l.patch, white);
            ready = white;
        }
        for (int64_t k = 0; k < count; ++k) energy[k] = squares_of(ready + k * l.patch, d.values);
        multiply(ready, l.patch, count, d.values, d.dictionary, l.width, z);
        for (int64_t k = 0; k < count; ++k) {
            const int64_t y = (p + k) / d.columns, x = (p + k) % d.columns;
            Sums to{at};
            for (int64_t r = 0; r < d.regions; ++r) {
                const int64_t* in = d.region + 4 * r;
                if (y >= in[0] && y < in[1] && x >= in[2] && x < in[3]) at[to.count++] = sums + r * wide;
            }
            if (to.count) encode_one(d, z + k * l.width, energy[k], to);
        }
    }
}

}  // namespace

size_t encode_scratch(const Encode& d, int64_t images) { return layout(d, images).total; }

void encode_run(const Encode& d, int64_t images, const float* in, float* out, char* scratch) {
    const Layout l = layout(d, images);
    float *memory = reinterpret_cast<float*>(scratch), *parts = memory + l.thread * d.threads;
    const int64_t size = d.regions * wide_of(d), items = images * l.parts, n = min(d.threads, items);
#pragma omp parallel for num_threads(n) if (n > 1) schedule(dynamic)
    for (int64_t item = 0; item < items; ++item) {
        const int64_t image = item / l.parts, part = item % l.parts;
        float* sums = (l.parts > 1 ? parts : out) + item * size;
        rows_of(d, l, in + image * d.channels * d.height * d.width, d.rows * part / l.parts, d.rows * (part + 1) / l.parts, sums,
                memory + l.thread * this_thread());
    }
    if (l.parts == 1) return;
    for (int64_t image = 0; image < images; ++image)
        for (int64_t k = 0; k < size; ++k) {
            float total = 0;
            for (int64_t part = 0; part < l.parts; ++part) total += parts[(image * l.parts + part) * size + k];
            out[image * size + k] = total;
        }
}

const EncodeKernels encode = {.panel = kPanel<float>, .scratch = encode_scratch, .run = encode_run};

}  // namespace NINEFOLD_NS
