"""Write the golden cache: the embeddings of ESC-10 under Whisper tiny.en, by `uwbench extract` itself.

    python tests/golden/make_esc10.py tests/golden/esc10-whisper-tiny.en

It needs the real audio and the tool that writes Whisper tiny.en (UWBENCH_SHARED, as in conftest.py), and about ten
minutes of one core. Regenerate the cache only when the cache's format, the preprocessing or a pooling changes, and
raise that version too. The scores in test_main_job.py were computed outside this project and must not move.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("UWBENCH_SHARED", ROOT.parent / "shared"))

# ESC-10's names -> ESC-50's class numbers, which X-ARES's tars hold.
NUMBERS = {
    "dog_bark": 0,
    "rooster": 1,
    "rain": 10,
    "sea_waves": 11,
    "fire_crackling": 12,
    "baby_cry": 20,
    "person_sneeze": 21,
    "clock_tick": 38,
    "helicopter": 40,
    "chainsaw": 41,
}


def read_rows(esc10: Path) -> list[dict[str, str]]:
    """Return the rows of ESC-10's manifest: path, label, fold."""
    with (esc10 / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def pack(esc10: Path, rows: Sequence[dict[str, str]], folder: Path) -> None:
    """Pack clips in X-ARES's layout of ESC-50: one tar per fold, one JSON with the class number per clip."""
    folder.mkdir(parents=True)
    for fold in range(1, 6):
        with tarfile.open(folder / f"wds-audio-fold-{fold}-0000000.tar", "w") as tar:
            for row in rows:
                if row["fold"] == str(fold):
                    clip = Path(row["path"]).stem
                    label = json.dumps({"label": NUMBERS[row["label"]]}).encode()
                    for name, data in ((f"{clip}.ogg", (esc10 / row["path"]).read_bytes()), (f"{clip}.json", label)):
                        member = tarfile.TarInfo(name)
                        member.size = len(data)
                        tar.addfile(member, io.BytesIO(data))


def main(output: Path) -> None:
    esc10 = SHARED / "data" / "esc10"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = folder / "whisper-tiny.en"
        subprocess.run([sys.executable, SHARED / "tools" / "make_whisper_tiny_en.py", model], check=True)
        pack(esc10, read_rows(esc10), folder / "data" / "esc50")
        # Relative paths: the clip table holds the folder's name.
        extract = [sys.executable, "-m", "uwbench", "extract", "-m", model, "-t", "esc50"]
        env = {**os.environ, "PYTHONPATH": str(ROOT / "bench")}
        subprocess.run([*extract, "--cache", "cache", "--data", "data"], check=True, env=env, cwd=folder)
        shutil.copytree(folder / "cache", output, ignore=shutil.ignore_patterns(".locks", "*.scan.parquet"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
