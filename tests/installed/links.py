"""What a Linux wheel links: ``python tests/installed/links.py WHEEL...``; needs pyelftools, which auditwheel brings.

The extension may link the C and C++ libraries and the OpenMP runtime that PyTorch loads, by name. It may neither link PyTorch nor use
its C++ symbols, so that one wheel serves every PyTorch; and the wheel may hold no library but the extension: a second OpenMP runtime
in a process makes two pools of threads.
"""

import io
import re
import sys
import zipfile
from pathlib import Path

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

LINKED = re.compile(
    r"(libgomp\.so\.1|libstdc\+\+\.so\.6|libm\.so\.6|libgcc_s\.so\.1|libc\.so\.6|libpthread\.so\.0|ld-linux.*\.so\.\d)"
)
EXTENSION = re.compile(r"ninefold/_native\.[\w.-]+\.so")
TORCH = re.compile(r"_Z\w*?(2at|3c10|5torch)\w*?E")


def faults(wheel):
    """Return what is wrong with a wheel, in sentences."""
    found = []
    with zipfile.ZipFile(wheel) as archive:
        libraries = [name for name in archive.namelist() if re.search(r"\.so(\.|$)|\.dylib$|\.dll$", name)]
        extensions = [name for name in libraries if EXTENSION.fullmatch(name)]
        if len(extensions) != 1:
            found.append(f"{len(extensions)} native extensions, not 1")
        found += [f"{name} is a library that the wheel brings along" for name in libraries if name not in extensions]
        for name in extensions:
            found += [f"{name}: {fault}" for fault in _of_elf(archive.read(name))]
    return found


def _of_elf(content):
    elf = ELFFile(io.BytesIO(content))
    for section in elf.iter_sections():
        if isinstance(section, DynamicSection):
            for tag in section.iter_tags():
                if tag.entry.d_tag == "DT_NEEDED" and not LINKED.fullmatch(tag.needed):
                    yield f"links {tag.needed}"
                if tag.entry.d_tag in ("DT_RPATH", "DT_RUNPATH"):
                    yield f"looks for libraries in {getattr(tag, 'runpath', None) or getattr(tag, 'rpath', '')}"
    symbols = [s.name for s in elf.get_section_by_name(".dynsym").iter_symbols() if s.entry.st_shndx == "SHN_UNDEF"]
    yield from (f"uses {name} of PyTorch" for name in symbols if TORCH.match(name))
    if not any(name.startswith(("GOMP_", "omp_")) for name in symbols):
        yield "uses no OpenMP: its kernels would run on one thread"


def main(wheels):
    """Print the faults of all wheels; return whether there are any."""
    bad = False
    for wheel in map(Path, wheels):
        found = faults(wheel)
        bad = bad or bool(found)
        print(f"{wheel.name}: {'; '.join(found) or 'links neither PyTorch nor an OpenMP runtime of its own'}")
    return bad or not wheels


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
