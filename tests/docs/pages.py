"""Runs a page of the documentation as a reader would, from top to bottom, in an empty folder.

- ``python``: all of a page run in one interpreter, one after the other;
- with ``title="NAME"``: a block of any kind is the file of that name;
- behind ``<!-- examples/PATH -->`` it shows that file, which tests of its own run, and is there under its name;
- ``sh``: bash, but for ``pip install``, of which only the extras are checked; what it leaves in the background goes on until
  the page ends, and is waited for where it has a ``--port``;
- ``text``: what the block before it printed, exactly, but for what stands for itself: an ellipsis is any text.

Ports are replaced by free ones throughout.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["DOCS", "Block", "blocks", "needs", "pages", "run"]

DOCS = Path(__file__).resolve().parents[2] / "docs"
FENCE = re.compile(
    r"^(?:<!-- (?P<example>examples/\S+) -->\n)?(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
TITLE = re.compile(r'title="([^"]+)"')
NEEDS = re.compile(r"^<!-- needs: ([\w ,]+) -->$", re.MULTILINE)
PORT = re.compile(r"(?:127\.0\.0\.1:|localhost:|--port[ =])(\d{4,5})\b")
TIMEOUT = 60.0


class Block(NamedTuple):
    kind: str
    title: str | None
    text: str


def pages() -> list[Path]:
    """Every page, except those that `test_policy_docs` runs in its own way."""
    return [page for page in sorted(DOCS.rglob("*.md")) if DOCS / "policies" not in page.parents]


def blocks(page: Path) -> list[Block]:
    found = []
    for match in FENCE.finditer(page.read_text("utf-8")):
        info = match["info"].strip()
        titled = TITLE.search(info)
        text = re.sub(f"^{match['indent']}", "", match["text"], flags=re.MULTILINE)
        title = titled and titled[1]
        if match["example"]:
            example = DOCS.parent / match["example"]
            assert text == example.read_text("utf-8"), f"{page.name} does not show {match['example']} as it is"
            title = example.name
        found.append(Block(info.partition(" ")[0], title, text))
    return found


def needs(page: Path) -> set[str]:
    """The servers that have to run: ``<!-- needs: opa, redis -->``."""
    named = NEEDS.search(page.read_text("utf-8"))
    return set(named[1].replace(",", " ").split()) if named else set()


def run(page: Path, folder: Path, ports: dict[str, int] | None = None, **environment: str) -> None:
    """Run the page in a process of its own. ``ports``: where servers that run already listen, by the page's port."""
    ports = dict(ports or {})
    given = [[block.kind, block.title, _with_ports(block.text, ports)] for block in blocks(page)]
    (folder / "work").mkdir()
    (folder / "work" / "examples").symlink_to(DOCS.parent / "examples")
    steps = folder / "steps.json"
    steps.write_text(json.dumps([str(page), given]), "utf-8")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("KEST_", "OTEL_"))}
    variables |= {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "PATH": f"{_commands(folder / 'bin')}{os.pathsep}{os.environ['PATH']}",
        "PYTHONUNBUFFERED": "1",
        "HOME": str(folder),
        **environment,
    }
    process = subprocess.Popen(
        [sys.executable, "-W", "error", __file__, str(steps)],
        cwd=folder / "work",
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=4 * TIMEOUT)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, f"{page.relative_to(DOCS)}:\n{output[-6000:]}"


def _commands(folder: Path) -> Path:
    """What pip would install beside the interpreter that runs the tests."""
    folder.mkdir()
    for name, call in (("python", ""), ("kest", "-m kest"), ("uvicorn", "-m uvicorn")):
        command = folder / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" {call} "$@"\n')
        command.chmod(0o755)
    return folder


def _with_ports(text: str, ports: dict[str, int]) -> str:
    def free(match: re.Match[str]) -> str:
        port = match[1]
        if port not in ports:
            with socket.socket() as one:
                one.bind(("127.0.0.1", 0))
                ports[port] = one.getsockname()[1]
        return match[0].replace(port, str(ports[port]))

    return PORT.sub(free, text)


# --- in the process of the page ---


class Page:
    def __init__(self, name: str) -> None:
        self.name = name
        self.scope: dict[str, Any] = {"__name__": "__main__", "__file__": name}
        self.printed = ""

    def step(self, number: int, kind: str, title: str | None, text: str) -> None:
        if title is not None:
            Path(title).parent.mkdir(parents=True, exist_ok=True)
            Path(title).write_text(text, "utf-8")
        elif kind == "python":
            self._python(number, text)
        elif kind == "sh":
            self._shell(number, text)
        elif kind == "text":
            self._compare(number, text)
        else:
            raise AssertionError(f"block {number}: nobody runs {kind!r}; give it a title, or a kind that is run")

    def _python(self, number: int, text: str) -> None:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile("\n" * number + text, f"{self.name} block {number}", "exec"), self.scope)
        self.printed = out.getvalue()

    def _shell(self, number: int, text: str) -> None:
        text = re.sub(r"^pip install (.+)$", self._installed, text, flags=re.MULTILINE)
        log = Path(f"../block-{number}.log")
        with log.open("wb") as out:
            code = subprocess.run(["bash", "-euc", text], stdout=out, stderr=out, timeout=TIMEOUT).returncode
        self.printed = log.read_text("utf-8", "replace")
        assert code == 0, f"block {number} exits with {code}:\n{text}\n{self.printed}"
        for line in text.splitlines():
            port = re.search(r"--port[ =](\d+).*&\s*$", line)
            if port:
                _listening(int(port[1]), log)

    @staticmethod
    def _installed(match: re.Match[str]) -> str:
        """What a line installs must be here already: nothing is fetched for a page."""
        from importlib.metadata import distribution

        from packaging.requirements import Requirement

        project = (DOCS.parent / "pyproject.toml").read_text("utf-8")
        for given in shlex.split(match[1]):
            wanted = Requirement(given)
            if wanted.name != "kest":
                distribution(wanted.name)
            for extra in wanted.extras:
                assert re.search(rf"^{extra} = \[", project, re.MULTILINE), f"{given}: there is no extra {extra}"
        return ""

    def _compare(self, number: int, text: str) -> None:
        pattern = "".join(".*" if part == "…" else re.escape(part) for part in re.split("(…)", text.strip()))
        if not re.fullmatch(pattern, self.printed.strip(), re.DOTALL):
            raise AssertionError(f"block {number}: the page says\n{text}\nbut it printed\n{self.printed}")


def _listening(port: int, log: Path) -> None:
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5):
            return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on port {port}:\n{log.read_text('utf-8', 'replace')}")


def main(steps: str) -> Iterator[None]:
    name, given = json.loads(Path(steps).read_text("utf-8"))
    sys.path.insert(0, "")
    page = Page(name)
    for number, (kind, title, text) in enumerate(given, 1):
        page.step(number, kind, title, text)
        yield


if __name__ == "__main__":
    for _ in main(sys.argv[1]):
        pass
