"""The page on data of one's own is run as a new user would: its snippets make data, and then its
commands, block by block, in one folder for each of its walks.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "own-data.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WALKS = {
    part.splitlines()[0]: BLOCK.findall(part) for part in re.split(r"^## ", PAGE, flags=re.M)[1:]
}


def test_there_is_a_walk_for_images_a_table_and_a_text():
    assert [*WALKS] == ["Images", "A table", "A text"]
    for blocks in WALKS.values():
        commands = "".join(text for language, text in blocks if language == "bash")
        for step in ("ddbp train", "--resume", "ddbp predict", "--onnx", "onnxruntime"):
            assert step in commands.replace("launch -n 2 -m ddbp $train", "ddbp train")


@pytest.mark.full
@pytest.mark.parametrize("walk", WALKS)
def test_its_commands_do_what_it_says(walk, tmp_path):
    for package in ("PIL", "onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed: the page says how")
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("DDBP_")},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
    }
    first = "import numpy as np\nfrom pathlib import Path\n"
    for number, (language, text) in enumerate(WALKS[walk]):
        path = tmp_path / f"block{number}"
        path.write_text(text if language == "bash" else first + text)
        run = [sys.executable] if language == "python" else ["bash", "-e"]
        done = subprocess.run(
            [*run, path],
            cwd=tmp_path,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr[-4000:]}"
