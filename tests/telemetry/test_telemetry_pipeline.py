"""The queue between calls and an exporter: what is kept, what is lost and counted, and that no call ever notices."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kest.telemetry.pipeline import Limits, Pipeline, UnavailableError

NEVER = 3600.0  # seconds until the thread wakes up by itself


class Recorder:
    """A sink that keeps what it is given, unless ``fails`` says otherwise."""

    def __init__(self, local: bool = True) -> None:
        self.local = local
        self.spans: list[Any] = []
        self.fails: BaseException | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.closed = 0

    def export(self, spans: Any) -> None:
        self.entered.set()
        self.gate.wait(60)
        if self.fails is not None:
            raise self.fails
        self.spans += spans

    def release(self) -> None: ...

    def forget(self) -> None: ...

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def start() -> Iterator[Callable[..., tuple[Any, Pipeline]]]:
    made: list[tuple[Recorder, Pipeline]] = []

    def make(local: bool = True, **limits: Any) -> tuple[Any, Pipeline]:
        sink = Recorder(local)
        made.append((sink, Pipeline(sink, "test", Limits(**{"delay": NEVER, **limits}))))
        return made[-1]

    yield make
    for sink, pipeline in made:
        sink.gate.set()
        pipeline.close(60)


def test_a_full_batch_goes_out_by_itself(start: Any) -> None:
    sink, pipeline = start(queue=100, batch=10)
    for number in range(10):
        pipeline.add(number)
    assert sink.entered.wait(60)
    assert pipeline.flush(60)
    assert sink.spans == list(range(10))
    assert pipeline.counts() == {"exported": 10, "failed": 0, "dropped": 0, "queued": 0}


def test_callers_write_what_does_not_fit_a_local_queue(start: Any) -> None:
    sink, pipeline = start(queue=5, batch=5)
    for number in range(1000):
        pipeline.add(number)
    pipeline.close(60)
    assert sink.spans == list(range(1000))
    assert pipeline.dropped == 0


def test_from_many_threads_nothing_is_lost_or_doubled(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kest.telemetry.pipeline.CALLERS_PATIENCE", 60.0)
    sink, pipeline = start(queue=16, batch=8, delay=0.001)

    def add(first: int) -> None:
        for number in range(first, first + 2000):
            pipeline.add(number)

    threads = [threading.Thread(target=add, args=(n * 2000,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    pipeline.close(60)
    assert sorted(sink.spans) == list(range(8000))
    assert pipeline.counts() == {"exported": 8000, "failed": 0, "dropped": 0, "queued": 0}


def test_a_remote_sink_that_is_slow_costs_spans_and_no_time(start: Any, caplog: Any) -> None:
    sink, pipeline = start(local=False, queue=10, batch=5)
    sink.gate.clear()
    for number in range(5):
        pipeline.add(number)
    assert sink.entered.wait(60)  # five are on their way
    with caplog.at_level(logging.ERROR, "kest.telemetry"):
        for number in range(5, 100):
            pipeline.add(number)
    assert pipeline.dropped == 85
    assert [record.getMessage() for record in caplog.records] == [
        "telemetry to test fails: its queue is full. Calls go on. Lost so far: 1 spans; waiting: 10"
    ]
    sink.gate.set()
    assert pipeline.flush(60)
    assert sink.spans == list(range(15))


def test_a_sink_that_is_unavailable_is_tried_again_in_order(start: Any, caplog: Any) -> None:
    sink, pipeline = start(queue=10, batch=3)
    sink.fails = UnavailableError("the disk is full")
    for number in range(12):
        pipeline.add(number)
        pipeline.flush(60)
    assert pipeline.counts() == {"exported": 0, "failed": 0, "dropped": 2, "queued": 10}
    sink.fails = None
    assert pipeline.flush(60)
    assert sink.spans == list(range(10))
    messages = [record.getMessage() for record in caplog.records if record.name == "kest.telemetry"]
    assert len(messages) == 2
    assert "the disk is full" in messages[0]
    assert "works again; lost so far: 2 spans" in messages[1]


def test_what_a_sink_gives_up_is_counted_and_does_not_block_the_rest(start: Any, caplog: Any) -> None:
    sink, pipeline = start(queue=10, batch=2)
    sink.fails = ValueError("a secret")
    for number in range(4):
        pipeline.add(number)
    assert pipeline.flush(60)
    sink.fails = None
    pipeline.add(4)
    assert pipeline.flush(60)
    assert sink.spans == [4]
    assert pipeline.counts() == {"exported": 1, "failed": 4, "dropped": 0, "queued": 0}
    assert "ValueError" in caplog.text
    assert "secret" not in caplog.text


def test_closing_writes_all_and_then_takes_nothing(start: Any) -> None:
    sink, pipeline = start()
    pipeline.add(1)
    pipeline.close(60)
    pipeline.close(60)
    pipeline.add(2)
    assert sink.spans == [1]
    assert sink.closed == 1
    assert len(pipeline) == 0


def test_closing_counts_what_it_must_leave(start: Any, caplog: Any) -> None:
    sink, pipeline = start()
    sink.fails = UnavailableError("gone")
    pipeline.add(1)
    pipeline.close(60)
    assert pipeline.counts() == {"exported": 0, "failed": 0, "dropped": 1, "queued": 0}
    assert "ended with 1 spans lost" in caplog.text


def test_without_a_delay_a_span_is_out_at_once(start: Any) -> None:
    sink, pipeline = start(delay=0)
    pipeline.add(1)
    assert sink.spans == [1]


def test_an_exporters_own_calls_are_not_traced(start: Any) -> None:
    from opentelemetry import context

    sink, pipeline = start()
    seen: list[Any] = []
    sink.export = lambda spans: seen.append(context.get_value(context._SUPPRESS_INSTRUMENTATION_KEY))
    pipeline.add(1)
    pipeline.flush(60)
    assert seen == [True]
    assert context.get_value(context._SUPPRESS_INSTRUMENTATION_KEY) is None


def test_a_remote_sink_that_hangs_holds_nobody_up(start: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr("kest.telemetry.pipeline.CALLERS_PATIENCE", 0.01)
    sink, pipeline = start(local=False, queue=10, batch=2)
    sink.gate.clear()
    for number in range(3):
        pipeline.add(number)
    assert sink.entered.wait(60)
    assert not pipeline.flush(0.01)
    pipeline.close(0.01)
    assert sink.closed
    assert pipeline.dropped == 3
    assert "ended with 3 spans lost" in caplog.text


def test_a_remote_sink_is_flushed_by_its_thread(start: Any) -> None:
    sink, pipeline = start(local=False)
    pipeline.add(1)
    assert pipeline.flush(60)
    pipeline.add(2)
    pipeline.close(60)
    assert sink.spans == [1, 2]
