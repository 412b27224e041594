"""The layer against loops over all pairs, and against itself: permuted, batched, constant, without kernels."""

import numpy as np
import pytest
import torch

from ninefold.engines.native import instruction_set
from ninefold.errors import ArgumentError, DTypeError, ShapeError
from ninefold.structured.crf import (
    BilateralKernel,
    DenseCRF,
    ExactFilter,
    FeatureKernel,
    GaussianKernel,
    LatticeFilter,
    RoomError,
)
from ninefold.structured.crf.exact import _rows
from ninefold.structured.crf.field import Term, mean_field

native = pytest.mark.skipif(instruction_set() is None, reason="the lattice is native code")
ENGINES = ["exact", pytest.param("lattice", marks=native)]
NORMALIZATIONS = ["none", "before", "after", "symmetric"]
SPACES = [(9, 7), (4, 5, 3)]


def drawn(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def kernels(axes=2, **options):
    return [GaussianKernel([2.0, 3.0, 1.5][:axes], 1.3, **options), BilateralKernel(5.0, [0.8, 1.0, 0.5], 2.1, **options)]


def image_of(*shape, seed=7):
    return drawn(shape[0], 3, *shape[1:], seed=seed)


def one_by_one(energies, features, matrices, normalization, self_term, steps):
    """Mean field by its definition, pixel by pixel."""
    points = energies.shape[1]
    kernels = [np.exp(-0.5 * np.array([[np.sum((a - b) ** 2) for b in f] for a in f])) for f in features]
    for k in kernels:
        if not self_term:
            np.fill_diagonal(k, 0)
        sums = k.sum(1) + 1e-20
        left = {"symmetric": sums**-0.5, "after": 1 / sums}.get(normalization, np.ones(points))
        right = {"symmetric": sums**-0.5, "before": 1 / sums}.get(normalization, np.ones(points))
        np.multiply(k, left[:, None] * right[None], out=k)
    q = np.exp(-energies) / np.exp(-energies).sum(0)
    for _ in range(steps):
        total = energies.copy()
        for k, matrix in zip(kernels, matrices, strict=True):
            for i in range(points):
                message = sum(k[i, j] * q[:, j] for j in range(points))
                total[:, i] += matrix @ message
        q = np.exp(-total) / np.exp(-total).sum(0)
    return q


@pytest.mark.parametrize("self_term", [True, False])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("space", SPACES)
def test_the_exact_engine_is_the_definition(space, normalization, self_term):
    logits, image = drawn(1, 3, *space, dtype=torch.float64), image_of(1, *space).double()
    crf = DenseCRF(kernels(len(space)), steps=3, normalization=normalization, self_term=self_term, engine="exact")
    grid = np.indices(space).reshape(len(space), -1).T
    colors = image[0].flatten(1).T.numpy() / [0.8, 1.0, 0.5]
    features = [grid / [2.0, 3.0, 1.5][: len(space)], np.concatenate([grid / 5.0, colors], 1)]
    potts = [w * (1 - np.eye(3)) for w in (1.3, 2.1)]
    want = one_by_one(-logits[0].flatten(1).numpy(), features, potts, normalization, self_term, 3)
    # Potts is minus the diagonal here: it differs by the message's sum over labels, the same for all of them
    np.testing.assert_allclose(crf(logits, image)[0].flatten(1).detach().numpy(), want, atol=2e-6)


def test_chunks_are_one_sum(monkeypatch):
    features, values = drawn(50, 3), drawn(50, 2)
    whole = _rows(features, features, values)
    monkeypatch.setattr("ninefold.structured.crf.exact._PAIRS", 350)
    torch.testing.assert_close(ExactFilter(features)(values), whole)
    a, b = features.clone().requires_grad_(), features.clone().requires_grad_()
    ExactFilter(a)(values).square().sum().backward()
    _rows(b, b, values).square().sum().backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("self_term", [True, False])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_finite_differences_of_all_that_is_learned(normalization, self_term):
    crf = DenseCRF(
        [GaussianKernel([2.0, 3.0], 0.7, torch.tensor([[0.0, 1, 2], [0.5, 0.1, 1], [1, 3, 0]])),
         BilateralKernel(3.0, 0.9, 0.5, torch.tensor([1.0, 0.5, 2])), FeatureKernel([1.0, 2.0], 0.4)],
        steps=2, normalization=normalization, self_term=self_term, engine="exact", learn=("weight", "compatibility", "width"),
    ).double()  # fmt: skip
    logits, image, given = (drawn(1, c, 4, 3, dtype=torch.float64, seed=c).requires_grad_() for c in (3, 1, 2))
    names, values = zip(*crf.named_parameters(), strict=True)
    assert len(names) == 3 * 2 + 2 + 1

    def run(logits, image, given, *parameters):
        return torch.func.functional_call(crf, dict(zip(names, parameters, strict=True)), (logits, image, [given]))

    assert torch.autograd.gradcheck(run, (logits, image, given, *(v.detach().clone().requires_grad_() for v in values)))


@native
@pytest.mark.parametrize("self_term", [True, False])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize(
    "compatibility",
    ["potts", torch.tensor([1.0, 0.5, 2]), torch.tensor([[0.0, 1, 2], [0.5, 0.1, 1], [1, 3, 0]])],
    ids=["potts", "diagonal", "matrix"],
)
def test_one_pass_in_native_code_is_the_steps_in_torch(compatibility, normalization, self_term):
    logits, image = drawn(2, 3, 13, 11), image_of(2, 13, 11)
    crf = DenseCRF(
        kernels(compatibility=compatibility), steps=4, normalization=normalization, self_term=self_term, engine="lattice"
    )
    in_steps = crf(logits.clone().requires_grad_(), image)
    assert in_steps.requires_grad
    with torch.no_grad():
        at_once = crf(logits, image)
    torch.testing.assert_close(at_once, in_steps.detach(), rtol=1e-4, atol=2e-5)


@native
@pytest.mark.parametrize("blurs", [("one", "one"), ("both", "both"), ("one", "both"), ("both", "one")])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_and_orders_of_the_blur_in_native_code(threads, blurs):
    space, before = (160, 170), torch.get_num_threads()
    unary, image = drawn(3, space[0] * space[1]), image_of(1, *space)[0].flatten(1).T.cumsum(0).div(9)
    places = torch.stack(torch.meshgrid(*(torch.arange(float(n)) for n in space), indexing="ij"), -1).flatten(0, 1)
    features = [places / 3, torch.cat([places / 8, image], 1)]
    try:
        torch.set_num_threads(threads)
        terms = [
            Term.made(LatticeFilter(f, blur=b), torch.tensor([-1.0, -2.0, -1.5]), "symmetric", self_term=True)
            for f, b in zip(features, blurs, strict=True)
        ]
        at_once = mean_field(unary, terms, 3)
        assert torch.equal(at_once, mean_field(unary, terms, 3))
        in_steps = mean_field(unary.clone().requires_grad_(), terms, 3).detach()
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(at_once, in_steps, rtol=1e-4, atol=2e-5)


@native
def test_the_layer_blurs_in_the_order_that_it_is_told():
    logits, image = drawn(1, 3, 40, 33), image_of(1, 40, 33).cumsum(-1).div(3)
    one, both, exact = (
        DenseCRF(kernels(), steps=1, **options)(logits, image)
        for options in ({"engine": "lattice", "blur": "one"}, {"engine": "lattice", "blur": "both"}, {"engine": "exact"})
    )
    assert not torch.equal(one, both)
    assert (both - exact).norm() < (one - exact).norm()


@native
@pytest.mark.parametrize("labels", [2, 4, 5, 8, 9, 16, 17, 24, 25, 33, 48, 49, 64, 65])
def test_any_number_of_labels(labels):
    logits, image = drawn(1, labels, 9, 15), image_of(1, 9, 15)
    crf = DenseCRF(kernels(), steps=2, engine="lattice")
    with torch.no_grad():
        q = crf(logits, image)
    torch.testing.assert_close(q, crf(logits.clone().requires_grad_(), image).detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(q.sum(1), torch.ones(1, 9, 15))


@native
@pytest.mark.parametrize("space", [(40, 33), (9, 14, 11)])
def test_one_step_on_the_lattice_is_near_the_exact_one(space):
    logits, image = drawn(1, 4, *space), image_of(1, *space).cumsum(-1).div(3)
    exact, lattice = (DenseCRF(kernels(len(space)), steps=1, engine=e)(logits, image) for e in ("exact", "lattice"))
    assert (exact - lattice).abs().mean() < 0.005
    assert (exact.argmax(1) == lattice.argmax(1)).float().mean() > 0.973


# By how much gradients on the lattice may miss the exact ones. That of a bilateral kernel's width in space is not there: it is a small
# difference of large sums, and was found 5 to 200 per cent off; on noise in five dimensions that of colours has even the wrong sign.
MISSES = {
    "logits": 0.04,
    "kernels.0.weight": 0.02,
    "kernels.1.weight": 0.02,
    "kernels.0.log_widths": 0.2,
    "kernels.1.log_color_widths": 0.4,
}


@native
def test_gradients_on_the_lattice_are_near_the_exact_ones():
    from skimage import data

    image = torch.from_numpy(data.astronaut()[100:148, 150:190].copy()).permute(2, 0, 1)[None].float()
    labels = (image.mean(1) > image.mean()).long()
    logits = torch.nn.functional.one_hot(labels, 2).permute(0, 3, 1, 2) * 0.5 + 0.7 * drawn(1, 2, 48, 40)
    found = []
    for engine in ("lattice", "exact"):
        crf = DenseCRF(
            [GaussianKernel(2.0, 0.7), BilateralKernel(20.0, 13.0, 1.0)], steps=2, engine=engine, learn=("weight", "width")
        )
        x = logits.clone().requires_grad_()
        torch.nn.functional.nll_loss(crf(x, image).log(), labels).backward()
        found.append({"logits": x.grad, **{n: p.grad for n, p in crf.named_parameters()}})
    for name, most in MISSES.items():
        assert (found[0][name] - found[1][name]).norm() < most * found[1][name].norm(), name


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("space", SPACES)
def test_without_weights_it_is_the_softmax(engine, space):
    logits, image = drawn(2, 3, *space), image_of(2, *space)
    silent = [GaussianKernel(2.0, 0.0), BilateralKernel(5.0, 1.0, 0.0)]
    for crf in (DenseCRF(silent, engine=engine), DenseCRF([]), DenseCRF(silent, engine=engine, steps=0)):
        torch.testing.assert_close(crf(logits, image).detach(), logits.softmax(1))
        crf.unary = "energies"
        torch.testing.assert_close(crf(-logits, image).detach(), logits.softmax(1))


@pytest.mark.parametrize("engine", ENGINES)
def test_labels_permuted_are_marginals_permuted(engine):
    logits, image, order = drawn(1, 4, 9, 7), image_of(1, 9, 7), [2, 0, 3, 1]
    crf = DenseCRF(kernels(), steps=3, engine=engine)
    torch.testing.assert_close(crf(logits[:, order], image), crf(logits, image)[:, order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("space", SPACES)
def test_a_batch_is_its_images_one_by_one(engine, space):
    logits, image = drawn(3, 3, *space), image_of(3, *space)
    crf = DenseCRF(kernels(len(space)), steps=3, engine=engine)
    assert torch.equal(crf(logits, image), torch.cat([crf(logits[[k]], image[[k]]) for k in range(3)]))


@pytest.mark.parametrize("engine", ENGINES)
def test_after_keeps_a_constant(engine):
    features = drawn(60, 5)
    kernel = {"exact": ExactFilter, "lattice": LatticeFilter}[engine](features)
    for self_term in (True, False):
        term = Term.made(kernel, torch.ones(1), "after", self_term)
        message = term.message(torch.full((60, 1), 0.3))[:, 0]
        some = torch.isfinite(1 / term.after)
        torch.testing.assert_close(message[some], torch.full((60,), 0.3)[some], rtol=1e-4, atol=1e-5)
        assert not message[~some].any()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("space", SPACES)
def test_on_a_constant_image_the_bilateral_kernel_is_the_spatial_one(engine, space):
    logits, flat = drawn(1, 3, *space), torch.full((1, 2, *space), 0.25)
    exact = [
        DenseCRF([k], steps=2, engine=engine)(logits, flat) for k in (GaussianKernel(2.5, 2.0), BilateralKernel(2.5, 1.0, 2.0))
    ]
    torch.testing.assert_close(*exact, rtol=0, atol=1e-5 if engine == "exact" else 0.05)


@pytest.mark.parametrize("engine", ENGINES)
def test_without_the_self_term_a_message_does_not_see_its_own_pixel(engine):
    features, q = drawn(80, 2), torch.rand(80, 3, generator=torch.Generator().manual_seed(1))
    kernel = {"exact": ExactFilter, "lattice": LatticeFilter}[engine](features)
    changed = q.clone()
    changed[17] += 1
    for self_term, seen in ((True, True), (False, False)):
        gap = Term.made(kernel, torch.ones(3), "none", self_term).message(changed) - Term.made(
            kernel, torch.ones(3), "none", self_term
        ).message(q)
        assert (float(gap[17].abs().max()) > 1e-5) == seen
        assert float(gap.abs().sum()) > 0.1


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("space", [(12, 9), (7, 6, 5)])
def test_one_wrong_pixel_in_a_flat_region_is_corrected(engine, space):
    logits = torch.zeros(1, 2, *space)
    logits[:, 0] = 1
    logits[(0, slice(None), *(n // 2 for n in space))] = torch.tensor([0.0, 1.0])
    crf = DenseCRF([GaussianKernel(2.0, 3.0), BilateralKernel(5.0, 10.0, 5.0)], engine=engine, self_term=False)
    assert logits.argmax(1).sum() == 1
    assert crf(logits, torch.full((1, 1, *space), 80.0)).argmax(1).sum() == 0


@native
def test_dtypes_and_memory_of_inputs():
    logits, image = drawn(1, 3, 30, 80), (image_of(1, 30, 80) * 40 + 100).clamp(0, 255)
    crf = DenseCRF([GaussianKernel(), BilateralKernel(20, 30, 4)], steps=2)
    want = crf(logits, image.to(torch.uint8)).detach()
    turned = logits.transpose(2, 3).contiguous().transpose(2, 3)
    assert torch.equal(crf(turned, image.to(torch.uint8)).detach(), want)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        got = crf(logits.to(dtype), image.to(torch.uint8)).detach()
        assert got.dtype == dtype
        assert (got.float() - want).abs().mean() < 0.01


def test_bad_input_is_refused():
    crf, logits, image = DenseCRF(kernels(), engine="exact"), drawn(2, 3, 5, 4), image_of(2, 5, 4)
    cases = [
        (ShapeError, r"unary of shape \(5, 4\)", (logits[0, 0], image)),
        (ShapeError, r"unary of shape \(2, 3, 0, 4\)", (logits[:, :, :0], image)),
        (DTypeError, r"unary is torch\.int64", (logits.long(), image)),
        (ShapeError, r"image of shape \(2, 3, 4, 5\) beside unary of \(2, 3, 5, 4\)", (logits, image.mT)),
        (ShapeError, r"image of shape \(1, 3, 5, 4\) beside", (logits, image[:1])),
        (ArgumentError, "image has 1 numbers that are NaN", (logits, image.clone().index_put_((torch.tensor(0),) * 4, torch.tensor(float("nan"))))),
        (ArgumentError, "unary has 120 numbers that are NaN or infinite", (logits * float("inf"), image)),
        (ArgumentError, "no image was given", (logits,)),
        (ArgumentError, "1 features for 0 kernels", (logits, image, [image])),
        (ShapeError, "3 widths for 1 channels", (logits, image[:, :1])),
    ]  # fmt: skip
    for error, message, given in cases:
        with pytest.raises(error, match=message):
            crf(*given)
    for error, message, make in [
        (ArgumentError, "output='logits'; it must be 'marginals' or 'log_marginals'", lambda: DenseCRF([], output="logits")),
        (ArgumentError, r"widths are \[0\.0\]", lambda: GaussianKernel(0)),
        (ArgumentError, "weight=inf", lambda: GaussianKernel(1, float("inf"))),
        (ArgumentError, "compatibility='pott'", lambda: GaussianKernel(1, 1, "pott")),
        (ArgumentError, "normalization='both'", lambda: DenseCRF([], normalization="both")),
        (ArgumentError, "steps=-1", lambda: DenseCRF([], steps=-1)),
        (ArgumentError, "blur='three'", lambda: DenseCRF([], blur="three")),
        (ArgumentError, "engine='fast'", lambda: DenseCRF([], engine="fast")),
        (ArgumentError, r"learn has \['widths'\]", lambda: DenseCRF([], learn=["widths"])),
        (ArgumentError, "unary='probs'", lambda: DenseCRF([], unary="probs")),
        (
            ShapeError,
            r"compatibility of shape \(2,\) for 3 labels",
            lambda: DenseCRF(kernels(compatibility=torch.ones(2)))(logits, image),
        ),
    ]:
        with pytest.raises(error, match=message):
            make()


@native
def test_memory_is_said_before_and_refused():
    crf = DenseCRF([GaussianKernel(), BilateralKernel()], engine="lattice", memory_limit=1 << 20)
    assert crf.memory_needed((500, 500), 21) > 40e6
    with pytest.raises(
        RoomError, match=r"100x200 pixels, 21 labels and 2 kernels by lattice needs \d+ MiB at least, 1 MiB may be used"
    ):
        crf(torch.zeros(1, 21, 100, 200), torch.zeros(1, 3, 100, 200))
    noise = drawn(1, 3, 60, 60) * 1e3
    crf.memory_limit = crf.memory_needed((60, 60), 2) + 1000
    with pytest.raises(RoomError, match=r"more than \d+ vertices, all that memory has room for"):
        crf(torch.zeros(1, 2, 60, 60), noise)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_logarithms_are_those_of_the_marginals_where_they_are_none_of_0(engine, steps):
    unary, image = drawn(2, 4, 9, 7), image_of(2, 9, 7)
    q = DenseCRF(kernels(), steps=steps, engine=engine)(unary, image)
    found = DenseCRF(kernels(), steps=steps, engine=engine, output="log_marginals")(unary, image)
    torch.testing.assert_close(found, q.log(), atol=1e-4, rtol=1e-4)
    for gradients in (True, False):
        crf = DenseCRF(kernels(), steps=steps, engine=engine, output="log_marginals").requires_grad_(gradients)
        torch.testing.assert_close(crf(unary, image), found, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_network_that_is_sure_and_wrong_has_a_loss_and_gradients(engine):
    """Marginals of the right label are 0 in float32: the logarithm of these is infinite, and its gradient NaN."""
    logits, labels = torch.zeros(1, 2, 9, 7), torch.ones(1, 9, 7, dtype=torch.long)
    logits[:, 0] = 150
    logits.requires_grad_()
    crf = DenseCRF([GaussianKernel(2.0, 3.0), BilateralKernel(5.0, 1.0, 2.0)], steps=2, engine=engine, output="log_marginals")
    loss = torch.nn.functional.nll_loss(crf(logits, image_of(1, 9, 7)), labels)
    assert 150 < loss.item() < 170
    loss.backward()
    for x in (logits, *crf.parameters()):
        assert x.grad is None or bool(x.grad.isfinite().all())
    torch.testing.assert_close(logits.grad[0, 0] * 63, torch.ones(9, 7))
    assert float(DenseCRF(crf.kernels, steps=2, engine=engine)(logits.detach(), image_of(1, 9, 7))[:, 1].detach().max()) == 0


def test_start_and_steps_go_on():
    kernel, unary = ExactFilter(drawn(20, 2)), drawn(3, 20)
    terms = [Term.made(kernel, torch.full((3,), -1.0), "symmetric", self_term=True)]
    torch.testing.assert_close(mean_field(unary, terms, 1, mean_field(unary, terms, 2)), mean_field(unary, terms, 3))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_compiled_model_runs_it_between_its_parts(engine):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), DenseCRF([GaussianKernel(width=2.0)], steps=2, engine=engine))
    x = drawn(1, 2, 7, 5)
    found = torch.compile(model, backend="eager")(x)
    torch.testing.assert_close(found, model(x))
    (found[0, 0] ** 2).sum().backward()
    assert model[0].weight.grad.abs().sum() > 0
