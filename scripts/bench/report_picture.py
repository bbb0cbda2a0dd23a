"""Train a classifier of handwritten digits, and take the picture of its report.

    python scripts/bench/report_picture.py [--run FOLDER] [--output docs/images/report.png]

The picture is taken by a Chromium that is installed: three places of the page, as a phone shows
them.
"""

import argparse
import re
import tempfile
import time
from pathlib import Path

from lib import browser

import numpy as np
from gradient_flow import BLOCKS, WIDTH

from ddbp import Adam, Cosine, Instruments, Trainer
from ddbp.data import digits
from ddbp.report.page import NAME
from layers import Linear, Module, Sequential, SoftmaxCrossEntropy

DEPTH, EPOCHS, STEPS = 8, 40, 23
PICTURE = Path(__file__).parents[2] / "docs" / "images" / "report.png"
# Of each place, in CSS pixels.
WIDE, HIGH = 400, 800
PLACES = ("Overview", "Gradient flow", "Samples")
SECONDS = 3.0
"""What a browser takes to draw, at most."""


def network() -> Module:
    """Return the network, always the same."""
    rng = np.random.default_rng(0)
    hidden = [layer for _ in range(DEPTH) for layer in BLOCKS["tanh, Xavier"](rng)]
    return Sequential(*hidden, Linear(WIDTH, 10, rng=rng))


def train(folder: Path) -> None:
    """Train in a run folder."""
    training, test = digits()
    trainer = Trainer(
        network(),
        loss=SoftmaxCrossEntropy(),
        optimizer=Adam(Cosine(0.003, steps=EPOCHS * STEPS)),
        batch_size=64,
        shards=8,
        callbacks=[Instruments(every=5)],
        run_dir=folder,
        quiet=True,
    )
    trainer.fit(training, epochs=EPOCHS, validation=test)


def beside(report: Path) -> str:
    """Return a page with places of a report side by side."""
    sections = dict(re.findall(r'<h2 id="h(\d+)">(.*?)</h2>', report.read_text()))
    numbers = {title: number for number, title in sections.items()}
    address = report.absolute().as_uri()
    frames = "".join(
        f'<iframe src="{address}#s{numbers[place]}" width="{WIDE}" height="{HIGH}"'
        ' style="margin: 10px; border: 0"></iframe>'
        for place in PLACES
    )
    return f'<body style="margin: 0; display: flex; background: #dde1e6">{frames}</body>'


def main() -> None:
    """Train, and take the picture."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="keep the run there")
    parser.add_argument("--output", type=Path, default=PICTURE, help="(%(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.run or Path(temporary) / "digits"
        train(folder)
        frames = Path(temporary) / "frames.html"
        frames.write_text(beside(folder / NAME))
        with browser.page() as page:
            page.open(frames, width=len(PLACES) * (WIDE + 20), height=HIGH + 20)
            time.sleep(SECONDS)
            page.picture(options.output)
    print(f"{options.output}: {options.output.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
