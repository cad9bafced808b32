"""Progress on stderr: a run's plan, a bar or lines for each task, downloads."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from uwbench.api import IMPORTED, printable
from uwbench.cli.tables import open_console

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from uwbench.extraction.plan import Plan
    from uwbench.options import Folders

_LINE_EVERY_S = 10.0  # how often a log file gets a line


class TerminalReporter:
    """One progress bar per task on a terminal; plain lines otherwise."""

    def __init__(self) -> None:
        self.console = open_console(stderr=True)
        self.bar: Progress | None = None
        self.title = ""
        self.total = self.clips = 0
        self.audio_s = 0.0
        self.start = self.last_line = 0.0

    def note(self, text: str) -> None:
        self.console.print(printable(text), markup=False, soft_wrap=True)

    def planned(self, plans: Sequence[Plan], missing: Sequence[str], folders: Folders) -> None:
        for line in plan_lines(plans, missing, folders):
            self.console.print(printable(line), markup=False, soft_wrap=True)

    def started(self, model: str, task: str, clips: int) -> None:
        self.title, self.total, self.clips, self.audio_s = printable(f"{model}  {task}"), clips, 0, 0.0
        self.start = self.last_line = time.monotonic()
        if self.console.is_terminal:
            self.bar = _bar(self.console)
            self.bar.start()
            self.bar.add_task(self.title, total=clips or None, speed="")

    def advanced(self, clips: int, audio_s: float) -> None:
        self.clips += clips
        self.audio_s += audio_s
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=self.clips, speed=self._speed())
        elif time.monotonic() - self.last_line > _LINE_EVERY_S:
            self.last_line = time.monotonic()
            self.console.print(self._line(), markup=False, soft_wrap=True)

    def finished(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
        elif self.clips:
            self.console.print(self._line(), markup=False, soft_wrap=True)
        self.clips = 0

    def _speed(self) -> str:
        seconds = max(time.monotonic() - self.start, 1e-9)
        speed = f"{self.clips / seconds:.1f} clips/s"
        return f"{speed}  {self.audio_s / seconds:.0f} audio-s/s" if self.audio_s else speed

    def _line(self) -> str:
        seconds = time.monotonic() - self.start
        remaining = seconds / self.clips * (self.total - self.clips) if self.clips else 0.0
        ending = f", {remaining:.0f} s left" if self.clips < self.total else f" in {seconds:.1f} s"
        return f"{self.title}: {self.clips:,}/{self.total:,} clips, {self._speed()}{ending}"


@contextmanager
def check_progress(task: str) -> Iterator[Callable[[int, int], None]]:
    """Show how many clips of a task are checked; yield what takes the number checked and the number of all clips."""
    reporter = TerminalReporter()

    def show(checked: int, clips: int) -> None:
        if not reporter.total:
            reporter.started("check", task, clips)
        reporter.advanced(checked - reporter.clips, 0.0)

    try:
        yield show
    finally:
        reporter.finished()


def print_download(name: str, done: int, total: int) -> None:
    """Print one line per file on stderr, redrawn as bytes arrive."""
    end = "\n" if done >= total else ""
    share = done / total if total else 1.0
    line = f"\r{printable(name)}: {done / 1e6:,.1f} of {total / 1e6:,.1f} MB ({share:.0%})"
    print(line, end=end, file=sys.stderr)


def plan_lines(plans: Sequence[Plan], missing: Sequence[str], folders: Folders) -> list[str]:
    """Return the plan line by line: folders, cached clips, clips to encode and why, disk space, missing data."""
    lines = [f"cache {folders.cache}   results {folders.results}   data {folders.data or '(none)'}"]
    width = max((len(plan.task.card.name) for plan in plans), default=0)
    for plan in plans:
        record, task = plan.store.record, plan.task
        state = f"{plan.cached:,} of {len(task.table.ids):,} clips cached"
        if plan.to_encode:
            step = "import" if record.family == IMPORTED else "encode"
            state += f", {plan.to_encode:,} to {step} ({plan.audio_s / 3600:.2f} h): {plan.reason}"
        if plan.corrupted:
            corrupted = sum(part.to_encode for part in plan.corrupted)
            hours = sum(part.audio_s for part in plan.corrupted) / 3600
            state += f", {len(plan.corrupted)} corruptions"
            state += f" with {corrupted:,} clips to encode ({hours:.2f} h)" if corrupted else " cached"
        if task.table.unreadable:
            state += f", {len(task.table.unreadable):,} missing, first: {task.table.unreadable[0]}"
        lines.append(f"  {task.card.name:<{width}}  {record.name} [{record.fingerprint[:8]}]  {state}")
    problems = dict.fromkeys(problem for plan in plans for problem in plan.task.problems)
    lines.extend(f"  note: {problem}" for problem in problems)
    needed = sum(plan.forecast_bytes() for plan in plans)
    if needed:
        lines.append(f"  the embeddings will take about {_bytes(needed)} on disk")
    lines.extend(f"  missing: {line}" for line in missing)
    return lines


def _bytes(count: int) -> str:
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def _bar(console: Console) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}", markup=False),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
