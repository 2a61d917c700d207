"""Policies that follow a file: replaced, broken, removed, restored."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kest.gate import Gate, GatePolicyError

pytest.importorskip("watchfiles", reason="watchfiles is not installed")


def policies(name: str) -> str:
    return f'[[policies]]\nname = "{name}"\neffect = "permit"\nconditions = []\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "gate.toml"
    path.write_text(policies("first"))
    return path


@pytest.fixture
def gate() -> Gate:
    return Gate.from_toml("")


def wait_for(what: Callable[[], bool]) -> None:
    """Until it holds; the watch looks at least once a second."""
    end = time.monotonic() + 30
    while not what():
        assert time.monotonic() < end, "never happened"
        time.sleep(0.01)


def named(gate: Gate, name: str) -> Callable[[], bool]:
    return lambda: [policy.name for policy in gate.policies.policies] == [name]


@pytest.fixture
def errors(gate: Gate, file: Path) -> Iterator[queue.Queue[Exception]]:
    seen: queue.Queue[Exception] = queue.Queue()
    with gate.watch(file, on_error=seen.put) as watch:
        assert watch.is_alive
        yield seen
    assert not watch.is_alive
    watch.stop()


def test_changes_are_followed(gate: Gate, file: Path, errors: queue.Queue[Exception]) -> None:
    assert named(gate, "first")()
    file.write_text(policies("second"))
    wait_for(named(gate, "second"))
    other = file.with_name("new")  # as editors and ConfigMaps do
    other.write_text(policies("third"))
    other.replace(file)
    wait_for(named(gate, "third"))
    assert errors.empty()


def test_a_broken_file_leaves_the_last_good_set(gate: Gate, file: Path, errors: queue.Queue[Exception]) -> None:
    file.write_text("[[policies]]\nname = 1")
    error = errors.get(timeout=30)
    assert isinstance(error, GatePolicyError)
    assert "gate.toml" in str(error)
    assert named(gate, "first")()
    assert gate.last_reload_error is error
    file.unlink()
    assert isinstance(errors.get(timeout=30), FileNotFoundError)
    assert named(gate, "first")()
    file.write_text(policies("back"))
    wait_for(named(gate, "back"))
    assert gate.last_reload_error is None
    file.write_text("")  # the kill switch
    wait_for(lambda: len(gate.policies) == 0)


def test_a_link_that_is_switched_is_followed(tmp_path: Path, gate: Gate) -> None:
    """How Kubernetes mounts a ConfigMap."""
    for number in (1, 2):
        (tmp_path / f"v{number}").mkdir()
        (tmp_path / f"v{number}" / "gate.toml").write_text(policies(f"v{number}"))
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "gate.toml").symlink_to("..data/gate.toml")
    with gate.watch(tmp_path / "gate.toml"):
        (tmp_path / "..tmp").symlink_to("v2")
        (tmp_path / "..tmp").replace(tmp_path / "..data")
        wait_for(named(gate, "v2"))


def test_the_first_load_must_succeed(tmp_path: Path, gate: Gate) -> None:
    with pytest.raises(FileNotFoundError):
        gate.watch(tmp_path / "absent.toml")
    (tmp_path / "bad.toml").write_text("x")
    with pytest.raises(GatePolicyError):
        gate.watch(tmp_path / "bad.toml")


def test_an_on_error_that_raises_stops_nothing(gate: Gate, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    def on_error(error: Exception) -> None:
        raise RuntimeError("listener")

    with gate.watch(file, on_error=on_error):
        file.write_text("x")
        wait_for(lambda: "on_error of a policy watch raised" in caplog.text)
        file.write_text(policies("good"))
        wait_for(named(gate, "good"))


def test_without_the_extra_it_says_so(run_python: Any) -> None:
    run_python(
        "import sys; sys.modules['watchfiles'] = None\n"
        "from kest.gate import Gate\n"
        "from kest.errors import MissingExtraError\n"
        "try: Gate.from_toml('').watch('x.toml')\n"
        "except MissingExtraError as error: assert 'kest[watch]' in str(error)\n"
        "else: raise SystemExit('no error')\n"
    )
