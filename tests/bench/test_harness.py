import json

import pytest
import torch

from ninefold.engines.fft import FFT
from ninefold.planning import measure
from ninefold.spec import ConvSpec
from ninefold.testing.shapes import Shape

ENGINES = {"aten", "fft", "gemm"}


def _shape(batch=2, size=(7, 9), **changes):
    spec = ConvSpec(**({"in_channels": 4, "out_channels": 6, "kernel_size": (3, 2), "groups": 2} | changes))
    return Shape("tiny", "test", batch, size, spec, contract=True)


@pytest.mark.parametrize("map_", ["c", "h", "g", "fb"])
def test_a_sound_case_has_times_and_ratios_in_both_formats(map_):
    from bench.case import run_case

    records = run_case(_shape(stride=(1, 2), padding=(1, 0)), map_, seconds=0.01)
    assert [r.format for r in records] == ["contiguous", "channels_last"]
    for record in records:
        assert record.errors == []
        assert record.torch > 0
        assert set(record.seconds) >= ({"measure", "estimate"} if map_ == "fb" else ENGINES)
        middle, low, high = record.ratio_measure
        assert 0 < low <= middle <= high
        json.dumps(record.to_json())


def test_a_time_stands_beside_its_shares_of_the_machines_limits():
    from bench.case import run_case
    from rich.console import Console

    from bench import report

    records = [r.to_json() | {"memory": "kept"} for m in ("c", "fb") for r in run_case(_shape(), m, seconds=0.01)]
    for record in records:
        products, copied = report.limit_shares(record)
        assert products == record["limits"]["product"] / record["seconds"][record["measure"]]
        assert 0 < products < copied  # so small a layer is nearer to what memory allows
    records[0]["seconds"] = {records[0]["measure"]: 4e-3}
    records[0]["limits"] = {"product": 3e-3, "copy": 1e-3}
    assert report.limit_shares(records[0]) == (0.75, 0.25)
    console = Console(record=True, width=250)
    report.show(console, records[:1])
    assert "75% / 25%" in console.export_text()


def _broken(monkeypatch, spoil):
    honest = FFT.prepare

    def prepare(self, problem, weight=None):
        runner = honest(self, problem, weight)
        return lambda a, b, bias: spoil(runner(a, b, bias))

    monkeypatch.setattr(FFT, "prepare", prepare)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda z: z * 1.001, "is off by"),
        (lambda z: z[:, :, 1:], "has shape"),
        (lambda z: z.index_fill(2, torch.tensor([3]), float("nan")), "is off by nan"),
        (lambda z: 1 // 0, "ZeroDivisionError"),
    ],
)
def test_an_engine_that_disagrees_is_an_error_and_no_time(monkeypatch, spoil, complaint):
    from bench.case import run_case

    from bench import report

    run_case(_shape(), "c", seconds=0.01)  # the planner has timed an engine that works
    _broken(monkeypatch, spoil)
    (record, *_) = run_case(_shape(), "c", seconds=0.01)
    assert any(e.startswith("fft") and complaint in e for e in record.errors)
    assert "fft" not in record.seconds
    assert record.ratio_measure is None
    data = record.to_json() | {"memory": "cold"}
    assert report.figures([data])["errors"] == len(record.errors)
    assert report.figures([data])["compared"] == 0


def test_a_run_with_an_error_does_not_end_well(monkeypatch, tmp_path, capsys):
    from bench import case, run

    shapes = tmp_path / "one.toml"
    shapes.write_text(
        '[[shape]]\nname = "a"\nbatch = 2\nsize = [7, 9]\nin_channels = 2\nout_channels = 3\nkernel_size = [3, 2]\n'
    )
    bad = case.Record("a", "one", "c", "contiguous", "convolution", errors=["fft is off by 1e-1"]).to_json()
    bad["memory"] = "cold"
    monkeypatch.setattr(run, "records_of", lambda *_: iter([bad]))
    target = tmp_path / "out.json"
    assert run.main(["--shapes", str(shapes), "--memory", "cold", "--json", str(target)]) == 1
    assert "ERROR" in capsys.readouterr().out
    assert json.loads(target.read_text())["machine"]["threads"] == torch.get_num_threads()


@pytest.mark.parametrize(
    "changes",
    [
        {"period": (None, None), "groups": 2},
        {"period": (2, 3), "padding": ((1, 0), (0, 2))},
        {"padding": ((2, 1), (0, 1)), "padding_mode": "reflect", "flip_kernel": True},
        {"padding": "same_lower", "padding_mode": "symmetric"},
        {"padding": ((-1, 2), (1, -3)), "dilation": (1, 2)},
        {"groups": 1, "table": ((0, 0), (2, 3), (5, 1))},
        {"transposed": True, "stride": (2, 3), "output_padding": (1, 0), "padding": 1},
    ],
)
def test_what_a_pytorch_user_would_write_is_the_same_layer(changes):
    from bench.case import run_case

    for map_ in ("c", "h", "g"):
        for record in run_case(_shape(**changes), map_, seconds=0.001):
            assert record.errors == []
            assert record.torch is not None


def test_one_dimension_and_three():
    from bench.case import run_case

    for shape in (
        _shape(size=(23,), kernel_size=(4,), period=(3,), padding="causal"),
        _shape(size=(5, 6, 7), kernel_size=(2, 3, 2), period=(None,) * 3, dilation=(2, 1, 1)),
    ):
        for map_ in ("c", "g", "fb"):
            for record in run_case(shape, map_, seconds=0.001):
                assert record.errors == []


def test_a_slow_contender_runs_once_and_its_ratio_is_marked(clock):
    from bench.timing import interleave, ratio

    clock.tick = 0.0
    runs = {"slow": lambda: clock.sleep(0.1), "fast": lambda: clock.sleep(0.004)}
    times = interleave(runs, seconds=0.0201, pairs=("slow", "fast"))
    assert times["slow"].single
    assert times["fast"].seconds == pytest.approx([0.004] * 5)
    assert ratio(times["slow"], times["fast"]) == pytest.approx((25, 25, 25))


def test_who_is_hopeless_by_the_planners_clock_is_left_out_and_told_by_nothing_else(monkeypatch, clock):
    from bench.case import run_case

    monkeypatch.setattr(measure, "_HOPELESS", float("inf"))  # by estimate, none is
    honest = FFT.prepare
    monkeypatch.setattr(FFT, "prepare", lambda *given: lambda *x, run=honest(*given): clock.sleep(2.0) or run(*x))
    (record, *_) = run_case(_shape(), "c", seconds=0.01)
    assert record.errors == []
    assert "fft" not in record.seconds
    monkeypatch.setattr(measure, "interleaved", lambda runs, _: {name: [0.05] for name in runs})
    (record, *_) = run_case(_shape(batch=3), "c", seconds=0.01)
    assert record.singles == ["fft"]


def test_the_interval_holds_the_ratio_of_noisy_times():
    from bench.timing import Times, ratio

    drift = [1 + 0.5 * k for k in range(40)]
    slow, fast = Times([3.0 * d * (1 + 0.01 * (k % 3)) for k, d in enumerate(drift)]), Times(drift)
    middle, low, high = ratio(slow, fast)
    assert 3.0 <= low <= middle <= high <= 3.07


def test_selection_of_shapes():
    from bench.run import chosen, parse

    everything, left = chosen(parse([]))
    assert len(everything) > 40
    assert len(left) == 1
    assert not any(s.group == "contract" for s in everything)
    assert {s.group for s in chosen(parse(["--group", "dense"]))[0]} == {"dense"}
    (photograph,) = chosen(parse(["--name", "131x131"]))[0]
    assert photograph.maps == ("c",)
