import os
import subprocess
import sys

import pytest

PROGRAM = """
import atexit
from alexnet.runtime.processes import end_process
atexit.register(lambda: print("taken down"))
print("said before the end")
end_process(75)
"""


@pytest.mark.parametrize("size, said", [("1", ["said before the end", "taken down"]), ("2", ["said before the end"])])
def test_one_of_several_ends_before_the_interpreter_is_taken_down(size, said):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60,
        env={**os.environ, "WORLD_SIZE": size},
    )  # fmt: skip
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (75, said, "")
