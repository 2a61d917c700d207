"""`KestTelemetry.setup`: whose provider, which exporters, what is refused, and what a process leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kest.core import PassportVerifier
from kest.errors import ConfigurationError, MissingExtraError
from kest.telemetry import KestTelemetry, flows

KINDS = ("file", "sqlite")


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_process_did_is_in_the_file_when_it_has_ended(
    kind: str, script: Any, tmp_path: Path, read: Any, keys: Any
) -> None:
    done = script(f"KestTelemetry.setup('shop', {kind!r}, PATH + '/t')\nfor n in range(40): f(n)\n")
    assert done.stdout == ""
    assert (tmp_path / "t").stat().st_mode & 0o777 == 0o600
    spans = read(tmp_path / "t")
    assert [span.operation for span in spans] == ["op"] * 40
    assert {span.service for span in spans} == {"shop"}
    assert {span.name for span in spans} == {"kest.verified.op"}
    (flow,) = flows(spans)
    assert len(PassportVerifier.verify(flow.entries, keys)) == 40
    assert spans[0].passport is not None
    assert spans[0].passport.entries == [spans[0].signature]


@pytest.mark.parametrize("kind", KINDS)
def test_both_formats_say_the_same(kind: str, script: Any, tmp_path: Path, read: Any) -> None:
    script(
        "KestTelemetry.setup('shop', 'file', PATH + '/file')\nKestTelemetry.setup('shop', 'sqlite', PATH + '/sqlite')\n"
        "g = kest_verified(['p', 'q'], operation_name='g', added_taints=['b', 'a'])(lambda: f())\n"
        "g()\n"
        "try: kest_verified('p', operation_name='no', engine=MockPolicyEngine(allow=False))(f)()\n"
        "except PolicyDeniedError: pass\n"
    )
    first, second = ([_comparable(span) for span in read(tmp_path / kind)] for kind in KINDS)
    assert first == second
    assert [span["attributes"]["kest.allowed"] for span in first] == [True, True, False]
    assert [span["status"] for span in first] == ["UNSET", "UNSET", "ERROR"]
    assert first[1]["attributes"]["kest.taints"] == ["a", "b"]
    assert first[0]["parent_span_id"] == first[1]["span_id"]


def _comparable(span: Any) -> dict[str, Any]:
    return {name: getattr(span, name) for name in span.__slots__ if name != "where"}


def test_an_applications_own_provider_is_used_and_keeps_what_it_had(script: Any, tmp_path: Path, read: Any) -> None:
    script(
        "from opentelemetry import trace\n"
        "from opentelemetry.sdk.resources import Resource\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from opentelemetry.sdk.trace.export import SimpleSpanProcessor\n"
        "from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter\n"
        "own, theirs = TracerProvider(resource=Resource({'service.name': 'theirs'})), InMemorySpanExporter()\n"
        "own.add_span_processor(SimpleSpanProcessor(theirs))\n"
        "trace.set_tracer_provider(own)\n"
        "KestTelemetry.setup('ours', 'file', PATH + '/t')\n"
        "assert trace.get_tracer_provider() is own\n"
        "with trace.get_tracer('app').start_as_current_span('request'): f()\n"
        "names = [span.name for span in theirs.get_finished_spans()]\n"
        "assert names == ['kest.verified.op', 'request'], names\n"
        "assert theirs.get_finished_spans()[0].resource.attributes['service.name'] == 'theirs'\n"
        "KestTelemetry.shutdown()\n"
        "f()\n"
        "assert len(theirs.get_finished_spans()) == 3\n"
    )
    (span,) = read(tmp_path / "t")
    assert span.service == "theirs"
    assert span.parent_span_id


def test_a_provider_without_a_service_gets_the_name_in_what_is_exported(script: Any, tmp_path: Path, read: Any) -> None:
    script(
        "from opentelemetry import trace\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "trace.set_tracer_provider(TracerProvider())\n"
        "KestTelemetry.setup('ours', 'file', PATH + '/t')\n"
        "f()\n"
    )
    (span,) = read(tmp_path / "t")
    assert span.service == "ours"
    assert span.attributes["kest.signature"]


def test_the_service_comes_from_the_environment_too(script: Any, tmp_path: Path, read: Any) -> None:
    env = {"OTEL_SERVICE_NAME": "env-shop", "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=lab"}
    script("KestTelemetry.setup(exporter_type='file', endpoint=PATH + '/t')\nf()\n", env=env)
    (span,) = read(tmp_path / "t")
    assert span.service == "env-shop"
    assert span.resource["deployment.environment"] == "lab"


def test_set_up_twice_is_set_up_once_and_another_exporter_is_added(script: Any, tmp_path: Path, read: Any) -> None:
    script(
        "os.chdir(PATH)\n"
        "for path in (PATH + '/t', 't', './t'): KestTelemetry.setup('shop', 'file', path)\n"
        "KestTelemetry.setup('shop', 'file', 'u')\n"
        "f()\n"
        "assert len(KestTelemetry.status()) == 2\n"
    )
    assert len(read(tmp_path / "t")) == len(read(tmp_path / "u")) == 1


def test_shutdown_writes_all_and_setup_may_begin_anew(script: Any, tmp_path: Path, read: Any) -> None:
    script(
        "KestTelemetry.shutdown()\n"
        "KestTelemetry.setup('one', 'file', PATH + '/t')\n"
        "f()\nKestTelemetry.shutdown()\nKestTelemetry.shutdown()\n"
        "assert KestTelemetry.status() == []\n"
        "assert KestTelemetry.flush()\n"
        "f()\n"
        "KestTelemetry.setup('two', 'file', PATH + '/t')\n"
        "f()\n"
    )
    assert [span.service for span in read(tmp_path / "t")] == ["one", "two"]


def test_flush_says_whether_all_is_written(script: Any, tmp_path: Path) -> None:
    script(
        "KestTelemetry.setup('shop', 'sqlite', PATH + '/t')\n"
        "f(), f()\n"
        "assert KestTelemetry.flush()\n"
        "(status,) = KestTelemetry.status()\n"
        "assert (status['exported'], status['queued'], status['failed'], status['dropped']) == (2, 0, 0, 0), status\n"
        "assert status['exporter'] == 'sqlite' and status['endpoint'] == PATH + '/t'\n"
        "import sqlite3\n"
        "db = sqlite3.connect(PATH + '/t')\n"
        "assert db.execute('select count(*) from spans').fetchone() == (2,)\n"
    )


def test_console_prints_spans_and_nothing_else_does(script: Any) -> None:
    done = script("KestTelemetry.setup('shop', 'console')\nf()\nprint('after')\nKestTelemetry.shutdown()\nf()\n")
    text, _, rest = done.stdout.partition("after\n")
    assert json.loads(text)["attributes"]["kest.operation"] == "op"
    assert json.loads(text)["resource"]["attributes"]["service.name"] == "shop"
    assert rest == ""


def test_an_sdk_that_is_switched_off_stays_off(script: Any, tmp_path: Path) -> None:
    done = script(
        "KestTelemetry.setup('shop', 'file', PATH + '/t')\nassert f() == 1\nassert KestTelemetry.status() == []\n",
        env={"OTEL_SDK_DISABLED": "true"},
    )
    assert "OTEL_SDK_DISABLED" in done.stderr
    assert not (tmp_path / "t").exists()


def test_unsampled_spans_are_not_written(script: Any, tmp_path: Path, read: Any) -> None:
    script("KestTelemetry.setup('s', 'file', PATH + '/t')\nf()\n", env={"OTEL_TRACES_SAMPLER": "always_off"})
    assert read(tmp_path / "t") == []


def test_a_provider_that_takes_no_exporters_is_an_error(script: Any) -> None:
    script(
        "from opentelemetry import trace\n"
        "trace.set_tracer_provider(trace.NoOpTracerProvider())\n"
        "from kest.errors import ConfigurationError\n"
        "try: KestTelemetry.setup('shop', 'console')\n"
        "except ConfigurationError as error: assert 'NoOpTracerProvider' in str(error)\n"
        "else: raise SystemExit('no error')\n"
    )


def test_without_the_sdk_the_error_says_what_to_install(script: Any) -> None:
    script(
        "sys.modules['opentelemetry.sdk'] = sys.modules['opentelemetry.sdk.trace'] = None\n"
        "from kest.errors import MissingExtraError\n"
        "try: KestTelemetry.setup('shop', 'console')\n"
        "except MissingExtraError as error: assert 'kest[otlp]' in str(error)\n"
        "else: raise SystemExit('no error')\n"
    )


def test_without_the_otlp_exporters_too(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    with pytest.raises(MissingExtraError, match=r"kest\[otlp\]"):
        KestTelemetry.setup("shop", "otlp", "http://127.0.0.1:4317")


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("",), {}, "service_name"),
        ((7,), {}, "service_name"),
        (("s", "jaeger"), {}, "exporter_type is one of console, otlp, file, sqlite, not 'jaeger'"),
        (("s", "console", "x"), {}, "no endpoint"),
        (("s", "file", ""), {}, "path"),
        (("s", "file", "a\0b"), {}, "path"),
        (("s", "file", "t"), {"metrics": True}, "metrics"),
        (("s", "file", "t"), {"protocol": "grpc"}, "protocol"),
        (("s", "otlp", "ftp://x"), {}, "http://collector:4317"),
        (("s", "otlp", "http://x:99999"), {}, "http://collector:4317"),
        (("s", "otlp", "http://"), {}, "http://collector:4317"),
        (("s", "otlp", "http://me:hunter2@x:4317"), {}, "OTEL_EXPORTER_OTLP_HEADERS"),
        (("s", "otlp", "http://x"), {"protocol": "carrier pigeon"}, "grpc"),
    ],
)
def test_what_is_wrong_is_said(arguments: Any, options: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match="(?s)" + message.replace("(", r"\(")) as error:
        KestTelemetry.setup(*arguments, **options)
    assert "hunter2" not in str(error.value)
    assert KestTelemetry.status() == []


def test_a_wrong_variable_is_an_error_that_changes_nothing(script: Any) -> None:
    script(
        "from kest.errors import ConfigurationError\n"
        "try: KestTelemetry.setup('shop', 'file', PATH + '/t')\n"
        "except ConfigurationError as error: assert 'OTEL_BSP_MAX_QUEUE_SIZE' in str(error)\n"
        "else: raise SystemExit('no error')\n"
        "from opentelemetry import trace\n"
        "assert type(trace.get_tracer_provider()) is trace.ProxyTracerProvider\n"
        "assert f() == 1\n",
        env={"OTEL_BSP_MAX_QUEUE_SIZE": "-1"},
    )


FORK = (
    "KestTelemetry.setup('shop', {kind!r}, PATH + '/t')\n"
    "f(); {before}\n"
    "workers = []\n"
    "for number in range(3):\n"
    "    pid = os.fork()\n"
    "    if pid == 0:\n"
    "        for _ in range(50): f()\n"
    "        sys.exit(0)\n"  # as gunicorn's workers end
    "    workers.append(pid)\n"
    "for _ in range(50): f()\n"
    "for pid in workers: assert os.waitpid(pid, 0)[1] == 0\n"
)


@pytest.mark.parametrize("before", ["pass", "KestTelemetry.flush()"])
@pytest.mark.parametrize("kind", KINDS)
def test_forked_workers_write_their_own_spans(
    kind: str, before: str, script: Any, tmp_path: Path, read: Any, keys: Any
) -> None:
    script(FORK.format(kind=kind, before=before))
    spans = read(tmp_path / "t")
    assert len(spans) == len({span.span_id for span in spans}) == 1 + 4 * 50
    (flow,) = flows(spans)
    assert flow.missing == ()
    assert len(PassportVerifier.verify(flow.entries, keys)) == 201


@pytest.mark.parametrize("kind", KINDS)
def test_children_of_multiprocessing_end_with_their_spans_written(
    kind: str, script: Any, tmp_path: Path, read: Any
) -> None:
    script(
        "import multiprocessing\n"
        f"KestTelemetry.setup('shop', {kind!r}, PATH + '/t')\n"
        "child = multiprocessing.get_context('fork').Process(target=f)\n"
        "child.start(); child.join(60)\n"
        "assert child.exitcode == 0\n"
    )
    assert len(read(tmp_path / "t")) == 1
