"""Become the script FOLDER/script<rank>.py, as if every host had its own copy of the code. Usage:
own_script_per_rank.py FOLDER.
"""

import runpy
import sys

import ddbp

runpy.run_path(f"{sys.argv[1]}/script{ddbp.communicator().rank}.py", run_name="__main__")
