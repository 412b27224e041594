"""Other libraries, forward only. An adapter has a ``NAME``, ``load()`` and ``prepare(spec, form, x, weight) -> run``.

``load`` raises ImportError where the library is missing; ``prepare`` raises `Refused` with a sentence where it has no
such convolution. What is converted before the clock starts is converted for free.
"""

from ninefold.spec import ChannelTable, ConvSpec, Form

__all__ = ["Refused", "plain_pads"]


class Refused(Exception):  # noqa: N818  a sentence, not a failure
    """A library lacks a convolution; the message says which part of it."""


def plain_pads(spec: ConvSpec, form: Form) -> list[tuple[int, int]]:
    """Return zero pads per axis of a shared convolution between channel groups, or refuse the rest in words."""
    if isinstance(form.channels, ChannelTable):
        raise Refused("it has no channel tables")
    if form.tiled:
        raise Refused("it shares one kernel over all positions")
    if form.mode != "zeros":
        raise Refused(f"it has no {form.mode} border")
    if spec.transposed:
        raise Refused("transposed convolutions are not compared here")
    if form.flip:
        raise Refused("flipped kernels are not compared here")
    return [(lo, hi) for lo, hi in spec.pads(form.n_in)]
