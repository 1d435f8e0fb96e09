"""Calls with a deadline, and a Ray Serve whose controller never answers."""

from __future__ import annotations

import logging
import threading
import time

import pytest
from ray import serve

from rayalign.config import PoolConfig, RewardConfig, ServiceConfig
from rayalign.errors import RunStopped
from rayalign.pipeline.deadline import NoAnswer, within
from rayalign.pipeline.scoring import client, service


def never(*args: object, **kwargs: object) -> None:
    threading.Event().wait()


def test_what_comes_in_time_is_handed_on() -> None:
    assert within(10, "a test waits for seven", lambda: 7) == 7

    def own() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):  # and no NoAnswer
        within(10, "a test waits for nothing", own)


def test_silence_ends_with_who_waits_for_what() -> None:
    started = time.monotonic()
    with pytest.raises(NoAnswer, match=r"^a test waits for news, and nothing came for 0\.1 s; what it waits for is"):
        within(0.1, "a test waits for news", never)
    assert time.monotonic() - started < 5
    stuck = [thread for thread in threading.enumerate() if thread.name == "deadline"]
    assert stuck
    assert all(thread.daemon for thread in stuck)  # the process can end


@pytest.mark.parametrize(
    ("silent", "said"), [("start", "start"), ("run_many", "take the scorers"), ("status", "say what it runs")]
)
def test_a_run_whose_serve_is_silent_stops(monkeypatch: pytest.MonkeyPatch, silent: str, said: str) -> None:
    for name in ("start", "run_many", "delete", "shutdown"):
        monkeypatch.setattr(serve, name, lambda *args, **kwargs: None)
    monkeypatch.setattr(serve, "status", lambda: type("Status", (), {"applications": {}}))
    monkeypatch.setattr(serve, silent, never)
    monkeypatch.setattr(service, "runtime_env_for", lambda reward: {})
    monkeypatch.setattr(service, "start_text_store", lambda run: None)
    monkeypatch.setattr(service, "stop_text_store", lambda run: None)
    monkeypatch.setattr(service, "SERVE_S", 0.1)
    monkeypatch.setattr(service, "STOP_S", 0.1)
    with pytest.raises(RunStopped, match=rf"the driver waits for Ray Serve to {said}, and nothing came for 0\.1 s"):
        service.start_reward_services("a run", [RewardConfig(scorer="stub")], PoolConfig(), ServiceConfig(), 1)


@pytest.mark.parametrize("silent", ["status", "delete", "shutdown"])
def test_the_stop_at_the_end_warns_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, silent: str
) -> None:
    ended: list[str] = []
    running = {service.app_name("a run", "stub"): None} | ({"neighbour": None} if silent == "delete" else {})
    monkeypatch.setattr(serve, "status", lambda: type("Status", (), {"applications": running}))
    monkeypatch.setattr(serve, silent, never)
    monkeypatch.setattr(service, "stop_text_store", ended.append)
    monkeypatch.setattr(service, "STOP_S", 0.1)
    with caplog.at_level(logging.WARNING):
        service.stop_reward_services("a run")
    assert "waits for Ray Serve to end the scorers of run a run, and nothing came for 0.1 s" in caplog.text
    assert ended == ["a run"]


def test_a_client_does_not_wait_for_ever_for_its_scorer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "get_app_handle", never)
    monkeypatch.setattr(client, "FIND_S", 0.1)
    with pytest.raises(NoAnswer, match=r"a client of rayalign-score\.run\.stub waits for Ray Serve to find it"):
        client._find("run", "stub")
