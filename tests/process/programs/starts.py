"""Ways to start Python, and what a program reads of how it was started."""

from __future__ import annotations

from tests.process.conftest import TRAIN
from tests.process.programs.row import Row

LOOK = "import os\nprint(sys.argv, sys.flags, sys.warnoptions, __name__, os.getcwd())\n"
PACKAGE = {"pkg/__init__.py": "", "pkg/__main__.py": f"{TRAIN}\nprint(sys.argv[1:], __package__)\ntrain(2)"}
BY_ANOTHER_THREAD = """
import threading
loaded = threading.Event()

def load():
    import torch
    loaded.set()
    if stays:
        threading.Event().wait()

threading.Thread(target=load, daemon=True).start()
loaded.wait()
"""
ROWS = [
    *(
        Row(
            f"torch-is-imported-by-a-thread-that-{name}",
            "",
            words=("late.py",),
            more_files={"late.py": f"stays = {stays}\n{BY_ANOTHER_THREAD}\n{TRAIN}\ntrain(3)"},
            is_cold=True,
        )
        for name, stays in (("ends", False), ("stays", True))
    ),
    Row("a-name-that-is-not-utf-8", "", words=("n\udcff.py",), more_files={"n\udcff.py": f"{TRAIN}\ntrain(3)"}),
    Row(
        "options-of-python",
        f"{LOOK}\nassert False, 'left out by -O'\ntrain(2)\nopen('left-open.txt', 'w')",
        words=("-X", "dev", "-W", "error::UserWarning", "-O", "-u", "train.py", "a"),
        is_cold=True,
    ),
    Row("code-on-the-command-line", "", words=("-c", f"{TRAIN}\n{LOOK}\ntrain(2)", "a"), is_cold=True),
    Row("code-on-stdin", "", words=("-", "a"), stdin=f"{TRAIN}\n{LOOK}\ntrain(2)\nraise ValueError(3)", is_cold=True),
    Row("a-package", "", words=("-m", "pkg", "a"), more_files=PACKAGE),
    Row(
        "run-by-runpy",
        """
import runpy
train(1)
runpy.run_module("pkg", run_name="__main__")
print(sorted(runpy.run_path("plain.py")))
""",
        more_files={**PACKAGE, "plain.py": "value = 3"},
    ),
    Row("reads-stdin", "train(1)\nprint(input('? '))\ntrain(1)\nprint(sys.stdin.read())", stdin="one\ntwo\nthree\n"),
    Row("all-steps-and-no-stacks", "train(4)", options=(("steps", "1-"), ("stacks", "none"))),
    Row("the-last-step-and-all-stacks", "train(4)", options=(("steps", "last1"), ("stacks", "all"))),
    Row("a-profile", "train(3)", options=(("profile", True),)),
]
