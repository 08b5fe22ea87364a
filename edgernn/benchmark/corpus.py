"""The folders of public benchmarks, and any folder of their layout, by name and protocol."""

from collections.abc import Callable
from pathlib import Path

from edgernn.benchmark.folder import either
from edgernn.benchmark.gecco_folder import read_gecco, read_gecco_as_tsb_ad
from edgernn.benchmark.nab_folder import read_nab
from edgernn.benchmark.series import Corpus
from edgernn.benchmark.skab_folder import read_skab
from edgernn.benchmark.smd_folder import read_smd, read_smd_as_tsb_ad
from edgernn.errors import EdgernnError

PROTOCOLS: dict[str, dict[str, Callable[[Path], Corpus]]] = {
    "nab": {"official": read_nab},
    "skab": {"official": read_skab},
    "smd": {"official": read_smd, "tsb-ad": read_smd_as_tsb_ad},
    "gecco": {"tsb-ad": read_gecco_as_tsb_ad, "official": read_gecco},
}
"""Readers by benchmark and protocol, the usual one first: of GECCO the one that needs no second
file."""


def read_corpus(benchmark: str, folder: Path, *, protocol: str = "") -> Corpus:
    """Read a folder of a benchmark's layout, its files in order of their names.

    `protocol`: one of the benchmark's in `PROTOCOLS`, or its usual one. Raises EdgernnError for the
    first thing that is not as the layout has it.
    """
    if benchmark not in PROTOCOLS:
        raise EdgernnError(f'benchmark: expected {either(PROTOCOLS)}, got "{benchmark}"')
    allowed = PROTOCOLS[benchmark]
    protocol = protocol or next(iter(allowed))
    if protocol not in allowed:
        raise EdgernnError(f'protocol of {benchmark}: expected {either(allowed)}, got "{protocol}"')
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "no such folder"
        raise EdgernnError(f"{folder}: {found}, expected a folder laid out as {benchmark} is")
    return allowed[protocol](folder)
