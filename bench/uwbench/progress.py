"""Progress of a run: its plan, then rate and time left, on a terminal, in a log file or in a notebook.

Time left follows the seconds of input that the encoder gets, its padding included, and not the number of clips: parts
are ordered by length, so the first clips are the shortest and say little about the last.
"""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from uwbench.base.console import open_console
from uwbench.encoders.base import IMPORTED
from uwbench.errors import counted, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from uwbench.extraction.plan import Plan
    from uwbench.options import Folders

SCAN = "scan"  # stands for the model while clips are hashed, which takes no time if they were before
_LINE_EVERY_S = 10.0  # how often a log file gets a line
_DRAW_EVERY_S = 0.2


class Reporter(Protocol):
    """A receiver of the progress of a run."""

    def note(self, text: str) -> None:
        """Show a message."""
        ...

    def planned(self, plans: Sequence[Plan], missing: Sequence[str], folders: Folders) -> None:
        """Show what will be encoded, and which tasks of the suite are not at hand."""
        ...

    def started(self, model: str, task: str, clips: int, input_s: float = 0.0) -> None:
        """Begin a task of `clips` clips (0: not known), for which the encoder gets `input_s` seconds of input.

        `model` is `SCAN` while the clips are hashed.
        """
        ...

    def advanced(self, clips: int, audio_s: float, input_s: float = 0.0) -> None:
        """Count further clips as encoded, with the seconds of their audio and of input, padding included."""
        ...

    def finished(self) -> None:
        """End the task; may be called without one."""
        ...


class Silent:
    """A reporter that shows nothing."""

    def note(self, text: str) -> None: ...

    def planned(self, plans: Sequence[Plan], missing: Sequence[str], folders: Folders) -> None: ...

    def started(self, model: str, task: str, clips: int, input_s: float = 0.0) -> None: ...

    def advanced(self, clips: int, audio_s: float, input_s: float = 0.0) -> None: ...

    def finished(self) -> None: ...


@dataclass(slots=True)
class Tally:
    """How far a task is: its clips, their seconds of audio, and the seconds of input that the encoder gets for them."""

    title: str
    all_clips: int = 0  # 0: not known
    all_input_s: float = 0.0  # 0: time left follows the clips
    clips: int = 0
    audio_s: float = 0.0
    input_s: float = 0.0
    start_s: float = field(default_factory=time.monotonic)

    def add(self, clips: int, audio_s: float, input_s: float) -> None:
        """Count further clips."""
        self.clips += clips
        self.audio_s += audio_s
        self.input_s += input_s

    @property
    def share(self) -> float:
        """The part of the work that is over, from 0 to 1."""
        over, whole = (self.input_s, self.all_input_s) if self.all_input_s else (self.clips, self.all_clips)
        return min(over / whole, 1.0) if whole else 0.0

    @property
    def left_s(self) -> float | None:
        """The seconds that the rest will take at the rate so far; None: nobody knows."""
        taken_s = time.monotonic() - self.start_s
        return taken_s / self.share * (1 - self.share) if self.share else None

    def status(self) -> str:
        """Return the counts, the rate, and the time left or, at the end, taken."""
        seconds = max(time.monotonic() - self.start_s, 1e-9)
        if not self.all_clips:
            return f"in {seconds:.1f} s"
        parts = [f"{self.clips:,}/{self.all_clips:,} clips", f"{self.clips / seconds:.1f} clips/s"]
        if self.audio_s:
            parts.append(f"{self.audio_s / seconds:.0f} audio-s/s")
        if self.clips >= self.all_clips:
            parts.append(f"in {seconds:.1f} s")
        elif self.left_s is not None:
            parts.append(f"{duration(self.left_s)} left")
        return ", ".join(parts)


class TerminalReporter:
    """A bar per task on a terminal, lines in a log file, both on stderr."""

    def __init__(self) -> None:
        self.console = open_console(stderr=True)
        self.tally = Tally("")
        self.bar: Progress | None = None
        self.quick = False
        self.drawn_s = 0.0

    def note(self, text: str) -> None:
        self.console.print(printable(text), markup=False, soft_wrap=True)

    def planned(self, plans: Sequence[Plan], missing: Sequence[str], folders: Folders) -> None:
        for line in plan_lines(plans, missing, folders):
            self.note(line)

    def started(self, model: str, task: str, clips: int, input_s: float = 0.0) -> None:
        self.tally = Tally(printable(f"{model}  {task}"), clips, input_s)
        self.quick = model == SCAN  # most often; then it leaves no line
        self.drawn_s = self.tally.start_s
        if self.console.is_terminal:
            self.bar = _bar(self.console)
            self.bar.add_task(self.tally.title, total=1.0 if clips else None, status="")
            self.bar.start()

    def advanced(self, clips: int, audio_s: float, input_s: float = 0.0) -> None:
        self.tally.add(clips, audio_s, input_s)
        now = time.monotonic()
        if self.bar is not None and now - self.drawn_s > _DRAW_EVERY_S:
            self.drawn_s = now
            self.bar.update(self.bar.task_ids[0], completed=self.tally.share, status=self.tally.status())
        elif self.bar is None and now - self.drawn_s > _LINE_EVERY_S:
            self.drawn_s = now
            self._print_line()

    def finished(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
        elif self.tally.title:
            took_long = time.monotonic() - self.tally.start_s > _LINE_EVERY_S
            if took_long or (self.tally.clips and not self.quick):
                self._print_line()
        self.tally = Tally("")

    def _print_line(self) -> None:
        self.console.print(f"{self.tally.title}: {self.tally.status()}", markup=False, soft_wrap=True)


class NotebookReporter:
    """One output of a notebook's cell, redrawn: notes on the data that stay, and a bar while a task runs.

    It needs IPython alone, no widgets, and so is drawn by every front end of Jupyter.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.step = ""  # what a note said that the run does now
        self.tally: Tally | None = None
        self.handle: Any = None
        self.drawn_s = 0.0

    def note(self, text: str) -> None:
        if text.startswith("note: "):
            self.notes.append(printable(text))
        else:
            self.step = printable(text)
        self._draw()

    def planned(self, plans: Sequence[Plan], missing: Sequence[str], folders: Folders) -> None:
        del missing, folders  # the results name them
        problems = dict.fromkeys(problem for plan in plans for problem in plan.task.problems)
        for problem in problems:
            self.note(f"note: {problem}")

    def started(self, model: str, task: str, clips: int, input_s: float = 0.0) -> None:
        self.step, self.tally = "", Tally(printable(f"{model}  {task}"), clips, input_s)
        self._draw()

    def advanced(self, clips: int, audio_s: float, input_s: float = 0.0) -> None:
        if self.tally is not None:
            self.tally.add(clips, audio_s, input_s)
            if time.monotonic() - self.drawn_s > _DRAW_EVERY_S:
                self._draw()

    def finished(self) -> None:
        if self.tally is not None:
            self.tally = None
            self._draw()

    def _draw(self) -> None:
        from IPython.display import display

        self.drawn_s = time.monotonic()
        texts = [*self.notes, *([self.step] if self.step else [])]
        lines = [f"<div>{html.escape(text)}</div>" for text in texts]
        if self.tally is not None:
            share = f" value='{self.tally.share:.4f}'" if self.tally.all_clips else ""
            texts.append(f"{self.tally.title}  {self.tally.status() if self.tally.all_clips else ''}".rstrip())
            lines.append(f"<div><progress{share}></progress> {html.escape(texts[-1])}</div>")
        shown = {"text/plain": "\n".join(texts), "text/html": "".join(lines)}
        if self.handle is None:
            self.handle = display(shown, raw=True, display_id=True)
        else:
            self.handle.update(shown, raw=True)


def reporter_for(progress: bool | Reporter | None) -> Reporter:
    """Return what shows the progress of a run: without a wish, a notebook does and a program does not."""
    if progress is not None and not isinstance(progress, bool):
        return progress
    if in_notebook():
        return Silent() if progress is False else NotebookReporter()
    return TerminalReporter() if progress else Silent()


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def duration(seconds: float) -> str:
    """Return a length of time in words: `26 s`, `3 min 20 s`, `12 min`, `3 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 3600:
        return f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def plan_lines(plans: Sequence[Plan], missing: Sequence[str], folders: Folders) -> list[str]:
    """Return the plan line by line: folders, cached clips, clips to encode and why, disk space, missing data."""
    lines = [f"cache {folders.cache}   results {folders.results}   data {folders.data or '(none)'}"]
    width = max((len(plan.task.card.name) for plan in plans), default=0)
    for plan in plans:
        record, task = plan.store.record, plan.task
        state = f"{plan.cached:,} of {len(task.table.ids):,} clips cached"
        if plan.to_encode:
            step = "import" if record.family == IMPORTED else "encode"
            segments = " with segments" if plan.needs_segments else ""
            state += f", {plan.to_encode:,} to {step}{segments} ({plan.audio_s / 3600:.2f} h): {plan.reason}"
        if plan.corrupted:
            corrupted = sum(part.to_encode for part in plan.corrupted)
            hours = sum(part.audio_s for part in plan.corrupted) / 3600
            state += f", {counted(len(plan.corrupted), 'corruption')}"
            state += f" with {counted(corrupted, 'clip')} to encode ({hours:.2f} h)" if corrupted else " cached"
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
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[status]}", markup=False),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
