"""Kest as pip installs it: the README's two services as a reader would set them up, and the propagator's entry point."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fresh_environment import EXTRAS, ROOT, TIMEOUT, Environment, make

HEADING = "## Two FastAPI services in five minutes"
BLOCK = re.compile(r"(?:<!-- (?P<file>\S+) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)```\n", re.DOTALL)


class Section:
    """The blocks of the README's section, in order."""

    def __init__(self) -> None:
        text = (ROOT / "README.md").read_text("utf-8").partition(f"\n{HEADING}\n")[2].partition("\n## ")[0]
        blocks = list(BLOCK.finditer(text))
        self.shell = [block["text"] for block in blocks if block["kind"] == "sh"]
        self.files = {block["file"]: block["text"] for block in blocks if block["kind"] == "python"}
        self.output = [block["text"] for block in blocks if block["kind"] == "text"]
        assert len(self.shell) + len(self.files) + len(self.output) == len(blocks)


@pytest.fixture(scope="module")
def section() -> Section:
    return Section()


@pytest.fixture(scope="module")
def installed(section: Section, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """What the first block installs, from a copy of this checkout."""
    folder = tmp_path_factory.mktemp("installed")
    environment, source = make(folder)
    assert f'"kest[{EXTRAS}]"' in section.shell[0]
    command = section.shell[0].replace('"kest[', f'"{source}[')
    environment.run("bash", "-euc", command, cwd=folder, timeout=TIMEOUT)
    return environment


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5):
            return
        assert process.poll() is None, log.read_text("utf-8", "replace")
        assert time.monotonic() < end, f"{process.args!r} does not listen on {port}"
        time.sleep(0.05)


@contextlib.contextmanager
def serving(lines: str, environment: Environment, cwd: Path) -> Iterator[None]:
    """The processes that a block starts in the background, one a line, until they are stopped."""
    with contextlib.ExitStack() as stack:
        for line in lines.splitlines():
            *command, background = shlex.split(line)
            assert (command[0], background) == ("uvicorn", "&")
            log = cwd / f"{command[1].partition(':')[0]}.log"
            output = stack.enter_context(log.open("wb"))
            process = subprocess.Popen(
                [str(environment.bin / command[0]), *command[1:]],
                cwd=cwd, env=environment.variables(PYTHONUNBUFFERED="1"), stdout=output, stderr=output,
            )  # fmt: skip
            stack.callback(process.wait, 30)
            stack.callback(process.terminate)
            wait_for(int(command[-1]), process, log)
        yield


def test_the_readme_shows_the_files_of_the_examples(section: Section) -> None:
    assert list(section.files) == ["examples/services/stock.py", "examples/services/front.py"]
    for name, text in section.files.items():
        assert text == (ROOT / name).read_text("utf-8"), f"README.md does not show {name} as it is"
    assert (len(section.shell), len(section.output)) == (5, 1)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl (on Debian: apt-get install curl)")
def test_the_readme_runs_as_printed(section: Section, installed: Environment, tmp_path: Path) -> None:
    """Only the ports are others."""
    ports = dict(zip(("8001", "8002"), map(str, free_ports(2)), strict=True))

    def with_ports(text: str) -> str:
        return re.sub(r"\b800[12]\b", lambda found: ports[found[0]], text)

    for name, text in section.files.items():
        (tmp_path / Path(name).name).write_text(with_ports(text), "utf-8")
    _, keys, run, requests, verify = map(with_ports, section.shell)
    installed.run("bash", "-euc", keys, cwd=tmp_path)
    with serving(run, installed, tmp_path):
        answers = installed.run("bash", "-euc", requests, cwd=tmp_path)
        bob, direct = map(json.loads, answers.stdout.splitlines())
    assert len(json.loads((tmp_path / "passport.json").read_bytes())) == 2
    prose = " ".join((ROOT / "README.md").read_text("utf-8").split())
    for answer in (bob, direct):
        assert answer["status"] == 403
        said = re.split(r"[:,]", answer["detail"])[0]
        assert f"`{said}`" in prose
    verdict = installed.run("bash", "-euc", verify, cwd=tmp_path).stdout
    assert verdict.startswith(section.output[0])

    stock, front = ((tmp_path / f"{name}.log").read_text("utf-8") for name in ("stock", "front"))
    assert stock.count("reserved lamp") == 1
    assert stock.count("asked by ['spiffe://shop.example/front']") == 2  # Bob's too: denied, not unknown
    assert "Traceback" not in stock + front
    assert "eyJ" not in stock + front

    # The published keys are what convinces: with another's in their place, the same passport does not verify.
    replaced = (tmp_path / "login.jwks.json").read_text("utf-8")
    replaced = replaced.replace("https://login.example", "spiffe://shop.example/front")
    (tmp_path / "front.jwks.json").write_text(replaced, "utf-8")
    with pytest.raises(AssertionError, match="the signature does not match"):
        installed.run("bash", "-euc", verify, cwd=tmp_path)


PROPAGATE = """
import json, sys
from kest import MockPolicyEngine, StaticIdentity, TrustStore, configure, kest_verified
from kest.core.context import get_current_passport, lineage
from kest.http.propagator import arrival_of, continued
from opentelemetry import baggage, propagate

me = StaticIdentity("spiffe://kest.test/installed")
configure(engine=MockPolicyEngine(), identity=me, trust_store=TrustStore({me.get_identity(): me}))

@kest_verified("work")
def work():
    pass

carrier = {}
with lineage():
    work()
    work()
    sent = get_current_passport().entries
    propagate.inject(carrier, baggage.set_baggage("vendor", "x,y"))
print(json.dumps({"carrier": carrier, "names": [type(p).__name__ for p in propagate.get_global_textmap()._propagators]}))
if "kest" not in sys.argv:
    sys.exit()

context = propagate.extract(carrier)
assert baggage.get_baggage("vendor", context) == "x,y"
assert arrival_of(context).verified
with continued(context):
    assert get_current_passport().entries == sent and len(sent) == 2
    work()
    assert len(get_current_passport()) == 3
forged = dict(carrier, baggage=carrier["baggage"].replace("kest.chain_tip=", "kest.chain_tip=0"))
try:
    arrival_of(propagate.extract(forged))
except Exception as error:
    print(type(error).__name__)
"""


def test_the_propagator_that_otel_propagators_names(installed: Environment, tmp_path: Path) -> None:
    where = installed.run("python", "-c", "import kest; print(kest.__file__)", cwd=tmp_path).stdout
    assert Path(where.strip()).is_relative_to(installed.bin.parent)
    command = ("python", "-W", "error", "-c", PROPAGATE)
    done = installed.run(*command, "kest", cwd=tmp_path, OTEL_PROPAGATORS="tracecontext,baggage,kest")
    said, refused = done.stdout.splitlines()
    found = json.loads(said)
    assert found["names"] == ["TraceContextTextMapPropagator", "W3CBaggagePropagator", "KestPropagator"]
    members = [member.partition("=")[0] for member in found["carrier"]["baggage"].split(",")]
    assert sorted(members) == ["kest.chain_tip", "kest.passport", "vendor"]
    assert refused == "BaggageError"

    # The standard baggage propagator finds the passport too; without either, nothing leaves.
    standard = json.loads(installed.run(*command, cwd=tmp_path).stdout)
    assert standard["names"] == ["TraceContextTextMapPropagator", "W3CBaggagePropagator"]
    members = [member.partition("=")[0] for member in standard["carrier"]["baggage"].split(",")]
    assert sorted(members) == ["kest.chain_tip", "kest.passport", "vendor"]
    without = json.loads(installed.run(*command, cwd=tmp_path, OTEL_PROPAGATORS="tracecontext").stdout)
    assert without == {"carrier": {}, "names": ["TraceContextTextMapPropagator"]}


def test_the_page_of_kest_viz_comes_with_the_installation(installed: Environment, tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text('{"operation": "drawn", "parent_ids": ["0"]}\n', "utf-8")
    installed.run("kest-viz", "records.jsonl", "-o", "page.html", cwd=tmp_path, timeout=TIMEOUT)
    assert '"label":"drawn"' in (tmp_path / "page.html").read_text("utf-8")
