"""Feeds every target with inputs that coverage leads to: `python fuzz/run.py [--runs 1000000]`.

What was found before stands in fuzz/corpus, a line an input, and what finds more is added. Ends
with exit code 1, the traceback and the input's file for the first exception that leaves a target.
"""

import argparse
import logging
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from corpus import read_corpus, write_corpus

WORK = Path(__file__).parents[1] / "build" / "fuzz"
SHARES = {
    "payload": 0.3,
    "topic": 0.15,
    "intake": 0.2,
    "config": 0.125,
    "artefact": 0.125,
    "card": 0.05,
    "held": 0.02,
    "memory": 0.025,
    "store": 0.005,
}
"""Of all inputs. An input of the store is a file, a thousand times the time of the others."""
LONGEST = {"store": 65_536}
"""Bytes of an input, where 4096 are not enough."""
SLOWEST_S = 10
LARGEST_MB = 1024


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--runs", type=int, default=1_000_000, help="inputs in all")
    arguments.add_argument("--target", choices=SHARES, help="one alone")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options, rest = arguments.parse_known_args()
    if options.child:
        fuzz(options.target, rest)
        return
    if rest:
        arguments.error(f"unknown: {' '.join(rest)}")
    shares = {options.target: 1.0} if options.target else SHARES
    total, began_s = 0, time.monotonic()
    print(f"{'target':10}{'inputs':>10}{'kept':>7}{'s':>7}{'inputs/s':>10}")
    for target, share in shares.items():
        runs = round(options.runs * share)
        started_s = time.monotonic()
        kept = campaign(target, runs, options.seed)
        took_s = time.monotonic() - started_s
        total += runs
        print(f"{target:10}{runs:10,}{kept:7}{took_s:7.0f}{runs / took_s:10,.0f}", flush=True)
    print(f"{total:,} inputs in {time.monotonic() - began_s:.0f} s, no exception left a target")


def campaign(target: str, runs: int, seed: int) -> int:
    """Some runs of one target; returns how many inputs are kept."""
    found, merged = WORK / target, WORK / f"{target}.merged"
    for folder in (found, merged):
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
    for n, one in enumerate(read_corpus(target)):
        (found / f"kept-{n}").write_bytes(one)
    limits = [
        f"-max_len={LONGEST.get(target, 4096)}",
        f"-timeout={SLOWEST_S}",
        f"-rss_limit_mb={LARGEST_MB}",
        f"-artifact_prefix={WORK}/{target}-",
    ]
    child(target, f"-runs={runs}", f"-seed={seed}", *limits, str(found))
    child(target, "-merge=1", *limits, str(merged), str(found))
    inputs = [path.read_bytes() for path in merged.iterdir()]
    write_corpus(target, inputs)
    return len(inputs)


def child(target: str, *flags: str) -> None:
    """atheris ends its process, so each campaign has its own."""
    command = [sys.executable, __file__, "--child", "--target", target, *flags]
    log = WORK / f"{target}.log"
    with log.open("wb") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        print(log.read_text(errors="replace")[-6000:])
        sys.exit(f"{target}: exit code {done.returncode}; the input is in {WORK}/{target}-…")


def fuzz(target: str, flags: list[str]) -> None:
    """In the child: never returns."""
    logging.disable(logging.CRITICAL)  # what is said of a million bad inputs helps nobody
    import atheris  # noqa: PLC0415 - the extra `fuzz`

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ["OMP_NUM_THREADS"] = "1"
    with atheris.instrument_imports(include=["edgernn", "edgernn_device", "tomllib", "targets"]):
        import targets  # noqa: PLC0415 - instrumented while it is imported
    again = f"{sys.executable} {__file__} --child --target {target}"  # how -merge calls itself
    atheris.Setup([again, *flags], targets.TARGETS[target], enable_python_coverage=True)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
