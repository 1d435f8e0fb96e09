from __future__ import annotations

import pytest

from rayalign.config import RunConfig
from rayalign.config.style import StyleConfig
from rayalign.errors import ConfigError
from rayalign.redaction import HIDDEN, holds_secret, names_secret, redacted, redacted_command

HF = "hf_" + "aB3dE5gH7jK9mN1pQ3sT5vX7"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:pass@host/model", "https://***@host/model"),
        ("s3://AKIAEXAMPLE:wJalrXUtnFEMI@bucket/runs?region=eu", "s3://***@bucket/runs?region=eu"),
        ("git+https://x-access-token@host/a.git", "git+https://***@host/a.git"),
        ("https://host/f?token=abc&x=1", "https://host/f?token=***&x=1"),
        ("https://host/f?X-Amz-Signature=0a1b&X-Amz-Date=1", "https://host/f?X-Amz-Signature=***&X-Amz-Date=1"),
        (f"--rewards token {HF}", "--rewards token ***"),
        ("api_key: 'abc def'", "api_key: '*** def'"),
        ('{"wandb_api_key": "0123"}', '{"wandb_api_key": "***"}'),
        ("AKIAIOSFODNN7EXAMPLE", "***"),
        # Nothing secret:
        ("num_tokens: 77", "num_tokens: 77"),
        ("a cat @ home, http://host/a@b", "a cat @ home, http://host/a@b"),
        ("hf://datasets/me/set@main/a.parquet", "hf://datasets/me/set@main/a.parquet"),
        ("mail me@host", "mail me@host"),
    ],
)
def test_secrets_are_hidden_and_the_rest_stays(text: str, shown: str) -> None:
    assert redacted(text, {}) == shown


def test_values_of_the_environment_are_hidden_wherever_they_stand() -> None:
    environment = {"HF_TOKEN": "correct-horse", "WANDB_API_KEY": "battery9", "EMPTY_TOKEN": "", "SHORT_SECRET": "cat"}
    environment |= {"PATH": "/usr/bin", "AWS_SECRET_ACCESS_KEY": "correct-horse-staple"}
    said = redacted("pull with correct-horse, battery9 or correct-horse-staple; a cat in /usr/bin", environment)
    assert said == "pull with ***, *** or ***; a cat in /usr/bin"


def test_of_a_command_line_the_word_after_a_secret_option_too() -> None:
    words = ["job.py", "--token", "abc", "--scorer.api-key=abc", "--name", "first", "--output", "s3://k:s@b"]
    shown = ["job.py", "--token", HIDDEN, f"--scorer.api-key={HIDDEN}", "--name", "first", "--output", "s3://***@b"]
    assert redacted_command(words, {}) == shown


@pytest.mark.parametrize("name", ["token", "HF_TOKEN", "api_key", "scorer.api-key", "AWS_ACCESS_KEY_ID", "password"])
def test_names_of_secrets(name: str) -> None:
    assert names_secret(name)
    assert not names_secret(f"{name}s")


@pytest.mark.parametrize(
    ("tree", "field"),
    [
        ({"output": "s3://key:letmein99@bucket/runs"}, "output"),
        ({"model": {"path": "https://me:letmein99@host/model"}}, "model.path"),
        ({"rewards": [{"scorer": "jpeg", "options": {"api_key": "letmein99"}}]}, "rewards.0.options.api_key"),
        ({"rewards": [{"scorer": "jpeg", "options": {"model": HF}}]}, "rewards.0.options.model"),
    ],
)
@pytest.mark.parametrize("group", [RunConfig, StyleConfig])
def test_a_setting_with_a_secret_is_refused_without_repeating_it(
    tree: dict[str, object], field: str, group: type[RunConfig]
) -> None:
    from rayalign.cli import validate

    with pytest.raises(ConfigError, match="set it in the environment instead") as caught:
        validate(tree, group)
    assert f"{field} carries a password or token" in str(caught.value)
    assert "letmein99" not in str(caught.value)
    assert HF not in str(caught.value)


def test_no_error_repeats_a_secret() -> None:
    assert "letmein99" not in str(ConfigError("--config", "https://me:letmein99@host/x.yaml", "cannot be read"))
    assert holds_secret("s3://a:b@c")
    assert not holds_secret("s3://bucket/a@b")
