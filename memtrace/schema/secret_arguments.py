"""Arguments that look like secrets: their values are masked before a command line is written anywhere.

Rather one value too many than one too few: what is lost is a value that somebody can look up, not a key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

MASK = "***"
"""What stands in place of a secret."""
_WORD = re.compile(r".{0,5}|[a-z]{0,7}", re.DOTALL)
"""What is not looked for in messages, though it was masked: without every `1` or `memory` they could not be read."""

# The end of a name: `--gbs-tokens 4000000` and `--num-key-value-heads 8` are no secrets.
_SURE = r"(?:token|api[_\-]?key|access[_\-]?key|pass(?:word|wd|phrase)|secrets?|credentials?|secret[\w\-]*)"
_NAME = rf"[\w.\-]*?(?:{_SURE}|key|(?<![A-Za-z])(?:pass|pw|auth|cookie|dsn))"
_FLAG = re.compile(rf"-{{1,2}}{_NAME}|login", re.IGNORECASE)
_WHOLE = re.compile(rf"(?P<name>-{{0,2}}\+{{0,2}}{_NAME}=)(?P<value>.+)", re.IGNORECASE | re.DOTALL)
_VALUE = r"(?P<value>\"[^\"]*\"|'[^']*'|[^\s\"'&,;{}()]+)"
# Inside a text: a query of a URL, JSON, code after -c, a whole command line after `bash -c`.
_INSIDE = (
    re.compile(rf"(?P<name>(?<![\w.\-]){_NAME}[\"']?\s*[:=]\s*){_VALUE}", re.IGNORECASE),
    re.compile(rf"(?P<name>(?<![^\s\"'])--?{_NAME}\s+)(?!-){_VALUE}", re.IGNORECASE),
)
_QUOTED = r"(?P<value>[^\"']+)"
# A command that failed is quoted in the message of an error, as text or as a list; so is what a server was sent.
_IN_SENTENCES = (
    re.compile(rf"(?P<name>(?<![\w.\-])[\w.\-]*?{_SURE}=){_VALUE}", re.IGNORECASE),
    re.compile(rf"(?P<name>(?<![^\s\"'])--?[\w.\-]*?{_SURE}\s+)(?!-){_VALUE}", re.IGNORECASE),
    re.compile(rf"(?P<name>[\"']--?[\w.\-]*?{_SURE}[\"'],\s*[\"']){_QUOTED}", re.IGNORECASE),
    re.compile(rf"(?P<name>[\"'][\w.\-]*?{_SURE}[\"']:\s*[\"']){_QUOTED}", re.IGNORECASE),
)
_PREFIX = (
    r"(?:hf_|api_org_|sk-|[sr]k_(?:live|test)_|gh[opusr]_|github_pat_|glpat-|gsk_|nvapi-|npm_|pypi-|r8_|dop_v1_|shpat_|whsec_"
    r"|lin_api_|ya29\.|xox[a-z]-|xapp-)"
)
_BY_LOOK = re.compile(
    rf"(?<![A-Za-z0-9])(?P<value>{_PREFIX}[\w\-.]{{5,}}[\w\-]"
    r"|A[KS]IA[0-9A-Z]{8,}|AIza[\w\-]{20,}|SG\.[\w\-]{16,}\.[\w\-]{16,}"
    # A JSON Web Token; a private key as text.
    r"|eyJ[\w\-]{8,}\.[\w\-]{8,}(?:\.[\w\-]*)?|-----BEGIN [A-Z ]*PRIVATE KEY-----.*)",
    re.ASCII | re.DOTALL,
)
_ANYWHERE = (
    re.compile(r"(?P<name>://[^\s/:@]*:)(?P<value>[^\s/]*)(?=@)"),
    re.compile(r"(?P<name>://)(?P<value>[^\s/:@]{20,})(?=@)"),
    re.compile(r"(?P<name>\bbearer\s+)(?P<value>[^\s\"']+)", re.IGNORECASE),
    re.compile(
        r"(?P<name>\bauthorization[\"']?\s*:\s*[\"']?(?:basic|token|digest)\s+)(?P<value>[^\s\"']+)", re.IGNORECASE
    ),
    re.compile(r"(?P<name>hooks\.slack\.com/services/|discord(?:app)?\.com/api/webhooks/)(?P<value>[^\s\"']+)"),
    re.compile(
        r"(?P<name>[?&](?:sig|signature|X-Amz-Signature|X-Amz-Credential|X-Goog-Signature)=)(?P<value>[^\s&\"']+)"
    ),
    _BY_LOOK,
)


def masked_arguments(arguments: Sequence[str]) -> list[str]:
    """Return a command line in which no argument shows a secret; flags, and every other value, stay as they are.

    >>> masked_arguments(["train.py", "--hf-token=abc", "--password", "abc", "--lr", "1", "--use-auth-token", "--fp16"])
    ['train.py', '--hf-token=***', '--password', '***', '--lr', '1', '--use-auth-token', '--fp16']
    >>> masked_arguments(["--gbs-tokens", "4000000", "--num-key-value-heads", "8", "wandb", "login", "ab"])
    ['--gbs-tokens', '4000000', '--num-key-value-heads', '8', 'wandb', 'login', '***']
    >>> masked_arguments(["https://host/x?api_key=abc&n=1", '{"secret": "a b", "lr": 1}', "t.py --token ab --lr 1"])
    ['https://host/x?api_key=***&n=1', '{"secret": ***, "lr": 1}', 't.py --token *** --lr 1']
    """
    return _masked_arguments(arguments, [])


def secret_values(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the secrets that a command line and an environment hold, longest first, which messages may repeat.

    >>> secret_values(["t.py", "--token", "abcdefgh", "--key=memory"], {"WANDB_API_KEY": "01234567", "HOME": "/"})
    ('01234567', 'abcdefgh')
    """
    found: list[str] = []
    _masked_arguments([*arguments, *(f"{name}={value}" for name, value in environment.items())], found)
    known = {value for one in found for value in (one, one.strip("\"'")) if not _WORD.fullmatch(value)}
    return tuple(sorted(known, key=lambda value: (-len(value), value)))


def masked_text(text: str, known: Iterable[str] = ()) -> str:
    """Return a text without what is known for a secret by how it looks, and without those in `known`.

    Names before it prove little in a sentence.

    >>> masked_text("https://me:word@host/x"), masked_text("no repository for hf_AbCdEf123456")
    ('https://me:***@host/x', 'no repository for ***')
    >>> masked_text("Authorization: Bearer abc"), masked_text("unexpected key: layers.0")
    ('Authorization: Bearer ***', 'unexpected key: layers.0')
    >>> masked_text("login of me with password=abc failed"), masked_text("abcdefgh is no token", known=["abcdefgh"])
    ('login of me with password=*** failed', '*** is no token')
    """
    for value in known:
        # What is a word may be part of another one.
        edge = r"\b" if value.isalpha() else ""
        text = re.sub(rf"{edge}{re.escape(value)}{edge}", MASK, text)
    return _masked((*_ANYWHERE, *_IN_SENTENCES), text, [])


def _masked_arguments(arguments: Sequence[str], found: list[str]) -> list[str]:
    """Return the arguments as they are shown. Affects: `found`, which gets every value that was masked."""
    shown: list[str] = []
    is_value = False
    for argument in arguments:
        if is_value and not argument.startswith("--"):
            found.append(argument)
            shown.append(MASK)
            is_value = False
            continue
        is_value = _FLAG.fullmatch(argument) is not None
        whole = _WHOLE.fullmatch(argument)
        if whole is None:
            shown.append(_masked((*_INSIDE, *_ANYWHERE), argument, found))
        else:
            found.append(whole["value"])
            shown.append(whole["name"] + MASK)
    return shown


def _masked(patterns: Iterable[re.Pattern[str]], text: str, found: list[str]) -> str:
    def mask(match: re.Match[str]) -> str:
        groups = match.groupdict()
        if groups["value"] != MASK:
            found.append(groups["value"])
        return f"{groups.get('name') or ''}{MASK}"

    for pattern in patterns:
        text = pattern.sub(mask, text)
    return text
