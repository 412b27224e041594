"""The differentiable operations; a gradient is another map of the same form, planned like everything else.

Three routes lead to the same maps, chosen per call: *thin* for plain eager tensors, *operator* for compilers, subclasses and
dispatch modes, *functional* under torch.func and forward-mode AD.
"""

from ninefold.ops.site import Site, trilinear

__all__ = ["Site", "trilinear"]
