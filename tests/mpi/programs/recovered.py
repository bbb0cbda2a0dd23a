"""Train a network while ranks are killed, as the command line says.

Usage: recovered.py FOLDER RUN [SLOT:STEP:PLACE[:NANOSECONDS] …] [--joined STEP RANKS] [--deadly
STEP SHARD] [--save]; the process of the slot sends SIGKILL to itself when it comes to that place in
that step, or so much later, by a timer of the system. In place of NANOSECONDS `daemon` kills its
parent, `stop` stops it, `sleep SECONDS` has it come later, and `cut SECONDS` and `lose SECONDS`
take the link between two hosts down for a time, or have all be lost that the first one sends. With
--joined steps from that one on wait for newcomers until there are so many ranks; with --deadly
every process is killed that computes that shard in that step; with --save there is a run folder
with checkpoints; who resumes is not killed; with --record there is one, too, and the leading rank
writes what instruments have measured; with --unfinished nobody finishes the update of a rank that
was killed in it; with --keep the state is put by after every step. Every rank that is left writes
the digest of the parameters, the losses, what ranks have found out together, and how many there are
to rankSLOT.npz. The run "all" trains all networks.
"""

import argparse
import ctypes
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
from launcher import await_files, await_watch, wait_until
from resumed_fits import FITS
from resumed_loops import LOOPS
from resumed_parts import DATA, EPOCHS, dense, make

import ddbp
from ddbp import settings
from ddbp.comm import members
from ddbp.observers.observer import StepPhase
from ddbp.training import advice, keeping, memory, snapshots
from layers import BatchNorm, Dropout, TapeHook

LINK = {
    "cut": ("ip link set first down", "ip link set first up"),
    "lose": (
        "ip neigh replace 10.77.0.2 lladdr 2:0:0:0:0:9 dev first nud permanent",
        "ip neigh del 10.77.0.2 dev first",
    ),
}
PHASES = {StepPhase.EXCHANGE: "exchange", StepPhase.UPDATE: "update", StepPhase.PUBLISH: "publish"}


def disturb(what: str) -> None:
    """Do what is to happen where this process is."""
    word, _, seconds = what.partition(" ")
    if word == "daemon":
        os.kill(os.getppid(), signal.SIGKILL)
    elif word == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
        # A launcher that ends the job wakes it first, and gives it a while.
        time.sleep(60)
    elif word == "sleep":
        time.sleep(float(seconds))
    elif word in LINK:
        cut, heal = LINK[word]
        subprocess.run(cut, shell=True, check=True)
        heal = f"sleep {seconds}; {heal}"
        subprocess.Popen(heal, shell=True, start_new_session=True)
    else:
        end_process(int(word or 0))


def end_process(nanoseconds: int) -> None:
    """Have this process killed so much later, wherever it is then."""
    if not nanoseconds:
        os.kill(os.getpid(), signal.SIGKILL)
    libc = ctypes.CDLL(None, use_errno=True)
    event = (ctypes.c_int * 16)(0, 0, signal.SIGKILL, 0)
    timer = ctypes.c_void_p()
    assert libc.timer_create(1, event, ctypes.byref(timer)) == 0
    assert libc.timer_settime(timer, 0, (ctypes.c_long * 4)(0, 0, 0, nanoseconds), None) == 0


RECOVERY = ("stop", "recover", "catch_up", "agreed", "regroup")
"""What ranks of several hosts do when one is lost."""
MEASURING = (advice, "measured"), (memory._Practice, "run"), (memory._Practice, "taken_by")
"""What ranks do to find out together what network there is, and a plan for a budget of memory."""
_ASIDE = "before ", "after "
"""How places begin that are no parts of steps."""


class Killer(ddbp.Callback, TapeHook):
    """Kills this process at places of steps."""

    saves = False

    def __init__(
        self,
        folder: Path,
        kills: list[str],
        joined: tuple[int, int],
        deadly: tuple[int, int],
    ) -> None:
        self._folder = folder
        self._joined = joined
        self._deadly = deadly
        self._slot = slot = ddbp.communicator().slot
        split = [kill.split(":") for kill in kills]
        self._kills = {
            (int(step), place): later[0] if later else ""
            for which, step, place, *later in split
            if int(which) == slot and not settings.resumes()
        }
        # Step and slot of those that are killed while others recover.
        self._recovering = {
            (int(step), int(which))
            for which, step, place, *_ in split
            if place.startswith(_ASIDE) and int(step) >= 0
        }
        self._step = -1
        for name in RECOVERY:
            self._watch(ddbp.communicator(), name)
        for owner, name in MEASURING:
            self._watch(owner, name)

    def _watch(self, owner: Any, name: str) -> None:
        """Have a function of an object be a place, before it does something and after."""
        function = getattr(owner, f"_{name}", None) or getattr(owner, name, None)

        def watched(*given):
            self.come_to(f"before {name}")
            result = function(*given)
            self.come_to(f"after {name}")
            return result

        if function is not None:
            watched.__name__ = function.__name__
            setattr(owner, function.__name__, watched)

    def __repr__(self) -> str:
        return "Killer()"

    def come_to(self, place: str) -> None:
        what = self._kills.pop((self._step, place), None)
        if self._step < 0:
            (self._folder / f"{place} {self._slot}").touch()
        if what is not None:
            if self._step < 0:
                # What ranks did before, as making a trainer, cannot go on without one of them.
                await_files(self._folder, f"{place} *", ddbp.communicator().size)
            elif not place.startswith(_ASIDE):
                # Ranks of another host may be in the step before yet, and would recover there.
                for step, slot in self._recovering:
                    if step == self._step:
                        await_files(self._folder, f"step {step} {slot}", 1)
            disturb(what)

    def on_attach(self, trainer):
        self._trainer = trainer

    def on_step_begin(self, trainer, step):
        self._step = step
        if (step, self._slot) in self._recovering:
            (self._folder / f"step {step} {self._slot}").touch()
        since, ranks = self._joined
        if since <= step and trainer.comm.size < ranks and not trainer.comm.newcomer:
            # Less than the watchdog minds.
            wait_until(self._newcomer_waits, 30.0)
        elif since <= step:
            self._joined = 0, 0
        self.come_to("beginning")

    def _newcomer_waits(self) -> bool:
        """Return whether a process waits to be let in, which it is after a step."""
        return bool(self._trainer.comm._members.cells[:, members._READY].any())

    def on_forward_begin(self, call):
        if call.tape.training and call.index == 2:
            self.come_to("forward")

    def on_backward_begin(self, call):
        step, shard = self._deadly
        first, last = self._trainer._plan.owned(self._trainer.comm.rank)
        if self._step == step and first <= shard < last:
            end_process(0)
        if call.index == 1:
            self.come_to("backward")

    def on_phase(self, trainer, phase):
        self.come_to(PHASES[phase])

    def on_step_end(self, trainer, step, loss):
        self.come_to("end")

    def on_evaluation_begin(self, trainer):
        self.come_to("evaluation")

    def on_epoch_end(self, trainer, record):
        self.come_to("epoch end")

    def on_fit_end(self, trainer, history):
        self.come_to("fit end")


class Halves(ddbp.Callback):
    """Halves the parameters once; the killer is asked meanwhile."""

    def __init__(self, killer: "Killer") -> None:
        self._killer = killer

    def __repr__(self) -> str:
        return "Halves()"

    def on_step_end(self, trainer, step, loss):
        if step == 10:
            with ddbp.modify_parameters(trainer) as mine:
                for parameter in trainer.model.parameters() if mine else ():
                    parameter.value *= 0.5
                    self._killer.come_to("change")
                self._killer.come_to("changed")


def fitted(name: str, killer: Killer, run_dir: Path | None = None):
    """Return the trainer and its losses."""
    start, data, _ = FITS[name]
    saving = [] if not killer.saves else [ddbp.Checkpoints(every_steps=2)]
    trainer = start(callbacks=[killer, *saving], run_dir=run_dir)
    if name == "a second fit":
        trainer.fit(data, epochs=1)
    history = trainer.fit(data, epochs=EPOCHS, validation=data)
    names = ("epoch", "step", "loss", "validation_loss", "average_loss")
    return trainer, [record[name] for record in history for name in names if name in record]


def looped(name: str, killer: Killer):
    """Return the trainer and its losses."""
    start, _ = LOOPS[name]
    trainer = start(callbacks=[killer])
    losses = []
    for batch in trainer.batches(DATA, epochs=EPOCHS):
        loss = trainer.step(trainer.loss(trainer.model(batch.x), batch.y))
        if not np.isnan(loss):
            losses.append(loss)
    return trainer, losses


def halved(name: str, killer: Killer):
    """Return the trainer and its losses, of a fit in which parameters are changed."""
    trainer = make(dense(), ddbp.Adam(0.01), callbacks=[killer, Halves(killer)])
    return trainer, [record["loss"] for record in trainer.fit(DATA, epochs=EPOCHS)]


def stepped(name: str, killer: Killer):
    """Return the trainer and its losses, of steps on batches of the script's own in one array."""
    trainer = make(
        dense(BatchNorm(64, synchronized=True), Dropout(0.2)),
        ddbp.AdamW(0.01),
        accumulate=3,
        l1=1e-4,
        l2=1e-3,
        clip_value=0.5,
        callbacks=[killer],
    )
    losses = []
    x, y = np.empty((14, 20), np.float32), np.empty(14, np.int64)
    for number in range(60):
        rows = np.arange(14) + number % 50
        x[...], y[...] = DATA.x[rows], DATA.y[rows]
        losses.append(trainer.train_step(x, y))
    return trainer, losses


def counted(name: str, killer: Killer):
    """Return the trainer and its losses, of steps on batches that depend on their number."""
    trainer = make(dense(Dropout(0.2)), ddbp.Adam(0.01), callbacks=[killer])
    losses = []
    for step in trainer.steps(20):
        rows = np.arange(14) + step
        losses.append(trainer.train_step(DATA.x[rows], DATA.y[rows]))
    return trainer, losses


def counted_by_hand(name: str, killer: Killer):
    """Return the trainer and its losses, of such steps in which the script makes the batches."""
    trainer = make(dense(BatchNorm(64, synchronized=True)), ddbp.Adam(0.01), callbacks=[killer])
    losses = []
    for step in trainer.steps(20):
        batch = trainer.batch(DATA.x[step : step + 14], DATA.y[step : step + 14])
        loss = trainer.step(trainer.loss(trainer.model(batch.x), batch.y))
        losses += [] if np.isnan(loss) else [loss]
    return trainer, losses


def advised(name: str, killer: Killer):
    """Return the trainer and its losses, of one that measures the network, or chooses by it."""
    network = "auto" if name == "a network that is measured" else DATA
    trainer = make(dense(), ddbp.Adam(0.01), network=network, callbacks=[killer])
    return trainer, [record["loss"] for record in trainer.fit(DATA, epochs=2 * EPOCHS)]


def found_out(trainer) -> str:
    """Return what ranks have found out together, in words; steps must have kept to it."""
    told = {name: part.state() for name, part in snapshots.told(trainer).items()}
    if trainer._memory.size is None:
        del told["memory"]
    else:
        assert trainer._memory.facts is not None
        assert trainer._workspace.nbytes <= trainer._memory.size
    return json.dumps(told, sort_keys=True)


def mixed(name: str, killer: Killer):
    """Return the trainer and its losses, of loops of all kinds, with evaluations in between."""
    trainer = make(dense(BatchNorm(64)), ddbp.SGD(0.1, momentum=0.9), callbacks=[killer])
    losses = [record["loss"] for record in trainer.fit(DATA, epochs=1)]
    for batch in trainer.batches(DATA, epochs=2):
        loss = trainer.step(trainer.loss(trainer.model(batch.x), batch.y))
        losses += [] if np.isnan(loss) else [loss, trainer.evaluate(DATA)["loss"]]
    for number in range(6):
        rows = np.arange(14) + number
        losses.append(trainer.train_step(DATA.x[rows], DATA.y[rows]))
        losses.append(trainer.evaluate(DATA)["accuracy"])
    losses += [record["loss"] for record in trainer.fit(DATA, epochs=2)]
    return trainer, losses


def by_hand(name: str, killer: Killer):
    """Return the trainer and its losses, of batches that the script makes and propagates."""
    trainer = make(dense(), ddbp.SGD(0.1), callbacks=[killer])
    losses = []
    for number in range(8):
        rows = np.arange(14) + number
        batch = trainer.batch(DATA.x[rows], DATA.y[rows])
        losses.append(trainer.step(trainer.loss(trainer.model(batch.x), batch.y)))
    return trainer, losses


RUNS = {
    **dict.fromkeys(FITS, fitted),
    **dict.fromkeys(LOOPS, looped),
    "changed parameters": halved,
    **dict.fromkeys(("a network that is measured", "a network that is chosen by"), advised),
    "single steps": stepped,
    "steps by their number": counted,
    "steps by their number by hand": counted_by_hand,
    "loops of all kinds": mixed,
    "batches of the script": by_hand,
}


def main() -> None:
    """Train, as the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("run", choices=[*RUNS, "all"])
    parser.add_argument("kills", nargs="*")
    parser.add_argument("--joined", type=int, nargs=2, default=(0, 0))
    parser.add_argument("--deadly", type=int, nargs=2, default=(-1, -1))
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--unfinished", action="store_true")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    if options.keep:
        keeping._SHARE = np.inf
    if options.unfinished:
        ddbp.Optimizer.finish = lambda *of_another: None
    results = {}
    if settings.survives_by_mpi():
        await_watch()
    for name in RUNS if options.run == "all" else [options.run]:
        killer = Killer(options.folder, options.kills, options.joined, options.deadly)
        killer.saves = options.save
        folder = {"run_dir": options.folder / "run"} if options.save or options.record else {}
        trainer, losses = RUNS[name](name, killer, **folder)
        results[f"{name}: digest"] = np.array(trainer.parameters_sha256())
        results[f"{name}: losses"] = np.array(losses)
        results[f"{name}: found out"] = np.array(found_out(trainer))
        results[f"{name}: ranks"] = np.array(trainer.comm.size)
        if options.record and trainer.comm.leads:
            recording = ddbp.Recording.read(options.folder / "run")
            measured = {"steps": recording.steps, **recording.values}
            results |= {n: each for n, each in measured.items() if not n.startswith("seconds")}
    np.savez(options.folder / f"rank{ddbp.communicator().slot}.npz", **results)


if __name__ == "__main__":
    main()
