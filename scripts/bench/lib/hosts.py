"""Hosts that are network namespaces of this machine, between which packets take time.

Each host has a network of its own with one device, a TUN, whose packets go through a relay: tc
limits what a host sends to a rate (a token bucket), and the relay holds each packet back for a
delay, as not every kernel has netem. Needs the rights to make namespaces, `ip`, `tc`, `nsenter`
and `unshare`.
"""

import ctypes
import fcntl
import heapq
import os
import select
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_MTU = 65000
"""Bytes of a packet: few large ones, so that the relay takes little of the processor."""
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 1, 0x1000
_CLONE_NEWNET = 0x40000000
_TOOLS = ("ip", "tc", "nsenter", "unshare")
_HEADER = struct.Struct("!16xI")
"""The destination in the header of an IPv4 packet."""


@dataclass(frozen=True)
class Link:
    """What connects hosts.

    Attributes
    ----------
    megabits
        That a host sends in a second.
    milliseconds
        That a packet takes, one way.
    """

    megabits: float
    milliseconds: float


def missing() -> str:
    """Return what is missing for hosts of one's own, "" if nothing is."""
    lacking = [name for name in _TOOLS if shutil.which(name) is None]
    if lacking:
        return " ".join(lacking)
    tried = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    return "" if not tried.returncode and os.access("/dev/net/tun", os.W_OK) else "rights"


@contextmanager
def hosts(number: int, link: Link, folder: Path) -> Iterator[list[str]]:
    """Return a context with so many hosts, and the words before `-n RANKS COMMAND…` by which
    MPICH's launcher starts ranks on them in turn.
    """
    sleepers = [_sleeper() for _ in range(number)]
    relay = None
    try:
        relay = subprocess.Popen(
            [sys.executable, __file__, str(link.milliseconds), *(str(p.pid) for p in sleepers)],
            stdout=subprocess.PIPE,
        )
        assert relay.stdout is not None
        if relay.stdout.readline() != b"ready\n":
            raise RuntimeError("the relay between hosts has not begun")
        for host, sleeper in enumerate(sleepers, 1):
            _configure(sleeper.pid, host, link)
        shell = folder / "shell"
        shell.write_text(_shell([sleeper.pid for sleeper in sleepers]))
        shell.chmod(0o755)
        names = ",".join(f"10.77.0.{host}" for host in range(1, number + 1))
        first = ["nsenter", f"--net=/proc/{sleepers[0].pid}/ns/net"]
        launcher = ["mpiexec", "-launcher", "ssh", "-launcher-exec", str(shell), "-iface", "t0"]
        yield [*first, *launcher, "-hosts", names]
    finally:
        for process in (*sleepers, *([relay] if relay else [])):
            process.kill()
            process.wait()


def _sleeper() -> subprocess.Popen[bytes]:
    """Return a process that has a network of its own."""
    process = subprocess.Popen(["unshare", "--net", "--uts", "sleep", "3600"])
    own = os.readlink("/proc/self/ns/net")
    with suppress(OSError):
        while os.readlink(f"/proc/{process.pid}/ns/net") == own:
            time.sleep(0.01)
    return process


def _configure(pid: int, host: int, link: Link) -> None:
    burst = max(2 * _MTU, int(link.megabits * 1e6 / 8 / 1000))
    for command in (
        f"ip addr add 10.77.0.{host}/24 dev t0",
        f"ip link set t0 mtu {_MTU} txqueuelen 2000 up",
        "ip link set lo up",
        f"tc qdisc add dev t0 root tbf rate {link.megabits}mbit burst {burst} latency 2000ms",
    ):
        subprocess.run(["nsenter", f"--net=/proc/{pid}/ns/net", *command.split()], check=True)


def _shell(pids: list[int]) -> str:
    """Return what the launcher calls as a remote shell: options, host, command."""
    cases = "\n".join(
        f"10.77.0.{host}) exec nsenter --net=/proc/{pid}/ns/net --uts=/proc/{pid}/ns/uts"
        f' unshare --ipc sh -c "hostname host{host}; $*";;'
        for host, pid in enumerate(pids, 1)
    )
    return f"""#!/bin/sh
while [ "${{1#10.}}" = "$1" ]; do shift; done
host=$1
shift
case $host in
{cases}
esac
"""


def _relay(delay: float, pids: list[int]) -> None:
    """Hand packets from host to host, each after `delay` seconds, until killed."""
    devices = [_device(pid) for pid in pids]
    of_address = {(10 << 24) + (77 << 16) + host: fd for host, fd in enumerate(devices, 1)}
    print("ready", flush=True)
    poll = select.poll()
    for fd in devices:
        poll.register(fd, select.POLLIN)
    waiting: list[tuple[float, int, int, bytes]] = []
    number = 0
    while True:
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, fd, packet = heapq.heappop(waiting)
            with suppress(OSError):
                os.write(fd, packet)
        left = None if not waiting else max(0.0, 1e3 * (waiting[0][0] - time.monotonic()))
        # Less than a millisecond is not slept.
        for fd, _ in poll.poll(None if left is None else int(left)):
            with suppress(BlockingIOError):
                while True:
                    packet = os.read(fd, 65535)
                    to = of_address.get(_HEADER.unpack_from(packet)[0])
                    if to is not None:
                        number += 1
                        due = time.monotonic() + delay
                        heapq.heappush(waiting, (due, number, to, packet))


def _device(pid: int) -> int:
    """Return the device of the network of a process, as a file."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/proc/{pid}/ns/net") as namespace:
        if libc.setns(namespace.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH14x", b"t0", _IFF_TUN | _IFF_NO_PI))
    return fd


if __name__ == "__main__":
    _relay(float(sys.argv[1]) / 1e3, [int(pid) for pid in sys.argv[2:]])
