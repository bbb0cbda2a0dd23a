"""Hosts that are network namespaces of this machine, between which packets take time.

Each host has a network of its own with one device, and tc limits what a host sends to a rate (a
token bucket). Packets that take time go through a relay, which holds each back for a delay, as not
every kernel has netem: the device is a TUN. Those that take none go through a bridge of the kernel,
which carries more: the device is a veth. Needs the rights to make namespaces, `ip`, `tc`, `nsenter`
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
        That a packet takes, one way, beside the time of the kernel.
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
    processes = [_sleeper() for _ in range(number)]
    pids = [process.pid for process in processes]
    try:
        if link.milliseconds:
            processes.append(_relayed(pids, link.milliseconds))
        else:
            processes.append(_bridged(pids))
        for host, pid in enumerate(pids, 1):
            _configure(pid, host, link)
        shell = folder / "shell"
        shell.write_text(_shell(pids))
        shell.chmod(0o755)
        names = ",".join(f"10.77.0.{host}" for host in range(1, number + 1))
        launcher = ["mpiexec", "-launcher", "ssh", "-launcher-exec", str(shell), "-iface", "t0"]
        yield [*_inside(pids[0]), *launcher, "-hosts", names]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _relayed(pids: list[int], milliseconds: float) -> subprocess.Popen[bytes]:
    """Return the relay between the networks of these processes."""
    relay = subprocess.Popen(
        [sys.executable, __file__, str(milliseconds), *map(str, pids)], stdout=subprocess.PIPE
    )
    assert relay.stdout is not None
    if relay.stdout.readline() != b"ready\n":
        raise RuntimeError("the relay between hosts has not begun")
    return relay


def _bridged(pids: list[int]) -> subprocess.Popen[bytes]:
    """Return a process in whose network a bridge connects those of these processes."""
    switch = _sleeper()
    _ip(switch.pid, f"link add b0 mtu {_MTU} type bridge")
    _ip(switch.pid, "link set b0 up")
    for pid in pids:
        port = f"p{pid}"
        _ip(switch.pid, f"link add {port} mtu {_MTU} type veth peer name t0 netns {pid}")
        _ip(switch.pid, f"link set {port} master b0 up")
    return switch


def _inside(pid: int) -> list[str]:
    """Return the words before a command that runs in the network of a process."""
    return ["nsenter", f"--net=/proc/{pid}/ns/net"]


def _ip(pid: int, command: str) -> None:
    subprocess.run([*_inside(pid), "ip", *command.split()], check=True)


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
    _ip(pid, f"addr add 10.77.0.{host}/24 dev t0")
    _ip(pid, f"link set t0 mtu {_MTU} txqueuelen 2000 up")
    _ip(pid, "link set lo up")
    rate = f"tc qdisc add dev t0 root tbf rate {link.megabits}mbit burst {burst} latency 2000ms"
    subprocess.run([*_inside(pid), *rate.split()], check=True)


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
    # Before the ranks, which wait without sleep.
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    print("ready", flush=True)
    waiting: list[tuple[float, int, int, bytes]] = []
    number = 0
    while True:
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, fd, packet = heapq.heappop(waiting)
            with suppress(OSError):
                os.write(fd, packet)
        left = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        for fd in select.select(devices, [], [], left)[0]:
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
