"""One rank of each host downloads, and the others wait for it."""

import pytest

from ..ddbp.data.file_server import CONTENT, DIGEST, serving
from .ranks import PLAIN

pytest.importorskip("pooch", reason="pooch is not installed: ddbp[data]")


@pytest.fixture
def server():
    with serving() as server:
        yield server


@pytest.mark.parametrize(("environment", "asked"), [({}, 1), (PLAIN, 3)], ids=["one", "three"])
def test_one_rank_of_each_host_downloads(server, pooled, tmp_path, environment, asked):
    finished = pooled(
        *(3, "download.py", server.url("good"), len(CONTENT), DIGEST, tmp_path, 0.3), **environment
    )
    assert finished.status == 0, finished.err
    said = f"{len(CONTENT)} bytes"
    assert sorted(finished.out.splitlines()) == [f"rank {rank}: {said}" for rank in range(3)]
    assert server.asked == [("good", "")] * asked


def test_all_ranks_learn_that_a_file_cannot_be_had(server, pooled, tmp_path):
    finished = pooled(*(3, "download.py", server.url("missing"), len(CONTENT), DIGEST, tmp_path, 0))
    assert finished.status == 0, finished.err
    first, *others = sorted(finished.out.splitlines())
    assert "and fetching it failed: 404" in first
    assert all("The first rank of this host says why." in other for other in others)
    assert len(server.asked) == 3
