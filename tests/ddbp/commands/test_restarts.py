"""When `ddbp launch` begins a run again."""

from ddbp.commands.restarts import Restarts


def test_restarts_without_progress_wait_longer_and_longer_and_come_to_an_end():
    restarts = Restarts(4, 2, 2)
    assert [restarts.after(7, 1) for _ in range(6)] == [0, 2, 4, 8, None, None]


def test_waiting_has_a_limit():
    restarts = Restarts(20, 2, 2)
    assert max(restarts.after(0, 0) for _ in range(20)) == 60


def test_progress_forgets_failures():
    restarts = Restarts(1, 2, 2)
    assert [restarts.after(step, 1) for step in range(50)] == [0] * 50
    assert restarts.after(49, 1) is None


def test_run_that_falls_back_has_made_no_progress():
    restarts = Restarts(2, 2, 2)
    assert [restarts.after(step, 1) for step in (9, 3, 8)] == [0, 2, None]


def test_no_restart_unless_asked():
    assert Restarts(0, 2, 2).after(100, 1) is None


def test_ranks_that_died_are_left_out_down_to_the_least():
    restarts = Restarts(9, 5, 2)
    found = []
    for step, dead in enumerate((1, 0, 1, 4)):
        restarts.after(step, dead)
        found.append(restarts.ranks)
    assert found == [4, 4, 3, 2]
    same = Restarts(9, 3, 3)
    same.after(1, 2)
    assert same.ranks == 3
