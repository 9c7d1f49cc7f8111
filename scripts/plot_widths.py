"""Packs a model at several widths and plots, over bits per weight, how far each is from it and how well it predicts a text.

    python scripts/plot_widths.py MODEL TEXT [--widths 2 3 4 5 6 8] [--out widths.png]

It needs the package `planish`; without matplotlib the numbers are printed only.
"""

import argparse
import tempfile
from pathlib import Path

import planish


def measure(source, text, width, folder, reference, context):
    """Bits per weight, divergence and perplexity at one width."""
    out = Path(folder) / f"{width}bit"
    report = planish.quantize(source, out, bits=width, format="mlx")
    model, _ = planish.load(out)
    found = planish.evaluate(model, text=text, reference=reference, context=context)
    return report.bits_per_weight, found


def plot(points, plain, path):
    """Two curves over size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sizes = [size for size, _ in points]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.5))
    left.semilogy(sizes, [found.kl for _, found in points], "o-")
    left.set(xlabel="bits per weight", ylabel="divergence, nats", title="from the plain model")
    right.plot(sizes, [found.perplexity for _, found in points], "o-")
    right.axhline(plain, linestyle=":", label="plain")
    right.set(xlabel="bits per weight", title="perplexity")
    right.legend()
    figure.tight_layout()
    figure.savefig(path)
    print(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a folder or a Hub id, plain")
    parser.add_argument("text", type=Path, help="a text in UTF-8")
    parser.add_argument("--widths", type=int, nargs="+", default=[2, 3, 4, 5, 6, 8])
    parser.add_argument("--context", type=int, default=256, help="tokens of a piece of the text")
    parser.add_argument("--out", type=Path, default=Path("widths.png"))
    arguments = parser.parse_args()
    text = arguments.text.read_text(encoding="utf-8")
    reference, _ = planish.load(arguments.model)
    points = []
    print("bits  per weight  divergence  perplexity  same likeliest token")
    with tempfile.TemporaryDirectory() as folder:
        for width in arguments.widths:
            size, found = measure(arguments.model, text, width, folder, reference, arguments.context)
            points.append((size, found))
            print(f"{width:4}  {size:10.3f}  {found.kl:10.5f}  {found.perplexity:10.3f}  {found.top1:20.1%}", flush=True)
    try:
        plot(points, found.reference_perplexity, arguments.out)
    except ImportError:
        print("no matplotlib: no plot")


if __name__ == "__main__":
    main()
