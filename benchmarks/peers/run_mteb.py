"""One mteb task on local clips, run in mteb's own environment: `run_mteb.py MODEL CLIPS.csv LABEL NAME PROBE CACHE`.

mteb's own Whisper wrapper, task class, evaluator and embedding cache do the work. Clips are read by soundfile, because
`datasets` decodes audio by torchcodec, which needs FFmpeg's libraries.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import mteb
import soundfile
from datasets import ClassLabel, Dataset, DatasetDict
from mteb.abstasks.classification import AbsTaskClassification
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.cache_wrappers import CachedEmbeddingWrapper
from mteb.models.model_implementations.whisper_models import WhisperAudioWrapper
from mteb.models.model_meta import ModelMeta
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

PROBES = {"logistic": LogisticRegression(max_iter=100), "knn": KNeighborsClassifier(10)}


def main() -> None:
    """Evaluate one task and print its score as JSON."""
    model_folder, table, label, name, probe, cache = sys.argv[1:]
    with Path(table).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    folds = "fold" in rows[0]
    task = task_class(name, rows, Path(table).parent, label, folds=folds)()
    task.evaluator_model = PROBES[probe]
    model: Any = WhisperAudioWrapper(model_folder, revision=None)
    model.mteb_model_meta = ModelMeta.create_empty(
        {"name": "local/whisper", "revision": "local", "modalities": ["audio"]}
    )
    cached = CachedEmbeddingWrapper(model, cache)
    settings = {"batch_size": 16}
    result = mteb.evaluate(cached, [task], cache=None, show_progress_bar=False, encode_kwargs=settings)
    (split_scores,) = result.task_results[0].scores.values()
    print(json.dumps({"score": split_scores[0]["main_score"]}))


def task_class(name: str, rows: list[dict[str, str]], root: Path, label: str, *, folds: bool) -> type:
    """Return the task class of the clips: cross-validated if they have folds, else by the splits train and test."""
    metadata = TaskMetadata(
        name=name,
        description="Clips on disk.",
        dataset={"path": "local/clips", "revision": "local"},
        type="AudioClassification",
        category="a2c",
        eval_splits=["train" if folds else "test"],
        eval_langs=["zxx-Zxxx"],
        main_score="accuracy",
        modalities=["audio"],
    )

    class Task(AbsTaskClassification):
        input_column_name = "audio"
        label_column_name = "label"
        is_cross_validation = folds

        def load_data(self, **_: object) -> None:
            """Read the clips into memory, as `datasets` returns decoded audio."""
            names = sorted({row[label] for row in rows})
            parts = {}
            for part in ("train",) if folds else ("train", "test"):
                chosen = rows if folds else [row for row in rows if row["split"] == part]
                audio = [read(root / row["path"]) for row in chosen]
                labels = [names.index(row[label]) for row in chosen]
                dataset = Dataset.from_dict({"audio": audio, "label": labels})
                parts[part] = dataset.cast_column("label", ClassLabel(names=names)).with_format("numpy")
            self.dataset = DatasetDict(parts)
            self.data_loaded = True

    Task.metadata = metadata
    return Task


def read(path: Path) -> dict[str, Any]:
    """Return a clip as `datasets` decodes one."""
    samples, rate = soundfile.read(path, dtype="float32")
    return {"array": samples, "sampling_rate": rate}


if __name__ == "__main__":
    main()
