// Features of images by a dictionary: every patch prepared, compared with all atoms, encoded, and summed over regions of the
// image.
#pragma once
#include <cstddef>
#include <cstdint>

namespace ninefold {

enum class Code : int32_t { triangle = 0, hard = 1, soft = 2, split = 3 };  // split: soft, of both signs apart

struct Encode {
    int64_t channels = 0, height = 0, width = 0;  // of images, contiguous so
    int64_t kernel[2] = {0, 0}, stride = 1, rows = 0,
            columns = 0;  // of patches: how large, how far apart, how many down and across
    int64_t values = 0, atoms = 0;
    float contrast = -1;                // added to the variance of a patch; below 0 brightness and contrast stay as they are
    const float* mean = nullptr;        // (values): taken off
    const float* matrix = nullptr;      // (values, values), packed; null for none
    const float* dictionary = nullptr;  // (values, atoms), packed
    const float* norms = nullptr;       // (atoms): squared
    Code code = Code::triangle;
    float alpha = 0;  // what soft thresholds take off
    int64_t regions = 0;
    const int64_t* region = nullptr;  // top, bottom, left, right of each, in positions
    int64_t threads = 1;
};

struct EncodeKernels {
    int64_t panel;  // columns of packed operands: to[panel][value][column], zeros behind the last
    size_t (*scratch)(const Encode&, int64_t images);
    // out (images, regions, atoms), or twice the atoms
    void (*run)(const Encode&, int64_t images, const float* in, float* out, char* scratch);
};

}  // namespace ninefold

#ifdef NINEFOLD_ISA  // where kernels are compiled
namespace ninefold::NINEFOLD_ISA {
extern const EncodeKernels encode;
}  // namespace ninefold::NINEFOLD_ISA
#endif
