"""Find files whose names on disk differ a little from the listed names.

They may differ in case (often `.WAV` for `.wav`), in surrounding space, in Unicode form (macOS writes `é` as two
characters), and in the separator of folders (`\\` on Windows).
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from uwbench.audio.clip import AudioFile, Clip


def with_real_names(clips: Iterable[Clip], root: Path, *, may_leave: bool = False) -> tuple[tuple[Clip, ...], int]:
    """Return the clips with the file names that exist on disk, and how many differ from the listed names.

    Names are searched below `root`; each folder is listed once. A file that a link leads to outside `root` is taken
    only if it `may_leave`. Names that match no file, or two, stay as they are.
    """
    folders = _Folders()
    corrected, renamed = [], 0
    for clip in clips:
        audio = clip.audio
        if isinstance(audio, AudioFile) and not folders.has(audio.path):
            real = folders.find(root, audio.path)
            if real is not None and (may_leave or real.resolve().is_relative_to(root.resolve())):
                renamed += 1
                corrected.append(replace(clip, audio=AudioFile(real)))
                continue
        corrected.append(clip)
    return tuple(corrected), renamed


def renamed_note(count: int) -> str:
    """Return the sentence that says how many files were found under other names."""
    return f"{count} files were found under names that differ in case, space, Unicode form or \\ from those listed"


class _Folders:
    """The names in folders, each listed once: all of them, and by the loose names that only one has."""

    def __init__(self) -> None:
        self._listings: dict[Path, tuple[set[str], dict[str, str]]] = {}

    def has(self, file: Path) -> bool:
        return file.name in self._listing(file.parent)[0]

    def find(self, root: Path, file: Path) -> Path | None:
        """Return the file below `root` whose folders and name match loosely, or None."""
        try:
            listed = file.relative_to(root)
        except ValueError:
            return None
        folder = root
        for name in listed.as_posix().replace("\\", "/").split("/"):
            if name in ("", "."):
                continue
            names, name_of = self._listing(folder)
            real = name if name in names else name_of.get(_loose(name))
            if real is None:
                return None
            folder /= real
        return folder

    def _listing(self, folder: Path) -> tuple[set[str], dict[str, str]]:
        if folder not in self._listings:
            try:
                names = {path.name for path in folder.iterdir()}
            except (OSError, ValueError):
                names = set()
            counts = Counter(map(_loose, names))
            self._listings[folder] = names, {_loose(name): name for name in names if counts[_loose(name)] == 1}
        return self._listings[folder]


def _loose(name: str) -> str:
    """Return a file name without differences in case, space and Unicode form."""
    stem, dot, suffix = unicodedata.normalize("NFC", name.strip()).casefold().rpartition(".")
    return f"{stem.strip()}{dot}{suffix}"
