"""What is asked about an input: every command that reads, every tool of the MCP server, reading back in a script.

A question is the words of a command line. `{input}` stands for the input, `{sound}` for a trace that is not broken,
`{output}` for a file to write.
"""

from __future__ import annotations

import random

from memtrace.analysis.asked.dataframes import NAMES as TABLES
from memtrace.schema.names import Category
from tests.fuzz.broken_input import BrokenInput
from tests.fuzz.values import NUMBERS, TEXTS

_TRACE = (
    "report {input}",
    "report {input} --json",
    "report {input} --html {output} --force",
    "report {input} --full --markdown {output} --force",
    "report {input} --section steps",
    "report {input} --card {output}.svg --markdown -",
    "report {input} --html {output} --force --no-source --capacity 1MiB",
    "report {input} {sound} --capacity 4KiB --fail-on oom",
    "report file://{input}",
    "diff {input} {sound} --json",
    "diff {sound} {input}",
    "diff {sound} {input} {sound}",
    "diff {input} {sound} --markdown -",
    "diff {input} {input} --html {output} --force",
    "check {input} --budget peak=1MiB --budget activation<1KiB --junit {output} --force",
    "check {input} --budget end.parameter=1GiB --baseline {sound} --json",
    "check {sound} --baseline {input} --tolerance 3% --markdown {output} --force",
    "whatif {input}",
    "fix {input} --capacity 1MiB -o {output} --force",
    "fix {input} --capacity 1GiB --json",
    "whatif {input} --advise --json",
    "whatif {input} --as cuda --capacity 1MiB --html {output} --force",
    "whatif {input} --as cuda --scale activation=0.5 --drop gradient --shard optimizer_state=8 --empty-cache-each-step",
    "whatif {input} --recompute full --as cuda",
    "whatif {input} --recompute selective --alloc-conf expandable_segments:True --capacity 1GiB",
    "export {input} --to perfetto -o {output} --force",
    "export {input} --to memory-viz -o {output} --force",
    "export {input} --to memory-viz --rank 0 -o {output} --force",
    "export {input} --to speedscope -o {output} --force",
    "export {input} --to csv -o {output} --force",
    "export {input} --to csv --table {table} -o {output} --force",
    "export {input} --to trace -o {output} --force",
    "export {input} --to trace --redact -o {output}.gz",
    "export {input} --to trace --no-source -o {output} --force",
    "report {input} --redact --json",
    "whatif {input} --no-source --as cuda",
    "diff {input} {sound} --no-source --json",
    "inspect {input} --table {table} --head 1000000",
    "inspect {input} --table {table} --json",
    "inspect {input}",
    "estimate --preset gpt2 --backend cpu --precision fp32 --against {input}",
    "mcp summary trace={input}",
    "mcp summary trace={input} capacity=1MiB",
    "mcp findings trace={input}",
    "mcp peak trace={input}",
    "mcp peak trace={input} moment=step_peak step=1",
    "mcp peak trace={input} moment=end",
    "mcp diff a={input} b={sound}",
    "mcp what_if trace={input} advise=true",
    "mcp check trace={input} budgets=peak=1MiB baseline={sound}",
    "show {input}",
)
_RUNNING = ("live {input} --once", "trigger {input}")
_FOLDER = (
    "merge {input} -o {output}.json",
    "merge {input} -o {output}.d --force",
    "trend {input} --html {output} --force",
    "trend {input} --json",
    "merge {input} -o {output}.json.gz --redact",
)
_CONFIG = (
    "estimate --config {input}",
    "estimate --config {input} --json --gpu 24GiB --recompute full --dp 8 --zero 3",
    "estimate --config {input} --html {output} --force --tp 2 --pp 2 --attention explicit",
    "plan --config {input} --gpus 8 --gpu 24GiB --gbs-tokens 64K --sequence 512",
    "plan --config {input} --gpus 16 --gpu h100-80gb --gbs-tokens 64K --sequence 512 --json",
    "report {input}",
    "doctor --python {input} --timeout 5",
)
_LAYOUTS = ("plan --evaluate {input} --json", "plan --evaluate {input} --gpu 24GiB --sequence 128 --preset gpt2")
_ARGUMENTS = (
    *_TRACE,
    "estimate --preset gpt2 --micro-batch 2 --sequence 128 --gpu 24GiB",
    "estimate --params 7B --precision bf16 --optimizer lion --dropout 0.1 --tp 2 --cp 2",
    "estimate --layers 2 --hidden 64 --heads 4 --kv-heads 2 --ffn 256 --vocabulary 100 --accumulation 2 --ep 1",
    "plan --params 7B --gpus 8 --gpu 24GiB --gbs-tokens 1M --sequence 2048 --compute-share 0.5 --intra-gbs 300 --top 3",
    "live nothing --once --interval 1",
    "trigger nothing --steps 2",
    "merge {input} -o {output}",
)
_BY_KIND = {
    **dict.fromkeys(("trace", "snapshot", "profile"), _TRACE),
    "run": (*_TRACE, *_FOLDER * 4, *_RUNNING),
    "parts": (*_TRACE, *_FOLDER * 4, *_RUNNING * 8),
    "config": _CONFIG,
    "layouts": _LAYOUTS,
    "state": ("fit-state {input}",),
}
NUM_ASKED = 2
"""Questions about one input."""
ODD = ("9" * 400, "a" * 300, "-1", "1e999", "0", "nan", "٣", "1" * 30, "1000000", "1000000000", "\x1b[31m", "--", "")
"""What a word of a command line may be replaced by."""
OUTPUTS = ("a" * 300, "", ".", "/", "/dev/full", "/dev/null", "/proc/x", "missing/x", "input", "a/" * 3000)
"""What the name of an output may be replaced by."""
_POSSIBLE = tuple(text for text in TEXTS if text.isascii() and "\0" not in text)
"""Texts that a system takes as words of a command line."""


def questions(random_: random.Random, made: BrokenInput, *, sound: str, output: str) -> list[list[str]]:
    """Return what is asked about an input, as words of command lines."""
    if made.kind == "arguments":
        return [_odd(random_, words) for words in _filled(random_, _ARGUMENTS, made, sound, output)]
    return _filled(random_, _BY_KIND[made.kind], made, sound, output)


def _filled(
    random_: random.Random, texts: tuple[str, ...], made: BrokenInput, sound: str, output: str
) -> list[list[str]]:
    chosen = random_.sample(texts, min(NUM_ASKED, len(texts)))
    table = random_.choice(TABLES)
    places = {"input": str(made.path), "sound": sound, "output": output, "table": table}
    return [[word.format(**places) for word in text.split()] for text in chosen]


def _odd(random_: random.Random, words: list[str]) -> list[str]:
    """Return words with one value that nobody expects; never the name of the command."""
    writes = [at for at in range(1, len(words)) if words[at - 1] in ("-o", "--html", "--junit", "--markdown")]
    if writes and random_.random() < 0.2:
        return [*words[: writes[0]], random_.choice(OUTPUTS), *words[writes[0] + 1 :]]
    after = [at for at in range(1, len(words)) if at not in writes]
    after = [at for at in after if words[at - 1] != "mcp"]
    at = random_.choice([one for one in after if not words[one].startswith("-")] or after)
    if words[0] in ("live", "trigger"):
        # A number may be that of a process.
        odd = random_.choice(("9" * 400, "a" * 300, "", "\x1b[31m", "/", "."))
    else:
        odd = random_.choice((*ODD, *_POSSIBLE, *Category, *map(_number, NUMBERS)))
    name, equals, _ = words[at].partition("=")
    return [*words[:at], f"{name}={odd}" if equals else str(odd), *words[at + 1 :]]


def _number(value: int | float) -> str:
    # More digits than Python prints of an int are asked for by "9" * 400.
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:400]
