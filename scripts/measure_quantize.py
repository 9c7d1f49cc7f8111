"""Time and memory of one `planish quantize`, beside how fast this machine reads, and multiplies in float32.

    python scripts/measure_quantize.py [--planish target/release/planish] [--cores 0,1] CHECKPOINT OUT [FLAG ..]

Prints seconds, processor seconds, the peak of resident memory, and that of memory which is no mapped file: sampled every 20 ms, so that a
peak of a shorter time can be missed. OUT is removed again. Flags go to `planish quantize`. Linux only; needs numpy.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import threading
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent


def watch(pid, peak, ended):
    """Keeps the most of each kind of memory, in MB."""
    while not ended.wait(0.02):
        try:
            lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            return
        sizes = {line.split(":")[0]: int(line.split()[1]) / 1000 for line in lines if line.startswith(("Rss", "VmRSS"))}
        for key, value in sizes.items():
            peak[key] = max(peak.get(key, 0), value)


def read_speed(checkpoint):
    """GB/s of plain reads of the files, from the page cache where they fit."""
    block, start, total = bytearray(1 << 24), time.monotonic(), 0
    for path in checkpoint.glob("*.safetensors"):
        with open(path, "rb", buffering=0) as file:
            while count := file.readinto(block):
                total += count
    return total / (time.monotonic() - start) / 1e9


def product_speed():
    """GFLOP/s of a float32 product of 2048 rows and columns."""
    left = np.ones((2048, 2048), np.float32)
    left @ left
    start = time.monotonic()
    for _ in range(4):
        left @ left
    return 4 * 2 * 2048**3 / (time.monotonic() - start) / 1e9


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--planish", type=pathlib.Path, default=ROOT / "target/release/planish")
    parser.add_argument("--cores", help="processors that all of it may use, e.g. 0,1")
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    arguments, flags = parser.parse_known_args()
    if arguments.cores:
        os.sched_setaffinity(0, [int(core) for core in arguments.cores.split(",")])
    speeds = {"read_gb_per_s": read_speed(arguments.checkpoint), "product_gflop_per_s": product_speed()}
    command = [arguments.planish, "quantize", arguments.checkpoint, "--out", arguments.out, "--force", *flags]
    peak, ended = {}, threading.Event()
    start = time.monotonic()
    process = subprocess.Popen([str(part) for part in command])
    watcher = threading.Thread(target=watch, args=(process.pid, peak, ended))
    watcher.start()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - start
    ended.set()
    watcher.join()
    size = sum(path.stat().st_size for path in arguments.out.glob("*.safetensors"))
    shutil.rmtree(arguments.out, ignore_errors=True)
    print(json.dumps({
        "flags": flags, "exit_code": os.waitstatus_to_exitcode(status), "seconds": round(seconds, 1),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1), "cores": sorted(os.sched_getaffinity(0)),
        "peak_resident_mb": round(usage.ru_maxrss * 1.024 / 1000), "peak_beyond_files_mb": round(peak.get("RssAnon", 0)),
        "written_gb": round(size / 1e9, 3), **{key: round(value, 1) for key, value in speeds.items()},
    }))


main()
