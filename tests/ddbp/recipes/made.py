"""Small data of each kind in files, and commands that take them."""

import csv
import json

import numpy as np

from ddbp.commands import cli

SHAPES = ("cross", "disc", "square")
SIDE = 12


def shape(kind, rng):
    """Return an image (SIDE, SIDE, 3) of bytes, with a shape somewhere."""
    image = rng.integers(0, 60, (SIDE, SIDE, 3))
    y, x = rng.integers(4, 8, 2)
    rows, columns = np.indices((SIDE, SIDE))
    inside = {
        "cross": (abs(rows - y) < 1) | (abs(columns - x) < 1),
        "disc": (rows - y) ** 2 + (columns - x) ** 2 < 10,
        "square": np.maximum(abs(rows - y), abs(columns - x)) == 3,
    }[kind]
    image[inside] += 180
    return image.astype(np.uint8)


def images(folder, count=30, seed=0):
    """Write a folder with a sub-folder of images for each class; return it."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    for kind in SHAPES:
        (folder / kind).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(shape(kind, rng)).save(folder / kind / f"{number}.png")
    return folder


def cifar(folder, count=60, seed=0):
    """Write images of three classes in the binary files of CIFAR-10; return the folder."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for name in (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"):
        records = []
        for _ in range(count):
            label = int(rng.integers(3))
            pixels = np.kron(shape(SHAPES[label], rng), np.ones((3, 3, 1), np.uint8))[:32, :32]
            records.append(bytes([label]) + pixels.transpose(2, 0, 1).tobytes())
        (folder / name).write_bytes(b"".join(records))
    names = [*SHAPES, *(f"none{number}" for number in range(7))]
    (folder / "batches.meta.txt").write_text("\n".join(names) + "\n")
    return folder


def table(path, rows=200, seed=0, target="kind"):
    """Write a table whose last column follows from the others; return its path."""
    rng = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["length", "width", "colour", target])
        for _ in range(rows):
            length, width = rng.uniform(1, 9, 2).round(2)
            colour = str(rng.choice(["red", "blue"]))
            area = length * width * (2 if colour == "red" else 1)
            kind = "large" if area > 35 else "small"
            writer.writerow([length, width, colour, kind if target == "kind" else round(area, 2)])
    return path


def text(path, sentences=400, seed=0):
    """Write a text of few words; return its path."""
    rng = np.random.default_rng(seed)
    words = ["the cat sat. ", "a dog ran. ", "we saw it. "]
    path.write_text("".join(words[number] for number in rng.integers(3, size=sentences)))
    return path


def lines(path, count=120, seed=0):
    """Write lines with labels; return the path."""
    rng = np.random.default_rng(seed)
    words = {"good": ["fine", "lovely", "great"], "bad": ["awful", "poor", "dull"]}
    with path.open("w") as file:
        for number in range(count):
            label = ("good", "bad")[number % 2]
            said = " ".join(rng.choice(words[label], rng.integers(1, 4)))
            file.write(f"{label}\tit was {said}\n")
    return path


def wave(path, points=300):
    """Write a table with a column to forecast; return its path."""
    rows = [f"{t},{np.sin(t / 5) * 10 + 20:.4f}" for t in range(points)]
    path.write_text("\n".join(["time,height", *rows]) + "\n")
    return path


def walks(path, count=40, seed=0):
    """Write series of two classes, of different lengths, as rows of a table; return its path."""
    rng = np.random.default_rng(seed)
    rows = ["walk,step,x,y,gait"]
    for number in range(count):
        gait = ("slow", "fast")[number % 2]
        speed = 0.1 if gait == "slow" else 1.0
        for step in range(rng.integers(5, 12)):
            x, y = speed * step + rng.normal(0, 0.05), rng.normal()
            rows.append(f"{number},{step},{x:.4f},{y:.4f},{gait}")
    path.write_text("\n".join(rows) + "\n")
    return path


def run(capsys, *arguments):
    """Return the JSON object that a command prints at the end, having checked that it succeeded."""
    status = cli.main([*map(str, arguments)])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    return json.loads(captured.out.splitlines()[-1])


def refused(capsys, *arguments):
    """Return what a command says that refuses what it is given."""
    assert cli.main([*map(str, arguments)]) == 1
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.err
