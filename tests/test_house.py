"""Rules of the house that no linter knows."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
SOURCE = TESTS.parent / "src" / "ninefold"


def names(path):
    tree = ast.parse(path.read_text())
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} | {
        a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names
    }


def test_only_rewrites_and_planning_name_the_list_of_engines():
    users = {p.relative_to(SOURCE).parts[0] for p in SOURCE.rglob("*.py") if "ENGINES" in names(p)}
    assert users <= {"engines", "rewrites", "planning"}, users


def test_no_public_function_shares_its_name_with_a_module():
    import ninefold

    modules = {p.stem for p in SOURCE.glob("*.py")} | {p.name for p in SOURCE.iterdir() if p.is_dir()}
    assert not set(ninefold.__all__) & modules


def test_every_engine_has_a_page():
    from ninefold.engines import ENGINES

    pages = {p.stem for p in (SOURCE.parent.parent / "docs" / "engines").glob("*.md")}
    assert {engine.name for engine in ENGINES} <= pages


def test_files_stay_small():
    long = {p.name: n for p in SOURCE.rglob("*.py") if (n := len(p.read_text().splitlines())) > 450}
    assert not long


# What torch makes on the default device, and in the default dtype unless the values are whole numbers.
OF_A_DEFAULT_DTYPE = {"empty", "eye", "full", "linspace", "logspace", "ones", "rand", "randn", "scalar_tensor", "tensor", "zeros"}
ON_A_DEFAULT_DEVICE = OF_A_DEFAULT_DTYPE | {
    *("arange", "as_tensor", "asarray", "empty_permuted", "empty_strided", "randint", "randperm", "range", "Tensor"),
    *("tril_indices", "triu_indices", "sparse_coo_tensor", "sparse_csr_tensor", "nested_tensor", "fftfreq", "rfftfreq"),
    *(f"{kind}_window" for kind in ("bartlett", "blackman", "hamming", "hann", "kaiser")),
}
# Entries of the chapter run where the defaults are the CPU and float32 (`ninefold.chapter.entry`); what they are given does not.
RUN_BY_ENTRIES = {p for p in (SOURCE / "chapter").glob("*.py") if p.stem not in ("data", "given", "training")}


def test_every_tensor_names_its_device_and_dtype():
    left = []
    for path in set(SOURCE.rglob("*.py")) - RUN_BY_ENTRIES:
        for call in (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)):
            name = ast.unparse(call.func)
            if (
                not name.startswith("torch.")
                or name.startswith("torch.ops.")
                or name.rpartition(".")[2] not in ON_A_DEFAULT_DEVICE
            ):
                continue
            named = {k.arg for k in call.keywords}
            wanted = {"device", "dtype"} if name.rpartition(".")[2] in OF_A_DEFAULT_DTYPE else {"device"}
            if not wanted <= named:
                left.append(f"{path.relative_to(SOURCE)}:{call.lineno} {ast.unparse(call)[:80]} lacks {sorted(wanted - named)}")
    assert not left, "\n".join(left)


def test_every_address_goes_through_the_check():
    asked = [p.relative_to(SOURCE).as_posix() for p in SOURCE.rglob("*.py") for part in ("engines", "ops") if part in p.parts
             and ".data_ptr(" in p.read_text()]  # fmt: skip
    assert asked == ["engines/native.py"]


def test_no_kind_is_asked_for_by_a_union():
    """``isinstance(x, A | B)`` is not traced by the compiler of torch 2.6; a tuple is."""
    calls = [(p.name, n) for p in SOURCE.rglob("*.py") for n in ast.walk(ast.parse(p.read_text())) if isinstance(n, ast.Call)]
    asked = [(name, n) for name, n in calls if getattr(n.func, "id", "") in ("isinstance", "issubclass")]
    assert [(name, n.lineno) for name, n in asked if isinstance(n.args[1], ast.BinOp)] == []
    assert len(asked) > 100


def test_no_test_hangs_on_how_long_anything_takes():
    """On a busy machine a test may be slow, never red: what takes time takes it by the clock of ``conftest.py``."""
    clocks = re.compile(r"\b(time\.sleep|time\.time|monotonic|perf_counter|process_time)\(|\btimeout=")
    tests = [p for p in TESTS.rglob("*.py") if p.name not in ("fuzz.py", "test_house.py")]
    assert [(p.name, words[0]) for p in tests if (words := clocks.search(p.read_text()))] == []
    assert len(tests) > 50
