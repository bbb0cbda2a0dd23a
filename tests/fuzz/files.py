"""Small files of all formats that are read, in the folder of this process."""

from pathlib import Path

import numpy as np
from PIL import Image


def write() -> None:
    """Write them."""
    rng = np.random.default_rng(0)
    for name in ("images/cat", "images/dog", "series/up", "series/down"):
        Path(name).mkdir(parents=True)
    for name in ("cat/1", "dog/1", "dog/2"):
        Image.fromarray(rng.integers(0, 256, (6, 5, 3), np.uint8)).save(f"images/{name}.png")
    for name in ("up", "down"):
        Path("series", name, "1.csv").write_text("1,2\n3,4\n")
    Path("good.idx").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 5, 6]))
    Path("good.bin").write_bytes(bytes(2 * 3073))
    Path("good.csv").write_text("x,k,y\n1,a,0\n2,b,1\n3,a,0\n4,b,1\n")
    Path("long.csv").write_text("s,t,x,l\na,0,1,up\na,1,2,up\nb,0,3,down\n")
    Path("good.ts").write_text("@classLabel true up down\n@data\n1,2:3,4:up\n5:6:down\n")
    Path("words.txt").write_text("abc de")
    Path("good.txt").write_text("a\tone two\nb\tthree\n")
    np.save("tokens.npy", np.arange(40))
