"""Arguments that look like secrets: their values are masked before a command line is written anywhere.

Rather one value too many than one too few: what is lost is a value that somebody can look up, not a key.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

MASK = "***"
"""What stands in place of a secret."""

# The end of a name: `--gbs-tokens 4000000` and `--num-key-value-heads 8` are no secrets.
_NAME = r"[\w.\-]*?(?:token|key|pass(?:word|wd|phrase)|secrets?|credentials?|secret[\w\-]*)"
_FLAG = re.compile(rf"-{{1,2}}{_NAME}|login", re.IGNORECASE)
_WHOLE = re.compile(rf"(?P<name>-{{0,2}}\+{{0,2}}{_NAME}=)(?P<value>.+)", re.IGNORECASE | re.DOTALL)
# Inside a text: a query of a URL, JSON, code after -c.
_ASSIGNED = re.compile(
    rf"(?P<name>(?<![\w.\-]){_NAME}[\"']?\s*[:=]\s*)(?:\"[^\"]*\"|'[^']*'|[^\s\"'&,;{{}}()]+)", re.IGNORECASE
)
_PREFIXED = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:hf_|sk-|gh[opusr]_|github_pat_|xox[a-z]-)[\w\-]{6,}|A[KS]IA[0-9A-Z]{8,})", re.ASCII
)
_BEARER = re.compile(r"(?P<name>\bbearer\s+)[^\s\"']+", re.IGNORECASE)
_USER_AND_PASSWORD = re.compile(r"(?P<name>://[^\s/:@]*:)[^\s/]*(?=@)")
_LONG_USER = re.compile(r"(?P<name>://)[^\s/:@]{20,}(?=@)")


def masked_arguments(arguments: Sequence[str]) -> list[str]:
    """Return a command line in which no argument shows a secret; flags, and every other value, stay as they are.

    >>> masked_arguments(["train.py", "--hf-token=abc", "--password", "abc", "--lr", "1", "--use-auth-token", "--fp16"])
    ['train.py', '--hf-token=***', '--password', '***', '--lr', '1', '--use-auth-token', '--fp16']
    >>> masked_arguments(["--gbs-tokens", "4000000", "--num-key-value-heads", "8", "wandb", "login", "ab"])
    ['--gbs-tokens', '4000000', '--num-key-value-heads', '8', 'wandb', 'login', '***']
    >>> masked_arguments(["https://host/x?api_key=abc&n=1", '{"secret": "a b", "lr": 1}'])
    ['https://host/x?api_key=***&n=1', '{"secret": ***, "lr": 1}']
    """
    shown: list[str] = []
    is_value = False
    for argument in arguments:
        if is_value and not argument.startswith("--"):
            shown.append(MASK)
            is_value = False
            continue
        is_value = _FLAG.fullmatch(argument) is not None
        whole = _WHOLE.fullmatch(argument)
        shown.append(whole["name"] + MASK if whole else masked_text(_ASSIGNED.sub(rf"\g<name>{MASK}", argument)))
    return shown


def masked_text(text: str) -> str:
    """Return a text without what is known for a secret by how it looks; names before it prove nothing in a sentence.

    >>> masked_text("https://me:word@host/x"), masked_text("no repository for hf_AbCdEf123456")
    ('https://me:***@host/x', 'no repository for ***')
    >>> masked_text("Authorization: Bearer abc"), masked_text("unexpected key: layers.0")
    ('Authorization: Bearer ***', 'unexpected key: layers.0')
    """
    for pattern in (_USER_AND_PASSWORD, _LONG_USER, _BEARER):
        text = pattern.sub(rf"\g<name>{MASK}", text)
    return _PREFIXED.sub(MASK, text)
