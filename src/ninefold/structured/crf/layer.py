"""The fully connected CRF of Kraehenbuehl and Koltun (2011) as a layer."""

import sys
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn

from ninefold.errors import ArgumentError, DTypeError, ShapeError
from ninefold.structured.crf.exact import ExactFilter
from ninefold.structured.crf.field import Term, mean_field, normalization_named
from ninefold.structured.crf.kernels import FeatureKernel, GaussianKernel, PairwiseKernel, positions
from ninefold.structured.crf.lattice import Blur, LatticeFilter, blur_named
from ninefold.structured.crf.room import FEWER, exact_bytes, lattice_bytes, vertices_bytes, vertices_within
from ninefold.structured.room import available_memory, refuse_beyond

__all__ = ["DenseCRF"]

Engine = Literal["auto", "lattice", "exact"]
_FEW = 2048  # pixels up to which "auto" takes the sum over all pairs
_LEARNABLE = ("weight", "compatibility", "width")


class DenseCRF(nn.Module):
    """A fully connected CRF, refined by mean field: energies in, marginals or their logarithms out.

    ``E(x) = sum_i u_i(x_i) + sum_(i<j) sum_k mu_k(x_i, x_j) exp(-|f_i - f_j|^2 / 2)``. Each step computes all messages from the
    marginals before it (parallel updates, no guarantee that anything falls): ``q_i = softmax(-u_i - sum_k mu_k sum_j K_ij q_j)``.

    Parameters
    ----------
    kernels : sequence of PairwiseKernel
        `GaussianKernel`, `BilateralKernel`, `FeatureKernel`; none gives the softmax.
    steps : int
        Of the mean field.
    unary : "logits" or "energies"
        What the layer is given; logits are minus energies.
    normalization : str
        ``"symmetric"``: ``D^(-1/2) K D^(-1/2)`` with ``D = K 1 + 1e-20``; ``"before"``: ``K D^-1``; ``"after"``: ``D^-1 K``,
        which keeps
        constants; ``"none"``. pydensecrf's names do as well.
    self_term : bool
        Whether a pixel's own marginal is in its message, as in pydensecrf, or not, as in the paper's sum. Without it, D is
        without it.
    engine : "auto", "lattice" or "exact"
        ``"exact"`` sums over all pairs. ``"lattice"`` runs on the CPU in float32 and approximates (see `LatticeFilter`);
        what comes out
        has the dtype that came in. ``"auto"`` is exact up to 2048 pixels.
    learn : collection of str
        Which parameters have gradients, of ``"weight"``, ``"compatibility"``, ``"width"``. Those of widths cost
        2 d filters per message, and on a lattice they are rough: within 0.2 for places, 0.3 for colours of photographs, but
        that of a
        bilateral kernel's places may be off by more than itself. Learn widths by the exact engine, on crops.
    memory_limit : int, optional
        Bytes that may be used; what the machine has available unless given.
    output : "marginals" or "log_marginals"
        Losses are of the logarithms, ``nll_loss(crf(logits, image), labels)``: where a label is sure, the marginals of others
        are 0 in float32, and their logarithms, taken afterwards, infinite.
    blur : "one" or "both"
        Of the lattice: axes in one order, or the mean of both orders, which is symmetric as the kernel is, nearer to it (see
        `LatticeFilter`), and takes up to a sixth more time.

    Raises
    ------
    ArgumentError
        If an argument is none of these.

    Examples
    --------
    A wrong pixel in a flat region is corrected:

    >>> from ninefold.structured.crf.kernels import BilateralKernel, GaussianKernel
    >>> crf = DenseCRF([GaussianKernel(3.0, 3.0), BilateralKernel(20.0, 10.0, 5.0)], steps=5)
    >>> logits = torch.zeros(1, 2, 12, 9, dtype=torch.float32, device="cpu")
    >>> logits[:, 0], logits[0, :, 5, 4] = 1.0, torch.tensor([0.0, 1.0], device="cpu")
    >>> image = torch.full((1, 3, 12, 9), 80.0, dtype=torch.float32, device="cpu")
    >>> logits.argmax(1).sum().item(), crf(logits, image).argmax(1).sum().item()
    (1, 0)
    """

    def __init__(
        self,
        kernels: Sequence[PairwiseKernel],
        *,
        steps: int = 10,
        unary: Literal["logits", "energies"] = "logits",
        normalization: str = "symmetric",
        self_term: bool = True,
        engine: Engine = "auto",
        learn: Collection[str] = ("weight", "compatibility"),
        memory_limit: int | None = None,
        blur: Blur = "both",
        output: Literal["marginals", "log_marginals"] = "marginals",
    ) -> None:
        super().__init__()
        self.blur = blur_named(blur)
        if output not in ("marginals", "log_marginals"):
            raise ArgumentError(f"output={output!r}; it must be 'marginals' or 'log_marginals'")
        self.output = output
        if unary not in ("logits", "energies"):
            raise ArgumentError(f"unary={unary!r}; it must be 'logits' or 'energies'")
        if engine not in ("auto", "lattice", "exact"):
            raise ArgumentError(f"engine={engine!r}; it must be 'auto', 'lattice' or 'exact'")
        if wrong := sorted(set(learn) - set(_LEARNABLE)):
            raise ArgumentError(f"learn has {wrong}; it may have {', '.join(_LEARNABLE)}")
        self.kernels = nn.ModuleList(kernels)
        self.steps = _steps(steps)
        self.unary, self.engine, self.self_term, self.memory_limit = unary, engine, self_term, memory_limit
        self.normalization = normalization_named(normalization)
        for name, parameter in self.named_parameters():
            kind = "width" if name.endswith("widths") else name.rpartition(".")[2]
            parameter.requires_grad_(kind in learn)

    def extra_repr(self) -> str:
        """Say the options."""
        said = f"steps={self.steps}, unary={self.unary}, normalization={self.normalization}"
        return f"{said}, self_term={self.self_term}, engine={self.engine}, blur={self.blur}, output={self.output}"

    def forward(
        self, unary: Tensor, image: Tensor | None = None, features: Sequence[Tensor] = (), *, steps: int | None = None
    ) -> Tensor:
        """Return marginals ``(N, L, *space)``, or their logarithms, in the dtype of `unary`.

        Parameters
        ----------
        unary : Tensor
            Logits or energies ``(N, L, *space)``, float16 to float64; two axes of space, three, or any number.
        image : Tensor, optional
            ``(N, C, *space)``, of any dtype: taken as it is, so that 8-bit images have widths in 0 to 255.
        features : sequence of Tensor
            ``(N, d, *space)`` for each `FeatureKernel`, in their order.
        steps : int, optional
            Other than the layer's.

        Raises
        ------
        ShapeError, DTypeError, ArgumentError
            If sizes differ, or a number is NaN or infinite.
        RoomError
            If more memory is needed than `memory_limit`.
        """
        return _outside_compilers("torch._dynamo" in sys.modules)(self, unary, image, features, steps)

    def _marginals(self, unary: Tensor, image: Tensor | None, features: Sequence[Tensor], steps: int | None) -> Tensor:
        steps = self.steps if steps is None else _steps(steps)
        self._check(unary, image, features)
        space = unary.shape[2:]
        log = self.output == "log_marginals"
        if not len(self.kernels) or not steps:
            logits = unary if self.unary == "logits" else -unary
            return logits.log_softmax(1) if log else logits.softmax(1)
        engine = self._engine(space.numel())
        image_channels = 0 if image is None else image.shape[1]
        room = self._room(engine, space, unary.shape[1], image_channels, [f.shape[1] for f in features])
        dtype = torch.float32 if engine == "lattice" or unary.dtype != torch.float64 else torch.float64
        energies = (-unary if self.unary == "logits" else unary).to(dtype)
        shared: dict[int, Term] = {}
        out = []
        for k in range(len(unary)):
            terms = self._terms(engine, energies[k], room, k, image, features, shared)
            q = mean_field(energies[k].flatten(1), terms, steps, log=log)
            out.append(q.contiguous().reshape(unary.shape[1:]))
            del terms
        return (torch.stack(out) if len(out) > 1 else out[0][None]).to(unary.dtype)

    def memory_needed(self, space: Sequence[int], labels: int, channels: int = 3, given: Sequence[int] = ()) -> int:
        """Return the bytes that one image needs at least, of so many labels, channels, and features of each `FeatureKernel`.

        The lattice's vertices come on top: few for smooth images and wide kernels, at most ``d + 1`` per pixel.

        Examples
        --------
        >>> from ninefold.structured.crf.kernels import BilateralKernel, GaussianKernel
        >>> DenseCRF([GaussianKernel(), BilateralKernel()]).memory_needed((4000, 4000), 2) / 1e9
        1.376
        """
        points = torch.Size(space).numel()
        if self._engine(points) == "exact":
            return exact_bytes(points, labels)
        return lattice_bytes(points, self._dims(len(space), channels, given), labels)

    def _dims(self, axes: int, channels: int, given: Sequence[int]) -> list[int]:
        rest = iter(given)
        return [k.dims(axes, channels, next(rest, 1) if isinstance(k, FeatureKernel) else 0) for k in self._each()]

    def _room(self, engine: str, space: torch.Size, labels: int, channels: int, given: Sequence[int]) -> int:
        """Refuse what cannot be had; return the bytes that are left for vertices."""
        limit = available_memory() if self.memory_limit is None else self.memory_limit
        needed = self.memory_needed(space, labels, channels, given)
        refuse_beyond(
            needed,
            limit,
            f"a dense CRF of {'x'.join(map(str, space))} pixels, {labels} labels and {len(self.kernels)} kernels by {engine}",
            f"{FEWER}, or set memory_limit",
        )
        return limit - needed

    def _engine(self, points: int) -> str:
        return self.engine if self.engine != "auto" else "exact" if points <= _FEW else "lattice"

    def _each(self) -> list[PairwiseKernel]:
        return [k for k in self.kernels if isinstance(k, PairwiseKernel)]

    def _terms(
        self, engine: str, energies: Tensor, room: int, item: int, image: Tensor | None, features: Sequence[Tensor],
        shared: dict[int, Term],
    ) -> list[Term]:  # fmt: skip
        """Return the terms of one image; those of places alone are the same for all."""
        rest, terms = iter(features), []
        labels, *space, device, dtype = *energies.shape, energies.device, energies.dtype
        pixels = None if image is None else image[item].flatten(1).T.to(device, dtype)
        for k, kernel in enumerate(self._each()):
            one = next(rest, None) if isinstance(kernel, FeatureKernel) else None
            if k not in shared:
                places = positions(space, device).to(dtype)
                rows = kernel.features(places, pixels, None if one is None else one[item].flatten(1).T.to(dtype)).to(dtype)
                del places
                made: ExactFilter | LatticeFilter
                if engine == "exact":
                    made = ExactFilter(rows)
                else:
                    buffers = torch.get_num_threads() + (self.blur == "both")
                    most = vertices_within(room, rows.shape[1], labels, buffers)
                    made = LatticeFilter(rows, most, self.blur)
                    room -= vertices_bytes(made.vertices, rows.shape[1], labels, buffers)
                del rows
                term = Term.made(made, kernel.matrix(labels).to(dtype), self.normalization, self.self_term)
            else:
                term = shared[k]
            if isinstance(kernel, GaussianKernel):
                shared[k] = term
            terms.append(term)
        return terms

    def _check(self, unary: Tensor, image: Tensor | None, features: Sequence[Tensor]) -> None:
        if unary.ndim < 3 or 0 in unary.shape:
            raise ShapeError(f"unary of shape {tuple(unary.shape)}; it must be (N, L, *space), nothing of it empty")
        if not unary.is_floating_point():
            raise DTypeError(f"unary is {unary.dtype}; it must be a floating type")
        for name, x in [("unary", unary), ("image", image), *((f"features[{k}]", f) for k, f in enumerate(features))]:
            if x is None:
                continue
            if x.ndim != unary.ndim or len(x) != len(unary) or x.shape[2:] != unary.shape[2:] or not x.shape[1]:
                raise ShapeError(
                    f"{name} of shape {tuple(x.shape)} beside unary of {tuple(unary.shape)}; batch and space must agree"
                )
            if not bool(torch.isfinite(x.detach()).all()):
                raise ArgumentError(f"{name} has {int((~torch.isfinite(x.detach())).sum())} numbers that are NaN or infinite")
        takers = sum(isinstance(k, FeatureKernel) for k in self.kernels)
        if takers != len(features):
            raise ArgumentError(f"{len(features)} features for {takers} kernels of class FeatureKernel; give one to each")


def _steps(steps: int) -> int:
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise ArgumentError(f"steps={steps!r}; it must be a whole number, 0 or more")
    return steps


@lru_cache(maxsize=2)
def _outside_compilers(loaded: bool) -> Callable[..., Tensor]:
    """Return the layer's work as no compiler looks into it, for none knows a lattice; importing one to say so takes a second."""
    disabled: Callable[..., Tensor] = torch.compiler.disable(DenseCRF._marginals) if loaded else DenseCRF._marginals  # noqa: SLF001
    return disabled
