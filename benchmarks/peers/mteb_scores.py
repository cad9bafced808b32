"""mteb's own scores of given vectors, run in mteb's environment: `mteb_scores.py FOLDER SEEDS`.

FOLDER has one `NAME.npz` per model and task (see `parity_mteb.py`); `NAME.json` with mteb's scores is put beside each.
The task classes of mteb draw, train, cluster and rank; only the encoder is replaced, by one that looks vectors up: the
audio of clip i is the one sample i.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, disable_progress_bars
from mteb.abstasks import AbsTaskMultilabelClassification, AbsTaskPairClassification, AbsTaskRetrieval
from mteb.abstasks.classification import AbsTaskClassification
from mteb.abstasks.clustering import AbsTaskClustering
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.model_meta import ModelMeta
from sklearn.linear_model import LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

RATE = 16_000
SETTINGS: Any = {"batch_size": 512}
Scores = dict[str, Any]


class Vectors:
    """An encoder, as mteb asks for one, whose embeddings are the rows of a matrix."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows
        self.mteb_model_meta = ModelMeta.create_empty(
            {"name": "local/vectors", "revision": "local", "modalities": ["audio"]}
        )

    def encode(self, inputs: Any, **_: object) -> np.ndarray:
        """Return the vectors of a data loader's clips."""
        places = [int(np.asarray(audio["array"])[0]) for batch in inputs for audio in batch["audio"]]
        return self.rows[places]

    def similarity(self, one: Any, two: Any) -> Any:
        """Return the cosine of each vector of `one` with each of `two`."""
        from mteb.similarity_functions import cos_sim

        return cos_sim(one, two)

    def similarity_pairwise(self, one: Any, two: Any) -> Any:
        """Return the cosine of each vector of `one` with that of `two` at its place."""
        from mteb.similarity_functions import pairwise_cos_sim

        return pairwise_cos_sim(one, two)


def main() -> None:
    """Score every file in the folder that has no scores yet."""
    folder, seeds = Path(sys.argv[1]), [int(seed) for seed in sys.argv[2].split(",")]
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    disable_progress_bars()
    for path in sorted(folder.glob("*.npz")):
        target = path.with_suffix(".json")
        if not target.exists():
            with np.load(path) as data:
                target.write_text(json.dumps(scores_of(dict(data), seeds)), encoding="utf-8")
            print(f"  mteb: {path.stem}", file=sys.stderr, flush=True)


def scores_of(data: dict[str, np.ndarray], seeds: list[int]) -> Scores:
    """Return mteb's scores by the rules of maeb-2, and those that our own methods are held against."""
    model = Vectors(data["vectors"])
    if data["labels"].ndim == 2:
        return {"mteb-multilabel": {seed: multilabel(model, data, seed) for seed in seeds}}
    unit = Vectors(data["vectors"] / np.linalg.norm(data["vectors"], axis=1, keepdims=True))
    plain = LogisticRegression(max_iter=100)
    strong = make_pipeline(StandardScaler(), LogisticRegression(C=float(data["strength"]), max_iter=500))
    few, every = 8, len(data["labels"])
    return {
        "mteb-classification": {seed: classification(model, data, seed, plain, few) for seed in seeds},
        "mteb-clustering": {seed: clustering(model, data, seed) for seed in seeds},
        "mteb-pairs": {seed: pairs(model, data, "pairs", seed) for seed in seeds[:1]},
        "linear": {seed: classification(model, data, seed, strong, every) for seed in seeds},
        "clustering": {seed: clustering(unit, data, seed) for seed in seeds},
        "verification": {seed: pairs(model, data, "own_pairs", seed) for seed in seeds[:1]},
        "clip-retrieval": {seed: retrieval(model, data, seed) for seed in seeds[:1]},
    }


def classification(model: Vectors, data: dict[str, np.ndarray], seed: int, classifier: Any, per_label: int) -> Scores:
    """Return accuracy and its experiments: cross-validated if the clips have folds."""

    class Task(AbsTaskClassification):
        metadata = metadata("AudioClassification", "accuracy", folds="folds" in data)
        input_column_name, label_column_name = "audio", "label"
        is_cross_validation, samples_per_label, evaluator_model = "folds" in data, per_label, classifier

    scores = run(Task(seed=seed), parts_of(data), model, "train" if "folds" in data else "test")
    return {
        "score": scores["accuracy"],
        "experiments": [of_draw["accuracy"] for of_draw in scores["scores_per_experiment"]],
    }


def multilabel(model: Vectors, data: dict[str, np.ndarray], seed: int) -> Scores:
    """Return the label ranking average precision and its experiments."""

    class Task(AbsTaskMultilabelClassification):
        metadata = metadata("AudioMultilabelClassification", "lrap", folds=False)
        input_column_name, label_column_name = "audio", "label"
        evaluator_model = MultiOutputClassifier(estimator=LogisticRegression())

    scores = run(Task(seed=seed), parts_of(data), model, "test")
    return {"score": scores["lrap"], "experiments": [of_draw["lrap"] for of_draw in scores["scores_per_experiment"]]}


def clustering(model: Vectors, data: dict[str, np.ndarray], seed: int) -> Scores:
    """Return the V-measure of the test clips, or of all clips in folds, and its experiments."""

    class Task(AbsTaskClustering):
        metadata = metadata("AudioClustering", "v_measure", folds="folds" in data)
        input_column_name, label_column_name = "audio", "label"
        max_fraction_of_documents_to_embed = None

    split = "train" if "folds" in data else "test"
    scores = run(Task(seed=seed), parts_of(data), model, split)
    return {"score": scores["v_measure"], "experiments": scores["v_measures"]["Level 0"]}


def pairs(model: Vectors, data: dict[str, np.ndarray], name: str, seed: int) -> Scores:
    """Return the best average precision over similarities, that of the cosine, and the best accuracy."""

    class Task(AbsTaskPairClassification):
        metadata = metadata("AudioPairClassification", "max_ap", folds=False)
        input1_column_name, input2_column_name, label_column_name = "audio1", "audio2", "label"

    first, second, target = data[name].T
    columns = {"audio1": audio(first), "audio2": audio(second), "label": target.tolist()}
    dataset = DatasetDict({"test": Dataset.from_dict(columns).with_format("numpy")})
    scores = run(Task(seed=seed), dataset, model, "test")
    return {"score": scores["max_ap"], "cosine": scores["cosine_ap"], "accuracy": scores["max_accuracy"]}


def retrieval(model: Vectors, data: dict[str, np.ndarray], seed: int) -> Scores:
    """Return the mean average precision of test clips that search each other, fold by fold."""

    class Task(AbsTaskRetrieval):
        metadata = metadata("Any2AnyRetrieval", "map_at_1000", folds=False, category="a2a")
        ignore_identical_ids = True
        k_values = (1, 10, 100, 1000)

    total = queries = 0.0
    for clips in folds_of(data):
        labels = data["labels"][clips]
        relevant = {
            str(clip): {str(other): 1 for other in clips[(labels == label) & (clips != clip)]}
            for clip, label in zip(clips, labels, strict=True)
        }
        relevant = {clip: others for clip, others in relevant.items() if others}
        searching = np.array([int(clip) for clip in relevant])
        split = {
            "queries": Dataset.from_dict({"id": list(relevant), "audio": audio(searching)}).with_format("numpy"),
            "corpus": Dataset.from_dict({"id": list(map(str, clips)), "audio": audio(clips)}).with_format("numpy"),
            "relevant_docs": relevant,
            "top_ranked": None,
        }
        scores = run(Task(seed=seed), {"default": {"test": split}}, model, "test")
        total, queries = total + scores["map_at_1000"] * len(relevant), queries + len(relevant)
    return {"score": total / queries}


def run(task: Any, dataset: Any, model: Vectors, split: str) -> Scores:
    """Return what a task's `evaluate` says of vectors, as mteb calls it."""
    task.dataset, task.data_loaded = dataset, True
    (scores,) = task.evaluate(model, split, encode_kwargs=SETTINGS).values()
    return scores


def metadata(kind: Any, score: str, *, folds: bool, category: Any = "a2c") -> TaskMetadata:
    """Return the metadata of a task on vectors at hand."""
    return TaskMetadata(
        name="Vectors",
        description="Vectors at hand.",
        dataset={"path": "local/vectors", "revision": "local"},
        type=kind,
        category=category,
        eval_splits=["train" if folds else "test"],
        eval_langs=["zxx-Zxxx"],
        main_score=score,
        modalities=["audio"],
    )


def parts_of(data: dict[str, np.ndarray]) -> DatasetDict:
    """Return the training and the test part, or all clips as the training part."""
    every = np.arange(len(data["labels"]))
    parts = {"train": every} if "folds" in data else {name: every[data["splits"] == name] for name in ("train", "test")}
    return DatasetDict({name: dataset(clips, data["labels"]) for name, clips in parts.items()})


def dataset(clips: np.ndarray, labels: np.ndarray) -> Dataset:
    """Return clips with their class numbers, one or several each."""
    if labels.ndim == 2:
        return Dataset.from_dict({"audio": audio(clips), "label": [np.flatnonzero(labels[i]).tolist() for i in clips]})
    made = Dataset.from_dict({"audio": audio(clips), "label": labels[clips].tolist()})
    return made.cast_column("label", ClassLabel(num_classes=int(labels.max()) + 1)).with_format("numpy")


def folds_of(data: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Return the test clips of each fold."""
    every = np.arange(len(data["labels"]))
    if "folds" not in data:
        return [every[data["splits"] == "test"]]
    return [every[data["folds"] == name] for name in np.unique(data["folds"])]


def audio(clips: np.ndarray) -> list[dict[str, Any]]:
    """Return the audio by which `Vectors` knows the clips."""
    return [{"array": [float(clip)], "sampling_rate": RATE} for clip in clips]


if __name__ == "__main__":
    main()
