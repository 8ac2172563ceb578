"""A recorded program is the program: exit code, streams and results are those of a bare run, bit for bit."""

from __future__ import annotations

import pytest

ENDINGS = {
    "ends": "train(3)",
    "raises": "train(3, at=lambda step: 1 / 0 if step == 2 else None)",
    "exits": "train(2)\nsys.exit(3)",
    "exits with a message": "train(2)\nsys.exit('no more data')",
    "leaves at once": "import os\ntrain(2)\nprint('lost', end='')\nos._exit(7)",
    "raises in a thread": """
        import threading
        def work():
            train(2)
            raise ValueError("in a thread")
        thread = threading.Thread(target=work, name="trainer")
        thread.start()
        thread.join()
    """,
    "raises in a module": """
        class Broken(torch.nn.Module):
            def forward(self, x):
                raise RuntimeError("shape")
        train(1)
        torch.nn.Sequential(torch.nn.Linear(2, 2), Broken())(torch.ones(2, 2))
    """,
    "raises in a module with hooks": """
        class Broken(torch.nn.Linear):
            def forward(self, x):
                raise RuntimeError("shape")
        train(1)
        broken = Broken(2, 2)
        broken.register_forward_hook(lambda *_: None)
        torch.nn.Sequential(torch.nn.Linear(2, 2), broken)(torch.ones(2, 2))
    """,
    "raises in backward": """
        train(1)
        x = torch.ones(3, requires_grad=True)
        y = x.exp()
        y.add_(1)
        y.sum().backward()
    """,
    "has an excepthook": """
        def hook(kind, error, tb):
            sys.stderr.write(f"hooked {kind.__name__}\\n")
        sys.excepthook = hook
        train(1)
        1 / 0
    """,
    "is interrupted": "train(1)\nraise KeyboardInterrupt",
}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=[name.replace(" ", "-") for name in ENDINGS])
def test_the_same_as_bare(work, python, ending):
    work.write("train.py", ending)
    bare = work.bare(python, "train.py", "--lr", "1")
    recorded = work.record(python, "train.py", "--lr", "1")
    assert recorded.stdout == bare.stdout
    assert recorded.stderr == bare.stderr
    assert recorded.returncode == bare.returncode
    rank = work.rank()
    assert work.trace().header["exit_status"] == bare.returncode
    assert rank.complete == ("_exit" not in ending)
    assert rank.table("steps")["recorded"].any() or "thread" in ending


def test_the_exception_is_in_the_trace(work, python):
    work.write("train.py", "train(3, at=lambda step: {}['lost'] if step == 2 else None)")
    work.record(python, "train.py")
    exception = work.rank().header["exception"]
    assert (exception["type"], exception["message"]) == ("KeyError", "'lost'")
    assert [frame["function"] for frame in exception["stack"]] == ["<lambda>", "train", "<module>"]


def test_closed_stderr_stdin_and_working_folder_are_the_programs_own(work, python):
    work.write("train.py", "import os\nprint(sys.stdin.read(), os.getcwd(), sys.argv)\nsys.stderr.close()\ntrain(1)")
    lines = f"echo input | {python} train.py a 'b c'"
    bare, recorded = (work.bare("sh", "-c", lines), work.record("sh", "-c", lines))
    assert (recorded.stdout, recorded.stderr) == (bare.stdout, bare.stderr)
    assert recorded.returncode == bare.returncode == 0


def test_open_files_are_inherited_as_by_a_shell(work, python):
    work.write("look.py", "import os; print(os.read(7, 5).decode())", trains=False)
    (work.folder / "input").write_text("seven")
    line = " ".join(work.line(python, "look.py", options=["-o", "t.json"]))
    assert work.bare("sh", "-c", f"{line} 7<input").stdout == b"seven\n"
