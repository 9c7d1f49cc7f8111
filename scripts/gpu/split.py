"""Where the time of a model's passes goes, kernel by kernel, from ncu's table: of the last pass, and of the one that took longest.

    ncu --graph-profiling node --clock-control none --cache-control none --metrics gpu__time_duration.sum --csv --page raw \\
        planish bench --device cuda --shape llama-3.1-8b --prompt-tokens 2048 --generate-tokens 1 --repeat 1 > table.csv
    python scripts/gpu/split.py table.csv

Times are us, each kernel alone on the device: those of a real pass overlap. A pass begins where tokens are embedded.
"""

import csv
import sys
from collections import defaultdict

TIME = "gpu__time_duration.sum"
MICROSECONDS = {"ns": 1e-3, "us": 1.0, "usecond": 1.0, "nsecond": 1e-3, "ms": 1e3, "msecond": 1e3}


def read_launches(path):
    """(kernel, grid, us) of every launch; the program's own output stands above the table."""
    with open(path, errors="replace") as file:
        lines = list(file)
    start = next((number for number, line in enumerate(lines) if line.startswith('"ID"')), None)
    if start is None:
        sys.exit(f"{path}: no table of ncu's; it ends with\n{''.join(lines[-5:])}")
    rows = csv.DictReader(lines[start:])
    unit = MICROSECONDS[next(rows)[TIME]]  # the row below the head names units
    return [(row["Kernel Name"].split("(")[0], row["Grid Size"], unit * float(row[TIME].replace(",", ""))) for row in rows]


def cut_passes(launches):
    starts = [number for number, launch in enumerate(launches) if launch[0] == "embed"]
    # Where positions rotate, their angles are computed right before.
    starts = [start - (start > 0 and launches[start - 1][0] == "rope_angles") for start in starts]
    return [launches[start:end] for start, end in zip(starts, starts[1:] + [len(launches)])]


def show(launches):
    times = defaultdict(list)
    for kernel, grid, time in launches:
        times[kernel, grid].append(time)
    whole = sum(time for _, _, time in launches)
    print(f"{len(launches)} launches, {whole:.1f} us")
    for (kernel, grid), each in sorted(times.items(), key=lambda row: -sum(row[1])):
        total = sum(each)
        print(f"  {kernel:24} {grid:18} {len(each):5} x {total / len(each):9.2f} = {total:10.1f}  {total / whole:6.1%}")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    passes = cut_passes(read_launches(sys.argv[1]))
    if not passes:
        sys.exit(f"{sys.argv[1]}: no pass of a model")
    show(passes[-1])
    show(max(passes, key=lambda launches: sum(time for _, _, time in launches)))


if __name__ == "__main__":
    main()
