"""What the commands that answer a question say, whole: text, JSON, the page and the files they write.

In: command lines, run in this process from inside `traces/`. Out: the content of each gold file by its name. A page is
kept without the style sheet and the script that it shares with others, with an element a line.
"""

from __future__ import annotations

import json
import re
import shlex
import tempfile
from pathlib import Path

from click.testing import CliRunner, Result

from memtrace import __version__
from memtrace.cli import group
from memtrace.report.drawing.palette import css_variables
from memtrace.report.page.assets import viewer_text, viewers_folder
from tests.gold.rendered import ANSWERS, TRACES, VERSION, inside, pretty

COMMANDS = {
    "estimate-dense": "estimate --preset llama-3-8b --micro-batch 2 --sequence 4096 --accumulation 4 --dp 4 --tp 2 "
    "--pp 2 --zero 1 --recompute selective --gpu h100-80gb",
    "estimate-fsdp": "estimate --preset mistral-7b --micro-batch 1 --sequence 8192 --dp 16 --zero 3 --cp 2 "
    "--recompute full --optimizer lion --precision bf16 --gpu a100-40gb",
    "estimate-moe": "estimate --preset mixtral-8x7b --sequence 2048 --dp 8 --tp 2 --ep 4 --zero 2 --precision "
    "fp8-mixed --no-sequence-parallel --gpu 80GiB",
    "estimate-explicit": "estimate --layers 4 --hidden 256 --heads 8 --kv-heads 2 --ffn 768 --gated --vocabulary 1000 "
    "--micro-batch 3 --sequence 128 --attention explicit --dropout 0.1 --precision autocast --optimizer sgd-momentum "
    "--dp 2 --bucket-view --gpu 24GiB",
    "estimate-count": "estimate --params 7B --optimizer adam-8bit --precision bf16-mixed-fp32-grad --attention sdpa "
    "--dp 2 --fused --gpu 8GiB",
    "estimate-against": "estimate --layers 2 --hidden 64 --heads 4 --vocabulary 95 --micro-batch 4 --sequence 64 "
    "--precision fp32 --backend cpu --attention sdpa --against gpt.json.gz",
    "plan-node": "plan --preset llama-3-8b --gpus 8 --gpu h100-80gb --gbs-tokens 1M --sequence 4096 --top 4",
    "plan-nodes": "plan --preset mixtral-8x7b --gpus 8 --gpu a100-80gb --gbs-tokens 128K --sequence 2048 --top 3 "
    "--gpus-per-node 4 --intra-gbs 200 --inter-gbs 10 --compute-share 0.4 --optimizer adam-8bit",
    "plan-nothing-fits": "plan --preset llama-3-70b --gpus 4 --gpu 24GiB --gbs-tokens 64K --sequence 2048 --top 2",
    "diff-micro-batches": "diff gpt.json.gz accumulation-checkpointing.json.gz",
    "diff-ranks": "diff gpt.json.gz ddp.json.gz",
    "diff-snapshots": "diff snapshot.pickle oom-snapshot.pickle",
    "diff-leak": "diff leak.json.gz oom.json.gz",
    "check-passes": "check gpt.json.gz --budget peak=1GiB --budget 'activation<1GiB' --budget end.parameter=1GiB "
    "--budget 'steady_peak<=20MiB' --budget first_step_peak=1GiB",
    "check-fails": "check ddp.json.gz --budget peak=1MiB --budget 'step_end<2MiB' --baseline gpt.json.gz "
    "--tolerance 3%",
    "check-grows": "check accumulation-checkpointing.json.gz --baseline gpt.json.gz",
    "check-reserved": "check snapshot.pickle --budget reserved=20MiB --budget end=1GiB --baseline oom-snapshot.pickle",
    "whatif-settings": "whatif snapshot.pickle --alloc-conf expandable_segments:True --alloc-conf "
    "max_split_size_mb:64,garbage_collection_threshold:0.6 --capacity 40MiB --capacity 1GiB",
    "whatif-advise": "whatif snapshot.pickle --advise",
    "whatif-oom": "whatif oom-snapshot.pickle --advise --capacity 24MiB",
    "whatif-no-steps": "whatif oom-snapshot.pickle --empty-cache-each-step",
    "whatif-too-small": "whatif snapshot.pickle --capacity 26MiB --capacity 18MiB --alloc-conf "
    "expandable_segments:True --scale unknown=1.5",
    "whatif-sizes": "whatif gpt.json.gz --as cuda --scale activation=0.5 --shard optimizer_state=8 --drop temporary "
    "--capacity 24MiB",
    "whatif-recompute": "whatif accumulation-checkpointing.json.gz --as cuda --recompute full --capacity 1GiB",
    "whatif-selective": "whatif gpt.json.gz --as cuda --recompute selective",
    "whatif-ranks": "whatif ddp.json.gz --as cuda --scale gradient=2 --empty-cache-each-step",
    "export-speedscope": "export gpt.json.gz --to speedscope",
    "export-perfetto": "export oom-snapshot.pickle --to perfetto",
}
"""Every command line by the name of its gold files."""

_PAGE = {"--html": "page.html"}
_FILES = {
    "estimate": _PAGE,
    "plan": _PAGE,
    "diff": _PAGE,
    "whatif": _PAGE,
    "check": {"--junit": "junit.xml", "--markdown": "md"},
}
"""Options that have a command write files, with the ends of their names."""
_POLICY = re.compile(r"<meta http-equiv=[^>]*>\n")
_SCRIPT = re.compile(r'(<script type="module">).*?(</script>)', re.DOTALL)


def answered(name: str) -> dict[str, str]:
    """Return the content of each gold file of a command by its name."""
    words = shlex.split(COMMANDS[name])
    with inside(TRACES), tempfile.TemporaryDirectory() as folder:
        if words[0] == "export":
            _run([*words, "-o", f"{folder}/exported"])
            return {f"{ANSWERS}/{name}.json": pretty(json.loads(Path(folder, "exported").read_text(encoding="utf-8")))}
        options = _FILES.get(words[0], {})
        text = _run([*words, *(word for option, file in options.items() for word in (option, f"{folder}/{file}"))])
        files = {
            f"{ANSWERS}/{name}.{file}": Path(folder, file).read_text(encoding="utf-8")
            for file in options.values()
            if Path(folder, file).exists()
        }
        document = _run([*words, "--json"])
    shown = f"$ memtrace {COMMANDS[name]}\n{text.output.replace(folder, '')}[exit code {text.exit_code}]\n"
    assert document.exit_code == text.exit_code
    assert not document.stdout or re.match(r'\{\n  "format": .*\n\}\n$', document.stdout, re.DOTALL)
    return {
        f"{ANSWERS}/{name}.txt": shown,
        **({f"{ANSWERS}/{name}.json": pretty(json.loads(document.stdout))} if document.stdout else {}),
        **{file: own_part(content) if file.endswith(".html") else content for file, content in files.items()},
    }


def _run(words: list[str]) -> Result:
    result = CliRunner().invoke(group, words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def own_part(page: str) -> str:
    """Return a page without what all pages share, an element a line."""
    page = _SCRIPT.sub(r"\1\2", _POLICY.sub("", page)).replace(css_variables(), "").replace(__version__, VERSION)
    for sheet in viewers_folder().glob("*.css"):
        page = page.replace(viewer_text(sheet.name), "")
    return re.sub("><(?!/)", ">\n<", page)
