"""The tests that the pytest plugin adds: one for each property, subject and mode."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from nfspec.conformance.cases.results import Results
from nfspec.conformance.cases.target import target, words_of
from nfspec.conformance.report.terminal import head
from nfspec.conformance.running.command import needed_folder
from nfspec.conformance.running.run import asked_of, run
from nfspec.conformance.running.settings import Settings
from nfspec.conformance.workers.worker import Worker
from nfspec.errors import NfspecError

NAME = "nfspec"  # of the node that all tests are below, and of their marker


class ConformanceTests:
    """Adds the tests to those that pytest collects. The worker of a column is shared by its tests.

    Args:
        settings: Settings of the run that the tests make up.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        self.judged = self.asked = 0
        self._workers: dict[tuple[str, str], Worker] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        report = yield
        if isinstance(collector, pytest.Session):
            node: Any = Node.from_parent(collector, name=NAME, nodeid=NAME)
            node.tests = [PropertyTest.of(node, each, self.workers) for each in self._each()]
            report.result.append(node)
        return report

    def _each(self) -> Iterator[Settings]:
        """The settings of each test."""
        run = self.settings
        for asked in asked_of(run, target(run.source)):
            must_offer = tuple(method for method in run.must_offer if method == asked.method)
            of_one = replace(run, properties=(asked.id,), must_offer=must_offer)
            for subject, mode in product(run.subjects, run.modes):
                if mode in asked.modes:
                    yield replace(of_one, subjects=(subject,), modes=(mode,))

    @contextmanager
    def workers(self, settings: Settings, mode: str) -> Iterator[list[Worker]]:
        """The started worker of a subject in a mode, which is not closed afterwards."""
        (subject,) = settings.subjects
        if (subject, mode) not in self._workers:
            worker = Worker(subject, settings.device, mode, settings.timeout)
            self._workers[subject, mode] = worker
            worker.start()
            worker.wait()
        yield [self._workers[subject, mode]]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if NAME in report.keywords and report.when == "call":
            self.asked += 1
            self.judged += not report.skipped

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.asked and not self.judged and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.asked and not self.judged:
            terminalreporter.write_line(
                "nfspec: NOTHING JUDGED: no subject offers anything that was asked for; pytest -rs "
                "gives the reasons",
                red=True,
            )

    def pytest_unconfigure(self) -> None:
        for worker in self._workers.values():
            worker.close()


class Node(pytest.Collector):
    """The parent of all the tests."""

    tests: list[PropertyTest]

    def collect(self) -> list[PropertyTest]:
        return self.tests


class PropertyTest(pytest.Item):
    """One property of one subject in one mode."""

    settings: Settings
    workers: Callable[..., Any]

    @classmethod
    def of(cls, parent: Any, settings: Settings, workers: Callable[..., Any]) -> PropertyTest:
        """Make the test of settings with one property, one subject and one mode."""
        column = f"{settings.subjects[0]}/{settings.device}/{settings.modes[0]}"
        name = f"{settings.properties[0]}[{column}]"
        made: PropertyTest = cls.from_parent(parent, name=name, nodeid=f"{NAME}::{name}")
        made.settings, made.workers = settings, workers
        made.add_marker(NAME)
        return made

    def runtest(self) -> None:
        results = self._run()
        if isinstance(results, NfspecError):  # outside of `except`, as pytest tells both errors
            pytest.fail(str(results), pytrace=False)
        (cell,) = results.cells
        self.user_properties += [("cases", cell.cases), ("error / bound", cell.worst)]
        if not results.conformant and (cell.verdict != "not offered" or results.problems):
            text = [*head(results), "", cell.message, *results.problems, "", *self._more()]
            pytest.fail("\n".join(text), pytrace=False)
        if cell.verdict == "not offered":
            pytest.skip(cell.message.rpartition("\n")[2])

    def _run(self) -> Results | NfspecError:
        try:
            return run(self.settings, workers_of=self.workers)
        except NfspecError as error:
            return error

    def _more(self) -> list[str]:
        """Lines with the command that also looks for the conventions that the subject keeps."""
        run = self.settings
        words = ["nfspec", "conform", *(words_of(run.source) if run.source else [])]
        words += ["--subject", *run.subjects, "--properties", *run.properties]
        words += ["--device", run.device, "--mode", *run.modes]
        folder = needed_folder(run.subjects, run.source or "")
        command = (
            f"cd {shlex.quote(folder)} && {shlex.join(words)}" if folder else shlex.join(words)
        )
        return ["For the conventions with which it conforms, and a report:", command]

    def reportinfo(self) -> tuple[Path, None, str]:
        return Path(NAME), None, self.name


def conformance_tests(config: pytest.Config) -> ConformanceTests:
    """The tests that the options ask for.

    Raises:
        pytest.UsageError: An option cannot be used.
    """

    def option(name: str) -> Any:
        return config.getoption(f"--nfspec-{name}")

    try:
        settings = Settings(
            source=option("spec"),
            subjects=tuple(dict.fromkeys(option("subject"))),
            device=option("device"),
            modes=_names(option("mode")),
            examples=option("examples"),
            seed=option("seed"),
            properties=_names(option("properties")),
            must_offer=_names(option("must-offer")),
        )
        asked_of(settings, target(settings.source))
    except NfspecError as error:
        raise pytest.UsageError(f"nfspec: {error}") from None
    return ConformanceTests(settings)


def _names(text: str) -> tuple[str, ...]:
    """The names of a list with commas, each once."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
