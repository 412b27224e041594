"""spec/ is pure Python: it must load where neither torch nor NumPy can be imported."""

import subprocess
import sys
from pathlib import Path

import ninefold

_CODE = """
import sys, types
for name in ("torch", "numpy"):
    sys.modules[name] = None  # importing it now raises ImportError
package = types.ModuleType("ninefold")  # ninefold/__init__.py may import torch; spec/ must not need it
package.__path__ = [sys.argv[1]]
sys.modules["ninefold"] = package
import ninefold.spec
from ninefold.spec import ConvSpec, PoolSpec, receptive_field
assert ConvSpec(3, 96, 11, stride=4).output_size((227, 231)) == (55, 56)
assert receptive_field([ConvSpec(1, 2, (3, 5)), PoolSpec((2, 3))]) == (4, 7)
roots = {name.partition(".")[0] for name, module in sys.modules.items() if module is not None}
print(sorted(roots - sys.stdlib_module_names - {"__main__", "__mp_main__", "ninefold"}))
"""


def test_imports_neither_torch_nor_numpy():
    folder = str(Path(ninefold.__file__).parent)  # an editable installation has a second one, for what is compiled
    # -S: without site-packages nothing but the standard library can load
    done = subprocess.run([sys.executable, "-S", "-E", "-c", _CODE, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
