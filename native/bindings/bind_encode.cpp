// Dictionaries: a plan packs the atoms once and is called with addresses.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>

#include "common/arena.hpp"
#include "common/fork.hpp"
#include "dispatch/isa.hpp"
#include "dispatch/kernels.hpp"
#include "encode/encode.hpp"

namespace nb = nanobind;
using namespace ninefold;

namespace {

using Ints = std::vector<int64_t>;

class EncodePlan {
public:
    // sizes: channels, height, width, kernel height and width, stride, values, atoms; addresses: of the mean (values), of the
    // matrix (values, values) or 0, of the dictionary (atoms, values); numbers: contrast, alpha; regions: four numbers each.
    EncodePlan(const std::string& isa, int code, int64_t threads, const Ints& sizes, const std::vector<uintptr_t>& addresses,
               const std::vector<double>& numbers, const Ints& regions)
        : kernels_(*kernels_named(isa).encode), regions_(regions) {
        Encode& d = encode_;
        d.channels = sizes.at(0), d.height = sizes.at(1), d.width = sizes.at(2);
        d.kernel[0] = sizes.at(3), d.kernel[1] = sizes.at(4), d.stride = sizes.at(5), d.values = sizes.at(6),
        d.atoms = sizes.at(7);
        d.rows = (d.height - d.kernel[0]) / d.stride + 1, d.columns = (d.width - d.kernel[1]) / d.stride + 1;
        d.contrast = float(numbers.at(0)), d.alpha = float(numbers.at(1));
        d.code = Code(code), d.threads = threads, d.regions = int64_t(regions_.size()) / 4;
        auto at = [&](int k) { return reinterpret_cast<const float*>(addresses.at(k)); };
        mean_.assign(at(0), at(0) + d.values);
        if (at(1)) matrix_ = packed(at(1), 1, d.values, d.values, d.values);
        dictionary_ = packed(at(2), d.values, 1, d.values, d.atoms);
        norms_.resize(d.atoms);
        for (int64_t k = 0; k < d.atoms; ++k)
            for (int64_t i = 0; i < d.values; ++i) norms_[k] += at(2)[k * d.values + i] * at(2)[k * d.values + i];
    }
    EncodePlan(const EncodePlan&) = delete;

    void run(int64_t images, uintptr_t in, uintptr_t out) const {
        Encode d = encode_;
        d.mean = mean_.data(), d.matrix = matrix_.empty() ? nullptr : matrix_.data(), d.dictionary = dictionary_.data();
        d.norms = norms_.data(), d.region = regions_.data();
        if (after_fork()) d.threads = 1;
        Scratch scratch(kernels_.scratch(d, images));
        kernels_.run(d, images, reinterpret_cast<const float*>(in), reinterpret_cast<float*>(out), scratch.data());
    }

private:
    // Columns in panels: element (row, column) of the result lies at from[row * down + column * across].
    std::vector<float> packed(const float* from, int64_t across, int64_t down, int64_t rows, int64_t columns) const {
        const int64_t panel = kernels_.panel, panels = (columns + panel - 1) / panel;
        std::vector<float> to(panels * rows * panel, 0.0f);
        for (int64_t p = 0; p < panels; ++p)
            for (int64_t k = 0; k < rows; ++k)
                for (int64_t j = 0; j < std::min(panel, columns - p * panel); ++j)
                    to[(p * rows + k) * panel + j] = from[k * down + (p * panel + j) * across];
        return to;
    }

    const EncodeKernels& kernels_;
    Encode encode_;
    Ints regions_;
    std::vector<float> mean_, matrix_, dictionary_, norms_;
};

}  // namespace

void bind_encode(nb::module_& m) {
    nb::class_<EncodePlan>(m, "EncodePlan", "Patches of images compared with a dictionary, encoded, and summed over regions.")
        .def(nb::init<const std::string&, int, int64_t, const Ints&, const std::vector<uintptr_t>&, const std::vector<double>&,
                      const Ints&>())
        .def("run", &EncodePlan::run, nb::call_guard<nb::gil_scoped_release>());
}
