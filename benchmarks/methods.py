"""Every method on real audio, each score beside that of plain scikit-learn and numpy on the exported arrays.

    python benchmarks/methods.py --data DATA --whisper FOLDER [--context trimmed] [--output FILE]

DATA has `esc10/manifest.csv` (label, fold), `fsdd/manifest.csv` (digit, speaker, split) and `philharmonia/manifest.csv`
(instrument, note, split); FOLDER is a Whisper checkpoint. Each model encodes each clip once; embeddings and results go
to `--scratch`, where a second run finds them. Prints Markdown: scores with their 95 % intervals, and how far each is
from its reference. Exits with 1 if one is further away than its reference allows.

The references share no code with uwbench. Those of methods with draws (k-means, labelled clips) and of the MLP, which
scikit-learn trains in another way, draw and train for themselves, so that they differ by chance.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, roc_curve, v_measure_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

import uwbench
from machine import print_machine
from uwbench.api import METHODS, Dataset
from uwbench.results.record import Result, Score

TASKS = {
    "esc10": ("esc10", "label", "sound"),
    "fsdd_digit": ("fsdd", "digit", "speech"),
    "fsdd_speaker": ("fsdd", "speaker", "speech"),
    "philharmonia_instrument": ("philharmonia", "instrument", "music"),
    "philharmonia_note": ("philharmonia", "note", "music"),
}


Figures = Mapping[str, float | np.floating]
Classifier = Callable[[np.ndarray], np.ndarray]  # vectors -> class numbers


@dataclass(frozen=True, slots=True)
class Arrays:
    """A task as plain arrays: vectors `(n, dim)`, class numbers `(n,)`, and the (train, test) rows of each fold."""

    vectors: np.ndarray
    codes: np.ndarray
    folds: dict[str, tuple[np.ndarray, np.ndarray]]

    @property
    def tested(self) -> np.ndarray:
        return np.concatenate([test for _, test in self.folds.values()])


@dataclass(frozen=True, slots=True)
class Reference:
    """A method's reference: its figures by name (`score` is the main one), and the largest difference allowed."""

    figures: Callable[[Arrays, Score], Figures]
    by: str
    allowed: float


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure of one method on one task under one model, beside its reference."""

    task: str
    model: str
    method: str
    figure: str
    ours: float
    reference: float

    @property
    def difference(self) -> float:
        return self.ours - self.reference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--whisper", type=Path, required=True)
    parser.add_argument("--context", choices=["full", "trimmed"], default="full", help="Whisper's; trimmed is faster")
    parser.add_argument("--scratch", type=Path, default=Path("build/methods"))
    parser.add_argument("--task", action="append", choices=sorted(TASKS))
    parser.add_argument("--method", action="append", choices=sorted(METHODS))
    parser.add_argument("--output", type=Path, help="also write the tables to this file")
    options = parser.parse_args()
    print_machine("uwbench", "torch", "faiss-cpu", "scikit-learn", "numpy")
    warnings.simplefilter("ignore", ConvergenceWarning)
    models = [uwbench.ModelSpec(str(options.whisper), context=options.context), "logmel", "mfcc"]
    tasks = [load(name, options.data) for name in options.task or TASKS]
    folders = {"cache": options.scratch / "cache", "results": options.scratch / "results"}
    scored = uwbench.evaluate(models, tasks, methods=options.method or "all", **folders)
    results = [result for _, result in scored.results if result.scores]
    for line in (*scored.failures, *scored.notes):
        print(line, file=sys.stderr)
    compared = []
    for result in results:
        arrays = arrays_of(result, folders["cache"])
        compared += [line for m in result.scores if m in REFERENCES for line in compare(result, m, arrays)]
    text = "\n".join([*score_table(results, compared), "", *difference_table(compared)]) + "\n"
    print(text)
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")
    too_far = [line for line in compared if abs(line.difference) > REFERENCES[line.method].allowed]
    for line in too_far:
        print(f"too far: {line}", file=sys.stderr)
    sys.exit(bool(scored.failures or too_far))


def load(name: str, data: Path) -> Dataset:
    """Return a task without the clips whose class has no training clip: uwbench would refuse to score them."""
    folder, label, domain = TASKS[name]
    table = pd.read_csv(data / folder / "manifest.csv", dtype=str)
    if "split" in table:
        trained = table[label].isin(table[label][table["split"] == "train"])
        if not trained.all():
            print(f"{name}: without {(~trained).sum()} clips of classes that no training clip has", file=sys.stderr)
        table = table[trained]
    table["path"] = [str(data.resolve() / folder / path) for path in table["path"]]
    return uwbench.load_task(table, label=label, name=name, domain=domain)


def arrays_of(result: Result, cache: Path) -> Arrays:
    """Return the last layer's vectors of a result's task, with labels and folds, as `load_embeddings` exports them."""
    exported = uwbench.load_embeddings(result.model.fingerprint, result.task.name, cache=cache)
    codes = np.unique(np.array(exported.labels), return_inverse=True)[1]
    if exported.folds[0] is not None:
        parts = np.array(exported.folds)
        folds = {name: (np.flatnonzero(parts != name), np.flatnonzero(parts == name)) for name in np.unique(parts)}
    else:
        parts = np.array(exported.splits)
        folds = {"": (np.flatnonzero(parts == "train"), np.flatnonzero(parts == "test"))}
    return Arrays(exported.vectors[:, -1].astype(np.float64), codes, folds)


def compare(result: Result, method: str, arrays: Arrays) -> Iterator[Compared]:
    if method not in REFERENCES:
        return
    score = result.scores[method]
    ours = {"score": score.main_score, **score.raw}
    for name, value in REFERENCES[method].figures(arrays, score).items():
        yield Compared(result.task.name, result.model.name, method, name, ours[name], float(value))


def mlp(arrays: Arrays, score: Score) -> Figures:
    """The chosen network, trained by scikit-learn's Adam: without dropout, normalisation or a schedule."""

    def fitted(fold: str, seed: int) -> Classifier:
        chosen = next(part for part in score.chosen["folds"] if part.get("fold", "") == fold)
        options: dict[str, Any] = {
            "learning_rate_init": min(chosen["learning_rate"], 0.003),  # the chosen one falls during training
            "batch_size": 64,
            "max_iter": chosen["epochs"][seed],
            "random_state": seed,
        }
        network = MLPClassifier((chosen["width"],) if chosen["width"] else (), **options)
        train, _ = arrays.folds[fold]
        return make_pipeline(StandardScaler(), network).fit(arrays.vectors[train], arrays.codes[train]).predict

    return {"score": np.mean([accuracy(arrays, lambda fold, s=s: fitted(fold, s)) for s in range(len(score.per_seed))])}


def knn(arrays: Arrays, score: Score) -> Figures:
    def fitted(fold: str) -> Classifier:
        weights: Any = lambda distances: np.exp((1 - distances) / 0.07)  # noqa: E731
        voters = KNeighborsClassifier(score.chosen["k"], metric="cosine", algorithm="brute", weights=weights)
        train, _ = arrays.folds[fold]
        return voters.fit(arrays.vectors[train], arrays.codes[train]).predict

    return {"score": accuracy(arrays, fitted)}


def linear(arrays: Arrays, score: Score) -> Figures:
    strengths = {part.get("fold", ""): part["strength"] for part in score.chosen["folds"]}
    return {
        "score": accuracy(
            arrays, lambda fold: regression(arrays, arrays.folds[fold][0], strengths[fold], max_iter=2000)
        )
    }


def few_shot(arrays: Arrays, score: Score) -> Figures:
    """The curve of nested draws of labels that are drawn here anew, and its area by `numpy.trapezoid`."""
    assert score.curve is not None
    assert score.settings is not None
    rng, strength = np.random.default_rng(0), float(score.settings["strength"])
    last = accuracy(arrays, lambda fold: regression(arrays, arrays.folds[fold][0], strength))
    orders = [
        {fold: shuffled_classes(arrays.codes, train, rng) for fold, (train, _) in arrays.folds.items()}
        for _ in range(score.settings["draws"])
    ]

    def at(order: Mapping[str, Sequence[np.ndarray]], shots: int) -> float:
        def fitted(fold: str) -> Classifier:
            labelled = np.concatenate([rows[:shots] for rows in order[fold]])
            return regression(arrays, labelled, strength, scaled_by=arrays.folds[fold][0])

        return accuracy(arrays, fitted)

    points = [np.mean([at(order, point.shots) for order in orders]) for point in score.curve if point.shots is not None]
    places = np.log2(np.array([point.clips for point in score.curve]))
    area = np.trapezoid(np.array([*points, last]), places) / (places[-1] - places[0])
    return {"score": area, "one label per class": points[0], "all labels": last}


def clustering(arrays: Arrays, _score: Score) -> Figures:
    vectors, codes = unit_length(arrays.vectors[arrays.tested]), arrays.codes[arrays.tested]
    count = len(np.unique(codes))
    once: dict[str, Any] = {"n_init": 1}
    labellings = [KMeans(count, random_state=seed, **once).fit(vectors).labels_ for seed in range(20)]
    measures = {
        "score": v_measure_score,
        "nmi": normalized_mutual_info_score,
        "ari": adjusted_rand_score,
    }
    return {name: np.mean([measure(codes, labels) for labels in labellings]) for name, measure in measures.items()}


def verification(arrays: Arrays, _score: Score) -> Figures:
    """All pairs of a fold's test clips; the rates of error between two thresholds are taken to be straight."""
    similarity, target = [], []
    for _, test in arrays.folds.values():
        unit = unit_length(arrays.vectors[test])
        first, second = np.triu_indices(len(test), 1)
        similarity.append((unit @ unit.T)[first, second])
        target.append(arrays.codes[test][first] == arrays.codes[test][second])
    accepted, hit, _ = roc_curve(np.concatenate(target), np.concatenate(similarity), drop_intermediate=False)
    gap = (1 - hit) - accepted
    at = int((gap <= 0).argmax())
    share = gap[at - 1] / (gap[at - 1] - gap[at])
    rate = accepted[at - 1] + share * (accepted[at] - accepted[at - 1])
    return {"score": 1 - rate, "min-dcf": (0.05 * (1 - hit) + 0.95 * accepted).min() / 0.05}


def clip_retrieval(arrays: Arrays, _score: Score) -> Figures:
    precisions, first = [], []
    for _, test in arrays.folds.values():
        unit, codes = unit_length(arrays.vectors[test]), arrays.codes[test]
        similarity = unit @ unit.T
        np.fill_diagonal(similarity, -np.inf)
        for query, order in enumerate(np.argsort(-similarity, axis=1)[:, :-1]):
            relevant = codes[order] == codes[query]
            if relevant.any():
                places = np.flatnonzero(relevant)
                precisions.append(np.mean(np.arange(1, len(places) + 1) / (places + 1)))
                first.append(relevant[0])
    return {"score": np.mean(precisions), "p@1": np.mean(first)}


def geometry(arrays: Arrays, _score: Score) -> Figures:
    vectors = arrays.vectors[arrays.tested]
    centred = vectors - vectors.mean(axis=0)
    rank = entropy_rank(centred)
    return {
        "score": rank / min(len(vectors) - 1, vectors.shape[1]),
        "effective rank": rank,
        "rankme": entropy_rank(vectors),
    }


def unit_length(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(normalize(vectors))


def entropy_rank(matrix: np.ndarray) -> float:
    """exp of the entropy of the singular values' shares."""
    values = np.linalg.svd(matrix, compute_uv=False)
    shares = values[values > 1e-12 * values.sum()] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def accuracy(arrays: Arrays, fitted: Callable[[str], Classifier]) -> float:
    """Return the accuracy over the test clips of all folds; `fitted` returns a fold's classifier."""
    right = [fitted(fold)(arrays.vectors[test]) == arrays.codes[test] for fold, (_, test) in arrays.folds.items()]
    return float(np.concatenate(right).mean())


def regression(
    arrays: Arrays, rows: np.ndarray, strength: float, *, scaled_by: np.ndarray | None = None, max_iter: int = 500
) -> Classifier:
    """Fit logistic regression on some rows, standardised by them or by others."""
    scaler = StandardScaler().fit(arrays.vectors[rows if scaled_by is None else scaled_by])
    model = LogisticRegression(C=strength, max_iter=max_iter)
    model.fit(scaler.transform(arrays.vectors[rows]), arrays.codes[rows])
    return lambda vectors: np.asarray(model.predict(scaler.transform(vectors)))


def shuffled_classes(codes: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Return the rows of each class in random order."""
    return [rng.permutation(rows[codes[rows] == code]) for code in np.unique(codes[rows])]


REFERENCES = {
    "mlp": Reference(mlp, "MLPClassifier of the chosen width", 0.12),
    "knn": Reference(knn, "KNeighborsClassifier", 0.005),
    "linear": Reference(linear, "LogisticRegression of the chosen C", 0.01),
    "few-shot": Reference(few_shot, "LogisticRegression on other draws of labels", 0.06),
    "clustering": Reference(clustering, "KMeans from 20 other starts", 0.06),
    "verification": Reference(verification, "roc_curve over all pairs", 1e-4),
    "clip-retrieval": Reference(clip_retrieval, "argsort of cosines", 0.003),
    "geometry": Reference(geometry, "SVD", 1e-4),
}


def score_table(results: Sequence[Result], compared: Sequence[Compared]) -> list[str]:
    """Return a Markdown row per task and method: each model's score, its interval, and its reference."""
    models = list(dict.fromkeys(result.model.name for result in results))
    references = {(c.task, c.model, c.method): c for c in compared if c.figure == "score"}
    lines = [
        f"| task | method | {' | '.join(f'{model} (95 %) | reference' for model in models)} |",
        f"| --- | --- |{' --- | ---: |' * len(models)}",
    ]
    by_task: dict[str, dict[str, Result]] = {}
    for result in results:
        by_task.setdefault(result.task.name, {})[result.model.name] = result
    for task, of_task in by_task.items():
        for method in METHODS:
            cells = []
            for model in models:
                score = of_task[model].scores.get(method) if model in of_task else None
                reference = references.get((task, model, method))
                cells += [score_text(score), "" if reference is None else f"{reference.reference:.3f}"]
            if any(cells):
                lines.append(f"| {task} | {method} | {' | '.join(cells)} |")
    return lines


def score_text(score: Score | None) -> str:
    if score is None:
        return ""
    assert score.ci95 is not None
    return f"{score.main_score:.3f} ({score.ci95[0]:.3f}–{score.ci95[1]:.3f})"


def difference_table(compared: Sequence[Compared]) -> list[str]:
    """Return a Markdown row per method and figure: the mean and the largest difference to the reference."""
    lines = [
        "| method | figure | reference | mean difference | largest | on |",
        "| --- | --- | --- | ---: | ---: | --- |",
    ]
    for method, figure in dict.fromkeys((line.method, line.figure) for line in compared):
        some = [line for line in compared if (line.method, line.figure) == (method, figure)]
        worst = max(some, key=lambda line: abs(line.difference))
        mean = np.mean([line.difference for line in some])
        lines.append(
            f"| {method} | {figure} | {REFERENCES[method].by} | {mean:+.4f} | {worst.difference:+.4f} "
            f"| {worst.task}, {worst.model} |"
        )
    return lines


if __name__ == "__main__":
    main()
