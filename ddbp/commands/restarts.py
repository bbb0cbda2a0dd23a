"""Whether a run that has failed begins again, when, and on how many ranks; or its job does."""

import os
import shutil
import subprocess

_LONGEST = 60.0
"""Seconds that a restart waits at most."""


class Restarts:
    """Counts failures since the run got further than ever before.

    Parameters
    ----------
    most
        How many restarts there may be without progress.
    ranks
        How many ranks the run has.
    least
        How many it must have; each restart leaves out as many as have died.

    Attributes
    ----------
    most
        As given.
    ranks
        How many ranks the next run has.
    """

    def __init__(self, most: int, ranks: int, least: int) -> None:
        self.ranks = ranks
        self.most = most
        self._least = least
        self._furthest = -1
        self._failures = 0

    def after(self, step: int, dead: int) -> float | None:
        """Return after how many seconds the run begins again, None for not at all.

        Parameters
        ----------
        step
            The step that it has come to, -1 if it came to none.
        dead
            How many of its ranks have died.
        """
        if step > self._furthest:
            self._failures = 0
        self._furthest = max(self._furthest, step)
        self._failures += 1
        if self._failures > self.most:
            return None
        self.ranks = max(min(self._least, self.ranks), self.ranks - dead)
        return min(_LONGEST, 2.0 ** (self._failures - 1)) if self._failures > 1 else 0.0


def requeue() -> str:
    """Have the job of Slurm that this process is a part of begin again; return what came of it, in
    words.
    """
    job, scontrol = os.environ.get("SLURM_JOB_ID"), shutil.which("scontrol")
    if job is None or scontrol is None:
        return "nothing to requeue: this is no job of Slurm, or there is no scontrol"
    done = subprocess.run([scontrol, "requeue", job], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"job {job} could not be requeued: {done.stderr.strip()}"
    return f"job {job} is requeued"
