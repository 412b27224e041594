"""The differentiable operations; a gradient is another map of the same form, planned like everything else.

Two routes lead to the same maps, chosen per call: *thin* for plain eager tensors, *operator* for compilers, torch.func, forward
AD, subclasses and dispatch modes.
"""

from ninefold.ops.call import PlannedCall, trilinear

__all__ = ["PlannedCall", "trilinear"]
