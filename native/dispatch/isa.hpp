// Which instruction set runs: the widest that the processor has, or the one that NINEFOLD_ISA names.
#pragma once
#include <string>
#include <vector>

#include "dispatch/kernels.hpp"

namespace ninefold {

// Names that were compiled and that this processor can run, narrowest first.
std::vector<std::string> available();
// Throws std::invalid_argument with both lists where it is not available.
const Kernels& kernels_named(const std::string& name);

}  // namespace ninefold
