"""The tables that `make bench-nab` and its like printed last, as a section of the results."""

from pathlib import Path

TABLES = Path(__file__).with_name("tables")
SETS = {
    "nab": "NAB, the 29 files: learnt from the probation (15 % of a file, at most 750 rows)",
    "skab": "SKAB, valve1: learnt from each file's first 400 rows",
    "smd": "SMD, 4 machines: learnt from each one's training half",
    "smd-tsb": "SMD by TSB-AD's protocol, learnt from the first rows of each test half",
    "gecco": "GECCO 2018, TSB-AD's protocol: learnt from the first 16,165 of 138,521 rows",
}


def main() -> None:
    print("## Detection: public sets, beside plain methods\n")
    print(
        "As `edgernn benchmark` printed them (`make bench-nab` and so on); docs/benchmark.md says"
        " what the columns mean. All methods learn without labels, look at no later row, and have"
        " the same decision stage and budget, 1/week, steered. Two processes beside other work took"
        " 36 minutes for NAB, 18 for SKAB, 13 for SMD, 6 by TSB-AD, 3 for GECCO."
        " NAB's rows of general and edgernn-general, and all of TSB-AD, are of later runs."
    )
    for name, what in SETS.items():
        print(f"\n### {what}\n\n{(TABLES / f'{name}.md').read_text().strip()}")


if __name__ == "__main__":
    main()
