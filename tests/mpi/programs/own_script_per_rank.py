"""Become the script FOLDER/script<rank>.py, as if every host had its own copy of the code. Usage:
own_script_per_rank.py FOLDER.
"""

import os
import sys
from pathlib import Path

rank = next(
    os.environ[name]
    for name in ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK")
    if name in os.environ
)
os.execv(sys.executable, [sys.executable, str(Path(sys.argv[1], f"script{rank}.py"))])
