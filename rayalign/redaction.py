"""Secrets taken out of what is written for others to read: command lines, logs, reports."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

HIDDEN = "***"
SECRET_NAME = re.compile(
    r"(^|[_.\-])(token|api[_-]?key|secret|password|passwd|access[_-]?key([_-]?id)?|secret[_-]?key|credentials?)$", re.I
)
# Of the environment; a value this short would take letters out of ordinary words.
MIN_SECRET = 8
# user:password@ or token@ after a scheme, up to the host.
IN_ADDRESS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.\-]*://)(?P<secret>[^\s/@'\"]+)@", re.I)
# ?token=..., X-Amz-Signature=..., password: ...; a plural (num_tokens) is a number.
NAMED = re.compile(
    r"(?P<key>\b[\w.\-]*(?:token|api[_-]?key|secret|password|passwd|access[_-]?key(?:[_-]?id)?|secret[_-]?key|signature|credentials?)"
    r"['\"]?)(?P<sep>\s*[=:]\s*['\"]?)(?P<secret>[^\s&;,'\"]+)",
    re.I,
)
# Tokens that look like nothing else: Hugging Face, GitHub, OpenAI, Weights & Biases, AWS.
KNOWN = re.compile(
    r"\b(hf_[A-Za-z0-9]{16,}|api_org_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}"
    r"|sk-[A-Za-z0-9_\-]{20,}|wandb_v1_\w{16,}|A(?:KIA|SIA)[A-Z0-9]{16})\b"
)


def redacted(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """`text` with every secret that can be recognised replaced by ***.

    Recognised: values of environment variables whose name says so (HF_TOKEN, WANDB_API_KEY, AWS_SECRET_ACCESS_KEY),
    user and password in an address, values named token, api_key, secret or password, and the known forms of tokens.
    """
    for secret in _of_environment(environment):
        text = text.replace(secret, HIDDEN)
    text = IN_ADDRESS.sub(rf"\g<scheme>{HIDDEN}@", text)
    text = NAMED.sub(rf"\g<key>\g<sep>{HIDDEN}", text)
    return KNOWN.sub(HIDDEN, text)


def redacted_command(arguments: list[str], environment: Mapping[str, str] = os.environ) -> list[str]:
    """A command line's words; of `--token VALUE` the value too."""
    words, hide = [], False
    for word in arguments:
        words.append(HIDDEN if hide else redacted(word, environment))
        hide = word.startswith("-") and "=" not in word and names_secret(word.lstrip("-"))
    return words


def names_secret(name: str) -> bool:
    """Whether a setting or variable of this name holds a secret."""
    return SECRET_NAME.search(name) is not None


def holds_secret(text: str) -> bool:
    """Whether a setting's value carries one: an address with a password, or the known form of a token."""
    return bool(IN_ADDRESS.search(text) or KNOWN.search(text))


def _of_environment(environment: Mapping[str, str]) -> list[str]:
    """Longest first: one may be part of another."""
    found = {value for name, value in environment.items() if names_secret(name) and len(value) >= MIN_SECRET}
    return sorted(found, key=len, reverse=True)
