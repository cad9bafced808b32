"""Every method on real audio, each score beside that of plain scikit-learn and numpy on the exported arrays.

    python benchmarks/methods.py --data DATA --whisper FOLDER [--context trimmed] [--output FILE]

DATA has `esc10/manifest.csv` (label, fold), `fsdd/manifest.csv` (digit, speaker, split) and `philharmonia/manifest.csv`
(instrument, note, split); FOLDER is a Whisper checkpoint. Each model encodes each clip once; embeddings and results go
to `--scratch`, where a second run finds them. Prints Markdown: scores with their 95 % intervals, and how far each is
from its reference. Exits with 1 if one is further away than its reference allows.

The references share no code with uwbench. Those of methods with draws (k-means, labelled clips, probes that torch
trains) draw and train for themselves, so that they differ by chance. No model of the three embeds texts, so zero-shot
has one of its own: MFCC whose texts lie near the clips of the class that they name.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, roc_curve, v_measure_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler, normalize
from torch import nn

import uwbench
from machine import print_machine
from uwbench.api import METHODS, Dataset
from uwbench.encoders.stats import SpectralEncoder
from uwbench.results.record import Result, Score

_CARD_FILE = Path(__file__).resolve().parents[1] / "tasks/protocols/uwbench-1.yaml"
CARD = yaml.safe_load(_CARD_FILE.read_text(encoding="utf-8"))
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
    """A task as plain arrays: vectors `(n, dim)`, class numbers `(n,)`, and the (train, test) rows of each fold.

    `names` has the classes by number; `segments` `(n, 15, dim)` is empty unless `attentive` was scored.
    """

    vectors: np.ndarray
    codes: np.ndarray
    folds: dict[str, tuple[np.ndarray, np.ndarray]]
    names: tuple[str, ...]
    domain: str
    segments: np.ndarray
    texts: Callable[[Sequence[str]], np.ndarray]

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


class NamedCepstra(SpectralEncoder):
    """MFCC with texts: one lies near the mean of the clips of the class that it names, off by noise of its own."""

    def __init__(self, centres: Mapping[str, np.ndarray]) -> None:
        super().__init__("mfcc-with-texts", 60, cepstra=True)
        self.centres = dict(centres)

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        return np.stack([self._vector(text) for text in texts])

    def _vector(self, text: str) -> np.ndarray:
        name = max((name for name in self.centres if re.search(rf"\b{re.escape(name)}\b", text)), key=len)
        apart = np.std(list(self.centres.values()), axis=0)
        noise = np.random.default_rng(list(text.encode())).normal(size=self.info.dim)
        return (self.centres[name] + 0.3 * apart * noise).astype(np.float32)


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
    methods = options.method or list(METHODS)
    runs = []
    if further := [method for method in methods if method != "zero-shot"]:
        runs.append(uwbench.evaluate(models, tasks, methods=further, **folders))
    texts = NamedCepstra({}).encode_text
    if "zero-shot" in methods:
        uwbench.extract(["mfcc"], tasks, cache=folders["cache"])
        named = NamedCepstra(centres(tasks, folders["cache"]))
        runs.append(uwbench.evaluate([named], tasks, methods=["zero-shot"], **folders))
        texts = named.encode_text
    failures = [line for run in runs for line in run.failures]
    for line in (*failures, *(note for run in runs for note in run.notes)):
        print(line, file=sys.stderr)
    tables, compared = [], []
    for run in runs:
        results = [result for _, result in run.results if result.scores]
        for result in results:
            arrays = arrays_of(result, folders["cache"], texts)
            compared += [line for m in result.scores for line in compare(result, m, arrays)]
        tables += [*score_table(results, compared), ""]
    text = "\n".join([*tables, *difference_table(compared)]) + "\n"
    print(text)
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")
    too_far = [line for line in compared if abs(line.difference) > REFERENCES[line.method].allowed]
    for line in too_far:
        print(f"too far: {line}", file=sys.stderr)
    sys.exit(bool(failures or too_far))


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


def centres(tasks: Sequence[Dataset], cache: Path) -> dict[str, np.ndarray]:
    """Return the mean MFCC of each class of the tasks, by its name in words."""
    means = {}
    for task in tasks:
        exported = uwbench.load_embeddings("mfcc", task, cache=cache)
        labels = np.array(exported.labels)
        for label in np.unique(labels):
            means[str(label).replace("_", " ")] = exported.vectors[labels == label, -1].mean(axis=0)
    return means


def arrays_of(result: Result, cache: Path, texts: Callable[[Sequence[str]], np.ndarray]) -> Arrays:
    """Return the last layer's vectors of a result's task, with labels and folds, as `load_embeddings` exports them."""
    model, task = result.model.fingerprint, result.task.name
    exported = uwbench.load_embeddings(model, task, cache=cache)
    names, codes = np.unique(np.array(exported.labels), return_inverse=True)
    if exported.folds[0] is not None:
        parts = np.array(exported.folds)
        folds = {name: (np.flatnonzero(parts != name), np.flatnonzero(parts == name)) for name in np.unique(parts)}
    else:
        parts = np.array(exported.splits)
        folds = {"": (np.flatnonzero(parts == "train"), np.flatnonzero(parts == "test"))}
    segments = np.zeros(0)
    if "attentive" in result.scores:
        segments = uwbench.load_embeddings(model, task, pooling="segments", cache=cache).vectors[:, -1]
    vectors = exported.vectors[:, -1].astype(np.float64)
    return Arrays(vectors, codes, folds, tuple(names.tolist()), result.task.domain, segments, texts)


def compare(result: Result, method: str, arrays: Arrays) -> Iterator[Compared]:
    if method not in REFERENCES:
        return
    score = result.scores[method]
    ours = {"score": score.main_score, **score.raw}
    for name, value in REFERENCES[method].figures(arrays, score).items():
        yield Compared(result.task.name, result.model.name, method, name, ours[name], float(value))


def mlp(arrays: Arrays, score: Score) -> Figures:
    def network(width: int) -> nn.Module:
        dim, classes = arrays.vectors.shape[1], len(arrays.names)
        if width == 0:
            return nn.Linear(dim, classes)
        norm, dropout = nn.LayerNorm(width, elementwise_affine=False), nn.Dropout(CARD["mlp"]["dropout"])
        return nn.Sequential(nn.Linear(dim, width), norm, nn.ReLU(), dropout, nn.Linear(width, classes))

    return {"score": trained_accuracy(arrays, score, arrays.vectors, network, CARD["mlp"]["batch"])}


class GatedAttention(nn.Module):
    """Gated attention over the vectors of a clip (Ilse, Tomczak and Welling 2018), a term per place, a linear head."""

    def __init__(self, places: int, dim: int, units: int, classes: int) -> None:
        super().__init__()
        self.values, self.gates = nn.Linear(dim, units), nn.Linear(dim, units)
        self.query = nn.Linear(units, 1, bias=False)
        self.places = nn.Parameter(torch.zeros(places))
        self.head = nn.Linear(dim, classes)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        scores = self.query(torch.tanh(self.values(vectors)) * torch.sigmoid(self.gates(vectors)))[..., 0]
        shares = torch.softmax(scores + self.places, dim=1)
        return self.head((shares[..., None] * vectors).sum(dim=1))


def attentive(arrays: Arrays, score: Score) -> Figures:
    _, places, dim = arrays.segments.shape

    def network(_width: int) -> nn.Module:
        return GatedAttention(places, dim, CARD["methods"]["attentive"]["units"], len(arrays.names))

    return {"score": trained_accuracy(arrays, score, arrays.segments, network, CARD["methods"]["attentive"]["batch"])}


def trained_accuracy(
    arrays: Arrays, score: Score, inputs: np.ndarray, network: Callable[[int], nn.Module], batch: int
) -> float:
    """Return the accuracy of networks that torch trains by the protocol's rules from random numbers of its own.

    Width, rate, decay and epochs are the chosen ones; the mean over as many seeds as the score has.
    """

    def fitted(fold: str, seed: int) -> Classifier:
        train, _ = arrays.folds[fold]
        chosen = next(part for part in score.chosen["folds"] if part.get("fold", "") == fold)
        assert chosen["trained_on"] == len(train)
        scaler = StandardScaler().fit(inputs[train].reshape(-1, inputs.shape[-1]))

        def scaled(vectors: np.ndarray) -> torch.Tensor:
            flat = np.asarray(scaler.transform(vectors.reshape(-1, vectors.shape[-1])))
            return torch.from_numpy(flat.reshape(vectors.shape).astype(np.float32))

        torch.manual_seed(seed)
        model = network(chosen["width"])
        train_network(model, scaled(inputs[train]), torch.from_numpy(arrays.codes[train]), chosen, seed, batch)

        def classify(vectors: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return model(scaled(vectors)).argmax(dim=1).numpy()

        return classify

    seeds = range(len(score.per_seed))
    return float(np.mean([accuracy(arrays, lambda fold, s=s: fitted(fold, s), inputs) for s in seeds]))


def train_network(
    model: nn.Module, vectors: torch.Tensor, codes: torch.Tensor, chosen: Mapping[str, Any], seed: int, batch: int
) -> None:
    """Train the chosen number of epochs: AdamW, and a cosine over the protocol's epochs from the chosen rate down."""
    epochs, final = CARD["mlp"]["epochs"], CARD["mlp"]["final_rate"]
    optimiser = torch.optim.AdamW(model.parameters(), chosen["learning_rate"], weight_decay=chosen["weight_decay"])
    steps = epochs * math.ceil(len(codes) / batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: final + (1 - final) * (1 + math.cos(math.pi * step / steps)) / 2
    )
    for _ in range(chosen["epochs"][seed]):
        for rows in torch.randperm(len(codes)).split(batch):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(vectors[rows]), codes[rows]).backward()
            optimiser.step()
            schedule.step()
    model.eval()


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


def zero_shot(arrays: Arrays, score: Score) -> Figures:
    """The class of the nearest text, for each template on the protocol's card."""
    clips, right = unit_length(arrays.vectors), {}
    for template in CARD["methods"]["zero-shot"]["templates"][arrays.domain]:
        texts = [template.replace("{}", name.replace("_", " ")) for name in arrays.names]
        cosines = clips @ unit_length(arrays.texts(texts)).T
        right[template] = cosines.round(6).argmax(axis=1) == arrays.codes
    of_templates = [of_clips[arrays.tested].mean() for of_clips in right.values()]
    chosen = {part.get("fold", ""): part["template"] for part in score.chosen["folds"]}
    return {
        "score": np.concatenate([right[chosen[fold]][test] for fold, (_, test) in arrays.folds.items()]).mean(),
        "median of templates": np.median(of_templates),
        "lowest template": np.min(of_templates),
        "highest template": np.max(of_templates),
    }


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


def accuracy(arrays: Arrays, fitted: Callable[[str], Classifier], inputs: np.ndarray | None = None) -> float:
    """Return the accuracy over the test clips of all folds; `fitted` returns a fold's classifier."""
    vectors = arrays.vectors if inputs is None else inputs
    right = [fitted(fold)(vectors[test]) == arrays.codes[test] for fold, (_, test) in arrays.folds.items()]
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
    "mlp": Reference(mlp, "torch.nn, other seeds", 0.03),
    "knn": Reference(knn, "KNeighborsClassifier", 0.005),
    "linear": Reference(linear, "LogisticRegression of the chosen C", 0.01),
    "attentive": Reference(attentive, "torch.nn, other seeds", 0.03),
    "few-shot": Reference(few_shot, "LogisticRegression on other draws of labels", 0.06),
    "clustering": Reference(clustering, "KMeans from 20 other starts", 0.06),
    "verification": Reference(verification, "roc_curve over all pairs", 1e-4),
    "clip-retrieval": Reference(clip_retrieval, "argsort of cosines", 0.003),
    "zero-shot": Reference(zero_shot, "argmax of cosines", 0.003),
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
