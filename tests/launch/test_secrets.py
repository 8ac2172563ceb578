"""No secret of a command line is written, in whichever way it is given, and nobody else may read what is."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from memtrace.hooks.failure.crash import MAX_MESSAGE_CHARS, describe
from memtrace.launch.output import LAUNCHER_FILE, plan_output, write_launcher
from memtrace.schema.secret_arguments import MASK, masked_arguments
from memtrace.store.writing.trace import write_trace
from tests.builders import rank_trace, trace_of
from tests.conftest import RunMemtrace

SECRET = "Zq9x7Lm2Vw8s"
NAMES = [
    "token",
    "hf-token",
    "api_key",
    "apikey",
    "password",
    "PASSWD",
    "client-secret",
    "secret_access_key",
    "credential",
]
BY_LOOK = [
    f"hf_{SECRET}",
    f"sk-{SECRET}",
    f"ghp_{SECRET}",
    f"github_pat_{SECRET}",
    "AKIA" + SECRET.upper(),
    f"xoxb-{SECRET}",
    f"glpat-{SECRET}",
    f"nvapi-{SECRET}",
    f"sk_live_{SECRET}",
    f"AIza{SECRET}{SECRET}",
    f"eyJhbGciOiJI.eyJzdWIiOiIx.{SECRET}",
]


@pytest.fixture
def open_umask() -> Iterator[None]:
    """A umask under which everybody may read and write what is made."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.parametrize("name", NAMES)
def test_the_value_of_a_secret_is_masked_however_it_is_given(name: str) -> None:
    given = [f"--{name}={SECRET}", f"--{name}", SECRET, f"+{name}={SECRET}", f"x.{name}={SECRET}", f"-{name}", SECRET]
    shown = masked_arguments(["train.py", *given, "--lr", "0.1"])
    assert SECRET not in " ".join(shown)
    assert len(shown) == len(given) + 3
    assert [shown[0], *shown[-2:]] == ["train.py", "--lr", "0.1"]
    assert all(name in one or one == MASK for one in shown[1:-2])


@pytest.mark.parametrize("secret", BY_LOOK)
def test_a_secret_is_known_by_its_look(secret: str) -> None:
    for argument in (secret, f"--auth={secret}", f"https://{secret}@host/repo.git", f"print('{secret}')"):
        (shown,) = masked_arguments([argument])
        assert secret not in shown
        assert MASK in shown


def test_passwords_in_urls() -> None:
    shown = masked_arguments([f"postgres://me:{SECRET}@host:5432/runs", f"--db=https://me:a@{SECRET}@host/"])
    assert shown == [f"postgres://me:{MASK}@host:5432/runs", f"--db=https://me:{MASK}@host/"]


@pytest.mark.parametrize(
    "argument",
    [
        "python train.py --token {} --lr 1",
        'python train.py --password "{}" --lr 1',
        "export HF_TOKEN={}; python train.py",
        "HF_TOKEN={}",
        "--set=hub.token={}",
        "hub:\n  token: {}\n",
        "Authorization: Basic {}",
        "curl -H 'authorization: bearer {}'",
        "DefaultEndpointsProtocol=https;AccountKey={};EndpointSuffix=x",
        "https://account.blob.core.windows.net/c/b?sv=1&sig={}&se=2",
        "https://hooks.slack.com/services/{}",
        "https://me:{}@host/x",
    ],
)
def test_a_secret_inside_an_argument(argument: str) -> None:
    (shown,) = masked_arguments([argument.format(SECRET)])
    assert SECRET not in shown
    assert shown.replace('"', "") == argument.format(MASK).replace('"', "")


@pytest.mark.parametrize(
    "message",
    [
        "Command '['curl', '--token', '{}', 'x']' returned non-zero exit status 1.",
        "Command 'login --password {} --me' timed out",
        "400: {{'user': 'me', 'api_key': '{}'}}",
        "could not connect: host=db password={} dbname=x",
        "https://me:{}@host/x: 401",
        "bad header 'Authorization: Bearer {}'",
    ],
)
def test_a_message_that_quotes_a_command_or_a_request(message: str) -> None:
    error = ValueError(message.format(SECRET))
    assert describe(type(error), error, None)["message"] == message.format(MASK)


@pytest.mark.parametrize(
    "message",
    [
        "Error(s) in loading state_dict for GPT:\n\tUnexpected key(s) in state_dict: 'token.weight'.",
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB",
        "'hidden-size' is not a multiple of 'num-key-value-heads': 8",
        "forward() got an unexpected keyword argument 'cache'",
        "size mismatch for embed_tokens.weight: copying a param with shape torch.Size([8, 4])",
    ],
)
def test_other_messages_stay(message: str) -> None:
    assert describe(RuntimeError, RuntimeError(message), None)["message"] == message


def test_a_message_that_repeats_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "orig_argv", ["python", "t.py", "--hub-token", SECRET, "--sort-key", "memory", "--key", "sequence"]
    )
    monkeypatch.setenv("WANDB_API_KEY", SECRET[::-1])
    error = ValueError(f"{SECRET!r} is not {SECRET[::-1]}; out of memory in {SECRET}x, sequences")
    message = describe(type(error), error, None)["message"]
    assert message == f"'{MASK}' is not {MASK}; out of memory in {MASK}x, sequences"


def test_a_secret_is_not_cut_in_half(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ValueError("." * (MAX_MESSAGE_CHARS - 10) + f" hf_{SECRET}")
    message = describe(type(error), error, None)["message"]
    assert SECRET[:4] not in message
    assert len(message) <= MAX_MESSAGE_CHARS


def test_other_arguments_stay() -> None:
    command = "torchrun --nproc-per-node 8 -m pkg.train --gbs-tokens 4000000 --keyframes=3 tcp://host:29500 user@host"
    assert masked_arguments(command.split()) == command.split()


@pytest.mark.usefixtures("open_umask")
def test_files_are_their_owners_alone(tmp_path: Path) -> None:
    output = plan_output(tmp_path / "t.json", ["python", "train.py"], force=False, environ={})
    write_launcher(output, {})
    write_trace(trace_of(rank_trace()), tmp_path / "trace.json.gz")
    for path in (output.parts_dir / LAUNCHER_FILE, tmp_path / "trace.json.gz"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_nobody_else_can_read_a_recording_while_it_runs(tmp_path: Path, run_memtrace: RunMemtrace, umask: int) -> None:
    (tmp_path / "train.py").write_text(
        "import glob, json, os, torch\n"
        "model = torch.nn.Linear(2, 2)\n"
        "optimizer = torch.optim.SGD(model.parameters())\n"
        "for _ in range(3):\n"
        "    model(torch.ones(1, 2)).sum().backward(); optimizer.step()\n"
        "paths = [*glob.glob('*.parts'), *glob.glob('*.parts/*')]\n"
        "print(json.dumps({path: os.stat(path).st_mode for path in paths}))\n"
    )
    command = ("record", "-o", "t.json", "--profile", "--", sys.executable, "train.py")
    done = run_memtrace(*command, cwd=tmp_path, umask=umask)
    modes = json.loads(done.stdout)
    # What torch writes itself lies in a folder that only its owner may enter.
    assert {stat.S_IMODE(modes.pop("t.json.parts"))} == {0o700}
    ours = {path: mode for path, mode in modes.items() if not path.endswith(".kineto.json")}
    assert len(ours) >= 4
    assert {stat.S_IMODE(mode) for mode in ours.values()} == {0o600}


def test_a_recording_holds_no_secret(tmp_path: Path, run_memtrace: RunMemtrace) -> None:
    kept = tmp_path / "seen.json"
    (tmp_path / "train.py").write_text(
        "import glob, shutil, sys, torch\n"
        f"shutil.copy(glob.glob('*.parts/launcher.json')[0], {str(kept)!r})\n"
        "assert sys.argv[-1].startswith('Zq')\n"
        "model = torch.nn.Linear(2, 2)\n"
        "optimizer = torch.optim.SGD(model.parameters())\n"
        "model(torch.ones(1, 2)).sum().backward(); optimizer.step()\n"
        f"raise ValueError('no access with hf_{SECRET}')\n"
    )
    done = run_memtrace("record", "-o", "t.json", "--", sys.executable, "train.py", "--password", SECRET, cwd=tmp_path)
    assert done.returncode == 1
    trace = tmp_path / "t.json"
    for path in (kept, trace):
        assert SECRET not in path.read_text()
        assert MASK in path.read_text()
    assert json.loads(trace.read_text())["header"]["command"][-2:] == ["--password", MASK]
    assert stat.S_IMODE(trace.stat().st_mode) == 0o600
