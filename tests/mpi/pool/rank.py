"""One rank of a job that runs programs one after the other.

Usage: rank.py SOCKET. The rank connects, says which it is, and for each line of JSON that comes,
a program with its arguments and environment, answers with a line: how the program has ended, and
what it has printed.
"""

import io
import json
import os
import runpy
import socket
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import ddbp


def run(program: str, arguments: list[str], environment: dict[str, str]) -> dict[str, object]:
    """Run a program as the script that it is, in this process."""
    out, err, failed = io.StringIO(), io.StringIO(), False
    with (
        redirect_stdout(out),
        redirect_stderr(err),
        mock.patch.dict(os.environ, environment),
        mock.patch.object(sys, "argv", [program, *arguments]),
        mock.patch.object(sys, "path", [str(Path(program).parent), *sys.path]),
    ):
        try:
            runpy.run_path(program, run_name="__main__")
        except BaseException as ended:
            failed = not isinstance(ended, SystemExit) or bool(ended.code)
            if failed:
                traceback.print_exc()
    return {"failed": failed, "out": out.getvalue(), "err": err.getvalue()}


def main() -> None:
    """Run programs until there are no more."""
    rank = ddbp.communicator().rank
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(sys.argv[1])
        with connection.makefile("r") as requests, connection.makefile("w") as answers:
            print(rank, file=answers, flush=True)
            for request in requests:
                print(json.dumps(run(**json.loads(request))), file=answers, flush=True)


if __name__ == "__main__":
    main()
