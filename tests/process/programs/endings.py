"""Every way in which a program ends, before it trains and after."""

from __future__ import annotations

from tests.process.programs.row import Row

FAIL_DEEP = """
def fail_deep():
    try:
        model(torch.ones(2, 3))
    except RuntimeError as error:
        raise ValueError("of the program") from error
fail_deep()
"""
AFTER_TRAINING = {
    "returns": "",
    "exits": "sys.exit(3)",
    "exits-with-a-message": "sys.exit('no more')",
    "exits-hard": "import os; os._exit(4)",
    "raises": "raise ValueError('of the program')",
    "raises-in-torch": FAIL_DEEP,
    "raises-many": "raise ExceptionGroup('many', [ValueError(1), TypeError(2)])",
    "raises-in-a-step": "optimizer.step(lambda: 1 / 0)",
    "raises-in-backward": "torch.ones(2).backward()",
    "raises-in-a-hook": "model.weight.register_hook(lambda grad: 1 / 0)\ntrain(1)",
    "recurses": "def down(): return down()\ndown()",
    "is-interrupted": "train(1, at=lambda step: __import__('signal').raise_signal(2))",
    "is-terminated": "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)",
    "is-killed": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    "aborts": "import os, resource\nresource.setrlimit(resource.RLIMIT_CORE, (0, 0))\nos.abort()",
    "handles-a-signal": """
import os, signal
signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))
try:
    os.kill(os.getpid(), signal.SIGTERM)
    train(1)
finally:
    print("cleaned up")
""",
    "raises-in-a-thread": """
import threading
thread = threading.Thread(target=fail, name="worker")
thread.start(); thread.join()
""",
    "has-its-own-hooks": """
import atexit, threading
sys.excepthook = lambda kind, error, tb: print("own", kind.__name__, error, tb.tb_lineno)
threading.excepthook = lambda args: print("own of threads", args.exc_type.__name__)
atexit.register(lambda: print("exit", sys.excepthook.__name__, getattr(sys, "last_value", None)))
thread = threading.Thread(target=fail)
thread.start(); thread.join()
fail()
""",
    "fails-at-exit": "import atexit\natexit.register(fail)\natexit.register(train, 1)",
    "becomes-another-program": "import os\nos.execv(sys.executable, ['python', '-c', 'print(3); raise SystemExit(5)'])",
}
BEFORE_TRAINING = {
    "exits-at-once": "sys.exit(3)",
    "raises-at-once": "model(torch.ones(3, 3))",
    "becomes-another-program-at-once": "import os\nos.execv('/bin/sh', ['sh', '-c', 'echo hello; exit 6'])",
}
FAIL = "\ndef fail(): raise ValueError('of the program')\n"
ROWS = [
    *(Row(name, f"{FAIL}train(2)\n{source}") for name, source in AFTER_TRAINING.items()),
    *(Row(name, source, trains=False) for name, source in BEFORE_TRAINING.items()),
    Row("ends-in-full", f"{FAIL}train(2)\nimport atexit\natexit.register(print, 'last')", ends_in_full=True),
]
