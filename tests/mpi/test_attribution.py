"""Attributions of a network that ranks have trained together, and explain together."""

from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "attribute.py"


@pytest.mark.parametrize("ranks", [2, 3])
def test_attributions_are_the_same_bits_on_several_ranks(pooled, tmp_path, ranks):
    pytest.importorskip("matplotlib", reason="Matplotlib is not installed: pip install matplotlib")
    arguments = ("--quiet", "--epochs", 1, "--shards", 4, "--images", 5, "--run-dir")
    alone = pooled(0, SCRIPT, *arguments, tmp_path / "alone").result()
    several = pooled(ranks, SCRIPT, *arguments, tmp_path / "several").result()
    assert several["ranks"] == ranks
    for name in ("parameters_sha256", "attributions", "error"):
        assert several[name] == alone[name]
    assert len(alone["attributions"]) == 8
    assert Path(several["picture"]).read_bytes().startswith(b"\x89PNG")
