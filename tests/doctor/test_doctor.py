from __future__ import annotations

import importlib.metadata
import json
import resource
import shutil
import socket
import subprocess
from collections import namedtuple
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rayalign.commands import doctor as command
from rayalign.commands.main import main
from rayalign.doctor import machine, reach, software, weights
from rayalign.doctor.finding import Finding, ok, problem, run_check, warning
from rayalign.hub import silence
from rayalign.toy import toy_path


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`answers(findings)`: what the doctor finds, whatever the machine."""
    return lambda findings: monkeypatch.setattr(command, "diagnose", lambda output, start_ray: findings)


def test_each_finding_is_a_line_and_says_what_to_do(answers: Any, capsys: pytest.CaptureFixture) -> None:
    answers([ok("torch", "2.6"), warning("gpu", "none here", "join a cluster")])
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out == "OK       torch: 2.6\nwarning  gpu: none here\n         -> join a cluster\n"
    answers([problem("ray", "gone", "start it"), ok("torch", "2.6")])
    assert main(["doctor", "--json"]) == 1
    first = json.loads(capsys.readouterr().out)[0]
    assert first == {"name": "ray", "status": "problem", "text": "gone", "fix": "start it"}


def test_this_machine_is_looked_at_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    found = command.diagnose(str(tmp_path))
    names = {finding.name for finding in found}
    assert {"rayalign", "packages", "torch", "ray", "hub", "toy models", "scorers", "output", "memory"} <= names
    assert {"/dev/shm", "open files", "gpu"} <= names
    assert [finding for finding in found if finding.status == "problem"] == []
    assert all(finding.fix for finding in found if finding.status != "ok")


def test_a_check_that_breaks_hides_no_other() -> None:
    assert run_check("torch", lambda: 1 // 0)[0][:2] == ("torch", "warning")  # type: ignore[arg-type, return-value]


class Metadata(dict):
    def get_all(self, name: str) -> Any:
        return self[name]


def first(findings: Iterable[Finding]) -> Finding:
    return next(iter(findings))


def packages(monkeypatch: pytest.MonkeyPatch, *needed: str, python: str = ">=3.11") -> list[Finding]:
    metadata = Metadata({"Requires-Python": python, "Requires-Dist": list(needed)})
    monkeypatch.setattr(importlib.metadata, "metadata", lambda name: metadata)
    return list(software.check_packages())


def test_packages_are_held_against_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    found = packages(monkeypatch, "numpy>=1", "numpy>=999", "no-such-package-here>=2", 'pytest>=999; extra == "dev"')
    said = {finding.name: finding for finding in found}
    assert said["numpy"].status == "problem"
    assert said["numpy"].fix == "pip install 'numpy>=999'"
    assert said["no-such-package-here"].text == "is not installed"
    assert said["packages"].text.startswith("numpy ")
    assert "pytest" not in said
    assert packages(monkeypatch, python=">=4")[1].fix == "make an environment with Python >=4"


def test_a_driver_without_a_torch_that_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(software, "_driver", lambda: ["580.1", "580.1"])
    found = list(software.check_torch())[-1]
    assert (found.status, found.text) == ("problem", "the driver (580.1) sees 2, torch none")


def test_a_cluster_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]  # bound, and nobody listens
        monkeypatch.setenv("RAY_ADDRESS", f"ray://me:letmein99@127.0.0.1:{port}")
        found = first(reach.check_cluster())
    assert found.status == "problem"
    assert f"nothing listens at RAY_ADDRESS = ray://***@127.0.0.1:{port}" in found.text


def test_a_cluster_that_is_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: Any, timeout: float, **__: Any) -> None:
        raise subprocess.TimeoutExpired("python", timeout)

    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(subprocess, "run", hang)
    assert "could not be joined (TimeoutExpired)" in first(reach.check_cluster()).text


def test_a_cluster_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"nodes": 2, "resources": {"CPU": 8.0, "GPU": 1.0}, "version": "2.60.0"}
    done = subprocess.CompletedProcess([], 0, f"some log\n{json.dumps(facts)}\n", "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    text = "an embedded cluster started and ended: 2 nodes, 8 CPUs, 1 GPUs, Ray 2.60.0"
    assert list(reach.check_cluster(start=True)) == [ok("ray", text)]


def test_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "not asked, HF_HUB_OFFLINE is set" in first(reach.check_hub()).text
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://me:letmein99@127.0.0.1:1")
    found = first(reach.check_hub())
    assert found.status == "warning"
    assert "letmein99" not in str(found)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts and never answers
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(reach, "silence", partial(silence, timeout_s=0.3))
        assert first(reach.check_hub()).status == "warning"


def test_a_damaged_toy_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for toy in weights.TOY_MODELS:
        shutil.copytree(toy_path(toy), tmp_path / toy)
    monkeypatch.setattr("rayalign.toy.WEIGHTS", tmp_path)
    assert first(weights.check_toys()).status == "ok"
    file = tmp_path / "toy-sdxl" / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_text("version https://git-lfs.github.com/spec/v1\n")
    found = first(weights.check_toys())
    assert found.status == "problem"
    assert "toy-sdxl: diffusion_pytorch_model.safetensors is damaged or cut short" in found.text


Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(
    ("total", "free", "rays", "status"),
    [(100, 50, False, "ok"), (100, 10, False, "warning"), (100, 0.5, False, "problem"), (1000, 30, True, "problem")],
)
def test_room(monkeypatch: pytest.MonkeyPatch, total: float, free: float, rays: bool, status: str) -> None:
    usage = Usage(total * 2**30, 0, free * 2**30)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    assert machine._room("disk", Path("/"), "things", rays).status == status


def test_an_output_that_cannot_be_written_to(tmp_path: Path) -> None:
    assert first(machine.check_output(str(tmp_path / "new" / "runs"))).status in ("ok", "warning")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    assert "is a file" in first(machine.check_output(str(tmp_path / "file"))).text
    assert "cannot be written to" in first(machine.check_output("/proc/runs")).text


def test_small_shared_memory_and_few_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_memory", lambda: (32 * 2**30, 2 * 2**30))
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(64 * 2**20, 0, 64 * 2**20))
    memory, shared = machine.check_memory()
    assert (memory.status, shared.status) == ("warning", "warning")
    assert "--shm-size=10g" in shared.fix
    monkeypatch.setattr(resource, "getrlimit", lambda what: (256, 1024))
    assert first(machine.check_limits()).status == "warning"
    monkeypatch.setattr(resource, "getrlimit", lambda what: (256, resource.RLIM_INFINITY))
    assert first(machine.check_limits()).status == "ok"


@pytest.mark.slow
def test_an_embedded_cluster_is_started_and_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    found = list(reach.check_cluster(start=True))
    assert found[0].status == "ok", found
    assert "an embedded cluster started and ended: 1 nodes" in found[0].text
