"""The public functions of uwbench: what the command line calls, for programs and notebooks.

    import uwbench

    results = uwbench.evaluate(["logmel", "mfcc"], tasks="mini_music")
    scores = results.to_frame()                                     # a pandas DataFrame, one row per score
    embeddings = uwbench.load_embeddings("logmel", "mini_music")    # .vectors has the shape (clips, layers, dim)
    comparison = uwbench.compare("logmel", "mfcc")
    board = uwbench.leaderboard(suite="mini")

`cache`, `data` and `results` name folders everywhere; without them, the environment variables UWBENCH_CACHE,
UWBENCH_DATA and UWBENCH_RESULTS count, then the defaults (see `folders`). Errors are subclasses of `UwbenchError`.
Nothing heavy is imported before a function needs it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from uwbench.audio.corruption import HELP as CORRUPTIONS
from uwbench.audio.corruption import Corruption
from uwbench.base.disk import disk_error
from uwbench.base.sharing import access_problem, describe_access
from uwbench.encoders.base import IMPORTED, Encoded, Encoder, EncoderInfo, ModelSpec
from uwbench.errors import (
    AudioError,
    DataError,
    EncoderError,
    FetchError,
    InputError,
    ProbeError,
    StoreError,
    UsageError,
    UwbenchError,
    counted,
    escaped,
    printable,
)
from uwbench.folders import existing_folders, folders, result_folders, user_folder
from uwbench.inputs import is_frame, name_of_model, names_of_models, open_model, open_models, task_spec, task_specs
from uwbench.methods import BUILTIN_METHODS, HEADLINE, METHODS, in_group
from uwbench.options import (
    CardFormat,
    Contaminated,
    Context,
    Domain,
    Dtype,
    Engine,
    ExtractOptions,
    FetchSource,
    Folders,
    Kind,
    ProbeOptions,
    TaskSpec,
    choice,
    method_of,
    methods_of,
    named_alone,
)
from uwbench.report.fitted import Column, FittedTable

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from uwbench.audio.clip import (
        Audio,
        AudioArray,
        AudioBytes,
        AudioFile,
        AudioMember,
        Clip,
        Event,
        Labels,
        read_bytes,
    )
    from uwbench.audio.corrupt import active_rms, corrupt
    from uwbench.base.console import open_console
    from uwbench.bundles.pack import Bundle
    from uwbench.bundles.verify import Verification
    from uwbench.cache.maintenance import Holding, Pruned
    from uwbench.cache.store import Damage, free_bytes
    from uwbench.cards.card import Card
    from uwbench.cards.protocol import Protocol
    from uwbench.encoders.base import CatalogueEntry
    from uwbench.encoders.conformance import BATCH_TOLERANCE, Conformance
    from uwbench.folders import ResultFolders
    from uwbench.inputs import ModelInput, TaskInput
    from uwbench.pipeline.outcome import Results
    from uwbench.probes.reproduce import Reproduction
    from uwbench.probes.selection_bias import Inflation
    from uwbench.progress import Reporter
    from uwbench.report.compare import Comparison
    from uwbench.report.leaderboard import Leaderboard
    from uwbench.report.listings import TaskRow, describe_model
    from uwbench.report.sensitivity import Sensitivity, sensitivity_view
    from uwbench.results.curves import Crossing
    from uwbench.results.record import Result
    from uwbench.sources.check import CheckReport
    from uwbench.sources.dataset import Dataset
    from uwbench.sources.resolve import is_own_data

# Names offered here whose modules are imported when the name is first used.
_LAZY = {
    **dict.fromkeys(
        ("Audio", "AudioArray", "AudioBytes", "AudioFile", "AudioMember", "Clip", "Event", "Labels", "read_bytes"),
        "uwbench.audio.clip",
    ),
    **dict.fromkeys(("active_rms", "corrupt"), "uwbench.audio.corrupt"),
    "CheckReport": "uwbench.sources.check",
    "Comparison": "uwbench.report.compare",
    "Conformance": "uwbench.encoders.conformance",
    "Dataset": "uwbench.sources.dataset",
    "Leaderboard": "uwbench.report.leaderboard",
    "Reporter": "uwbench.progress",
    "Reproduction": "uwbench.probes.reproduce",
    "Results": "uwbench.pipeline.outcome",
    "describe_model": "uwbench.report.listings",
    "BATCH_TOLERANCE": "uwbench.encoders.conformance",
    "free_bytes": "uwbench.cache.store",
    "sensitivity_view": "uwbench.report.sensitivity",
    "is_own_data": "uwbench.sources.resolve",
    "open_console": "uwbench.base.console",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def evaluate(
    models: ModelInput | Sequence[ModelInput],
    tasks: TaskInput | Sequence[TaskInput] | None = None,
    *,
    suite: str | None = None,
    protocol: str = "uwbench-1",
    methods: str | Iterable[str] = "default",
    data: str | Path | None = None,
    cache: str | Path | None = None,
    results: str | Path | None = None,
    device: str = "auto",
    extract: ExtractOptions = ExtractOptions(),
    probe: ProbeOptions = ProbeOptions(),
    progress: bool | Reporter | None = None,
) -> Results:
    """Score models on tasks: extract the embeddings that the cache lacks, train probes, write the results.

    Embeddings in the cache are not computed again. What fails for one task under one model is in `failures` of the
    results, and the rest goes on.

    Args:
        models: One or several: a name (`uwbench models`), a Hugging Face id, a folder, `hear:MODULE`, `FILE.py:Class`,
            ready vectors (a .parquet or .npz file, a folder of .npy), a `ModelSpec`, or an encoder object or class,
            which is known by its source and state.
        tasks: One or several: the name of a card, a card file, a manifest, a folder with one sub-folder per class, a
            `TaskSpec`, a `Dataset`, or a DataFrame (see `load_task`). None: every task of `suite` whose data is here.
        suite: The suite whose tasks the averages are taken over, by name or file. None: uniwhisper-20 if there are no
            `tasks`, else these.
        protocol: The rules for probes and scores, by name or file.
        methods: How embeddings are scored: names in `METHODS`, `default` (the protocol's headline: mlp and knn, if it
            is uwbench-1) or `all`. One that does not take a task's labels leaves a line in `notes` of the results.
        data, cache, results: The folders of datasets (with one folder per task), embeddings and results. None: see
            `folders`.
        device: auto, cpu, cuda, cuda:1 or mps.
        extract: How embeddings are made: layers, poolings, precision, batches.
        probe: How embeddings are scored beyond the protocol: seed, missing clips, corruptions.
        progress: Whether rate and time left are shown, in a notebook or else on stderr. None: in a notebook alone. A
            `Reporter` is told instead.

    Returns:
        A result per model and task, each of which is also a file under `results`.

    Raises:
        UsageError: A name is unknown, options contradict each other, or the device is not there.
        InputError: A card, manifest or checkpoint is malformed.
        StoreError: The disk has no room for the embeddings.

    Example:
        >>> results = uwbench.evaluate(["logmel", "mfcc"], "mini_music")
        >>> results.to_frame()[["model", "task", "method", "n", "status"]]
            model        task method   n status
        0  logmel  mini_music    mlp  40     ok
        1  logmel  mini_music    knn  40     ok
        2    mfcc  mini_music    mlp  40     ok
        3    mfcc  mini_music    knn  40     ok
    """
    from uwbench.pipeline.run import run
    from uwbench.pipeline.scoring import Scoring, load_rules
    from uwbench.progress import reporter_for

    places = existing_folders(cache, data, results)
    rules = load_rules(protocol)
    scoring = Scoring(rules, methods_of(methods, rules.in_group), probe, places.results, named_alone(methods))
    opened, refused = open_models(models)
    return run(
        opened,
        task_specs(tasks),
        places,
        suite=suite,
        device=device,
        options=extract,
        scoring=scoring,
        reporter=reporter_for(progress),
        refused=refused,
    )


def extract(
    models: ModelInput | Sequence[ModelInput],
    tasks: TaskInput | Sequence[TaskInput] | None = None,
    *,
    suite: str | None = None,
    data: str | Path | None = None,
    cache: str | Path | None = None,
    results: str | Path | None = None,
    device: str = "auto",
    extract: ExtractOptions = ExtractOptions(),
    progress: bool | Reporter | None = None,
) -> Results:
    """Put the embeddings of tasks under models into the cache, without scoring them.

    The arguments are those of `evaluate`. Nothing is written to `results`; a `Reporter` is told the folder.

    Returns:
        `extractions` has the model, the task and the `Extraction` of each (clips, seconds of audio, seconds taken,
        clips that could not be read); None in its place if everything was cached. `to_frame()` is empty.

    Raises:
        UsageError, InputError, StoreError: As `evaluate`.

    Example:
        >>> uwbench.extract("mfcc", "mini_music").extractions
        [('mfcc', 'mini_music', None)]
    """
    from uwbench.pipeline.run import run
    from uwbench.progress import reporter_for

    places = existing_folders(cache, data, results)
    opened, refused = open_models(models)
    return run(
        opened,
        task_specs(tasks),
        places,
        suite=suite,
        device=device,
        options=extract,
        scoring=None,
        reporter=reporter_for(progress),
        refused=refused,
    )


def probe(
    models: ModelInput | Sequence[ModelInput] | None = None,
    tasks: TaskInput | Sequence[TaskInput] | None = None,
    *,
    suite: str | None = None,
    protocol: str = "uwbench-1",
    methods: str | Iterable[str] = "default",
    data: str | Path | None = None,
    cache: str | Path | None = None,
    results: str | Path | None = None,
    device: str = "auto",
    probe: ProbeOptions = ProbeOptions(),
    progress: bool | Reporter | None = None,
) -> Results:
    """Score tasks from the cache and write the results; needs neither audio nor encoder.

    The other arguments are those of `evaluate`.

    Args:
        models: One or several by what the cache knows them by: a name, a folder there, a fingerprint, or an encoder.
            None: every model in the cache.
        tasks: As for `evaluate`; one that is given by its path is read again, so that changed labels count. None: every
            task in the cache, or those of `suite`.

    Raises:
        UsageError: The cache holds no such model, or a name is unknown.

    Example:
        >>> uwbench.probe("mfcc", "mini_music", methods="knn").failures
        []
    """
    from uwbench.pipeline.probe_cached import probe_cached
    from uwbench.pipeline.scoring import Scoring, load_rules
    from uwbench.progress import reporter_for

    places = existing_folders(cache, data, results)
    rules = load_rules(protocol)
    scoring = Scoring(rules, methods_of(methods, rules.in_group), probe, places.results, named_alone(methods))
    names, specs, reporter = names_of_models(models), task_specs(tasks), reporter_for(progress)
    return probe_cached(names, specs, places, suite=suite, device=device, scoring=scoring, reporter=reporter)


def load_task(
    task: TaskInput,
    *,
    data: str | Path | None = None,
    label: str | None = None,
    group: str | None = None,
    path: str | None = None,
    split: str | None = None,
    fold: str | None = None,
    start: str | None = None,
    end: str | None = None,
    duration: str | None = None,
    name: str | None = None,
    kind: str | None = None,
    domain: str | None = None,
    allow_outside: bool = False,
    rate: int | None = None,
    taken_from: Sequence[str] = (),
) -> Dataset:
    """Return the clips of a task and the card that says how they are scored; no audio is decoded.

    The options other than `data` say how a manifest, a folder or a DataFrame is read; a card takes none of them.

    Args:
        task: The name of a card, a card file, a manifest, a folder with one sub-folder per class, a `TaskSpec`, or a
            DataFrame with one row per clip and the columns of a manifest. Its column `audio` (or `path`) has paths,
            bytes of encoded files, or arrays `(samples,)`: floats from -1 to 1, or int16.
        data: The folder of datasets, with one folder per task.
        label: The column of the labels. None: `label`.
        group: The column of the speaker, recording or song that must not be in two splits.
        path, split, fold, start, end, duration: Other columns of a table with names of its own (see `TaskSpec`); the
            last three in seconds.
        name: The task's name in results.
        kind: single-label (the default), multi-label, frame-multi-label, retrieval or transcription.
        domain: speech, sound (the default) or music.
        allow_outside: Whether a manifest's paths may leave its folder.
        rate: The sample rate in Hz of a DataFrame's arrays, if it has no column `rate`.
        taken_from: The published datasets or collections that the recordings are from, or `own`.

    Returns:
        `card`, `clips` in the order of the source, `source` in words, and `problems` seen while the labels were read.

    Raises:
        UsageError: A name is unknown, or an option does not apply.
        InputError: The data is malformed; the error names row and column.
        DataError: A card's data is not at hand.

    Example:
        >>> task = uwbench.load_task("mini_music")
        >>> len(task.clips), task.card.kind, task.clips[0].split
        (120, 'single-label', 'train')
    """
    from uwbench.pipeline.tasks import open_dataset

    spec = TaskSpec("DataFrame") if is_frame(task) else task_spec(task)
    options = {"label": label, "group": group, "path": path, "split": split, "fold": fold, "start": start, "end": end}
    options |= {"duration": duration, "name": name, "kind": kind, "domain": domain}
    changes: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    if allow_outside:
        changes["allow_outside"] = True
    if taken_from:
        changes["taken_from"] = tuple(taken_from)
    if changes and not isinstance(spec, TaskSpec):
        raise UsageError(f"{', '.join(changes)}: a dataset that was opened already takes no options", where="load_task")
    if is_frame(task):
        from uwbench.sources.frame import open_frame

        return open_frame(task, replace(cast("TaskSpec", spec), **changes), rate=rate)
    if rate is not None:
        raise UsageError("rate: is for a DataFrame with arrays; files have their own", where="load_task")
    return open_dataset(replace(spec, **changes) if isinstance(spec, TaskSpec) else spec, folders(None, data).data)


def load_encoder(
    name: str,
    *,
    weights: str | Path | None = None,
    context: str = Context.FULL,
    revision: str | None = None,
    trust_remote_code: bool = False,
    python: str | Path | None = None,
) -> Encoder:
    """Return an encoder, its weights hashed but not loaded; call its `load` before `encode`.

    Args:
        name: A name (`uwbench models`), a Hugging Face id, a folder, `hear:MODULE` or `FILE.py:Class`.
        weights: A folder or Hugging Face id, for families that ship no weights.
        context: `full`: with padding, as the model was trained; `trimmed`: the clip's own positions alone.
        revision: The revision of a Hugging Face id.
        trust_remote_code: Whether to run the Python code that comes with a checkpoint.
        python: Another interpreter to run the encoder in.

    Raises:
        UsageError: The name is unknown.
        InputError: The folder holds no checkpoint.
        EncoderError: The weights are missing or cannot be downloaded.

    Example:
        >>> encoder = uwbench.load_encoder("mfcc")
        >>> encoder.info.sample_rate, encoder.info.dim, encoder.info.hop_s
        (16000, 60, 0.01)
    """
    from uwbench.encoders.resolve import open_encoder

    positions = choice(Context, context, "--context").value
    other = None if python is None else str(python)
    return open_encoder(ModelSpec(name, weights and str(weights), positions, revision, trust_remote_code, other))


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The pooled embeddings of a task's `n` clips under one encoder, in the order of the source.

    `vectors` is float32 `(n, layers, dim)`, with a segment axis after the layers if it has the means of parts of each
    clip; `layers` names its second axis. Exactly one of `splits` (`train`, `valid`,
    `test`) and `folds` is set per clip. `labels` holds one label per clip, or a tuple of labels, captions or events.
    """

    vectors: np.ndarray
    layers: tuple[str, ...]
    ids: tuple[str, ...]
    labels: tuple[Labels, ...]
    splits: tuple[str | None, ...]
    folds: tuple[str | None, ...]
    groups: tuple[str | None, ...]

    def to_parquet(self, path: str | Path) -> None:
        """Write a table with the columns `id` and `vector` `(layers, dim)`, which `evaluate` takes as a model.

        Raises UsageError for segments: a model there has one vector per clip and layer.
        """
        from uwbench.encoders.vector_files import write_parquet

        if self.vectors.ndim != 3:
            raise UsageError("segments are no ready vectors", where="to_parquet", remedy="load another pooling")

        write_parquet(Path(path), self.ids, self.vectors, self.layers)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per clip: id, label, split, fold, group."""
        import pandas as pd

        columns = {"id": self.ids, "label": self.labels, "split": self.splits, "fold": self.folds, "group": self.groups}
        return pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})


def load_embeddings(
    encoder: ModelInput, task: TaskInput, *, pooling: str = "mean", cache: str | Path | None = None
) -> Embeddings:
    """Return a task's embeddings from the cache.

    Args:
        encoder: A model as for `probe`.
        task: A task as for `evaluate`.
        pooling: One that was extracted: mean (over the clip's valid frames), mean-all, std, max, first, or segments
            (means of 1, 2, 4 and 8 parts of a clip, in this order and that of time).
        cache: The folder of embeddings. None: see `folders`.

    Returns:
        `vectors`, float32 `(clips, layers, dim)`, of segments `(clips, layers, 15, dim)`, with labels, splits, folds,
        groups and ids in the same order.

    Raises:
        StoreError: The cache lacks them; the error says what to run.
        UsageError: The cache knows no such encoder, or several.

    Example:
        >>> embeddings = uwbench.load_embeddings("mfcc", "mini_music")
        >>> embeddings.vectors.shape, embeddings.labels[0]
        ((120, 1, 60), 'bell')
    """
    from uwbench.pipeline.cached import find_cached

    store, table = find_cached(name_of_model(encoder), task_spec(task), folders(cache).cache)
    vectors = (
        store.open_task(table.card.name, table.keys, needs_segments=True).segments().all()
        if pooling == "segments"
        else store.open_task(table.card.name, table.keys).pooled(pooling)
    )
    rest = (table.ids, table.labels, table.splits, table.folds, table.groups)
    return Embeddings(vectors, store.record.layers, *rest)


def leaderboard(
    results: ResultFolders = None,
    *,
    suite: str | None = None,
    protocol: str = "uwbench-1",
    references: bool = True,
    contaminated: str = Contaminated.KEEP,
    margin: float | None = None,
    methods: str | Iterable[str] | None = None,
) -> Leaderboard:
    """Return the leaderboard of the results under one or several folders, or in bundles that `verify` found equal.

    Args:
        results: Folders of results, or bundles. None: see `folders`.
        suite: The suite whose tasks count, by name or file. None: the tasks that the results hold.
        protocol: The protocol whose results are ranked.
        references: Whether published rows stand beside them, never ranked with them.
        contaminated: `keep` marks scores of tasks that a model was trained on, `drop` leaves them out.
        methods: The methods to show, as for `evaluate`. None: all in tables and files, the headline's on a terminal.
        margin: Points (hundredths of the score): averages are tested for differing by less. None: they are not.

    Raises:
        UsageError: A name is unknown.
        InputError: A result file is malformed.

    Example:
        >>> board = uwbench.leaderboard(suite="mini", references=False)
        >>> sorted(set(board.to_frame()["model"]))
        ['logmel', 'mfcc']
    """
    from uwbench.cards.find import find_suite
    from uwbench.report.build import build_board
    from uwbench.report.leaderboard import Leaderboard
    from uwbench.report.selection import card_of

    if margin is not None and not 0 < margin <= 100:
        raise UsageError(f"{margin:g} is not between 0 and 100 points", where="--margin")
    rules = card_of(protocol)
    group = in_group if rules is None else rules.in_group
    board = build_board(
        result_folders(results),
        suite=find_suite(suite) if suite else None,
        protocol=protocol,
        references=references,
        contaminated=choice(Contaminated, contaminated, "--contaminated").value,
        margin=None if margin is None else margin / 100,
        usual=[folders().results, Path("results"), user_folder("results")],
        methods=None if methods is None else methods_of(methods, group),
    )
    return Leaderboard(board)


def compare(
    first: str,
    second: str,
    *,
    method: str = "mlp",
    results: ResultFolders = None,
    suite: str | None = None,
    tasks: Sequence[str] = (),
    protocol: str = "uwbench-1",
) -> Comparison:
    """Compare two models that have results, on the clips that both were scored on.

    Args:
        first: A model by label, name or fingerprint.
        second: Another one; differences are the first minus this one.
        method: The method whose scores are compared.
        results: The folders of results. None: see `folders`.
        suite: The suite that averages are taken over, by name or file.
        tasks: Tasks that averages are taken over instead. Neither: those that the results hold.
        protocol: The protocol whose results are compared.

    Returns:
        A paired difference with its 95 % interval, p-values and effect size (Cohen's h) per task and per average.

    Raises:
        UsageError: No such model has results, or the two share no task.

    Example:
        >>> comparison = uwbench.compare("mfcc", "logmel", method="knn")
        >>> [(row.task, row.low < row.difference < row.high) for row in comparison.tasks]
        [('mini_music', True)]
    """
    from uwbench.cards.find import find_suite
    from uwbench.report.build import build_board
    from uwbench.report.compare import compare_models
    from uwbench.report.selection import suite_of

    chosen = suite_of(tasks) if tasks else find_suite(suite) if suite else None
    name = method_of(method)
    board = build_board(result_folders(results), suite=chosen, protocol=protocol, references=False, methods=(name,))
    return compare_models(board, first, second, name)


def crossings(
    first: str,
    second: str,
    *,
    results: ResultFolders = None,
    suite: str | None = None,
    tasks: Sequence[str] = (),
    protocol: str = "uwbench-1",
) -> tuple[Crossing, ...]:
    """Find where the few-shot curves of two models cross, in labelled clips.

    Args:
        first: A model with scores by the method `few-shot`, named as for `compare`.
        second: Another one.
        results: The folders of results. None: see `folders`.
        suite: The suite whose tasks are looked at, by name or file.
        tasks: Tasks that are looked at instead. Neither: those that the results hold.
        protocol: The protocol whose results are compared.

    Returns:
        One crossing per task, with its 95 % interval; a `Comparison` by few-shot has them, too.

    Raises:
        UsageError: No such model has results, or the two share no task.

    Example:
        >>> _ = uwbench.probe(["logmel", "mfcc"], "mini_music", methods="few-shot", results="curves")
        >>> [crossing.task for crossing in uwbench.crossings("logmel", "mfcc", results="curves")]
        ['mini_music']
    """
    comparison = compare(first, second, method="few-shot", results=results, suite=suite, tasks=tasks, protocol=protocol)
    return comparison.crossings


def sensitivity(
    *,
    method: str = "mlp",
    results: ResultFolders = None,
    suite: str | None = None,
    protocol: str = "uwbench-1",
) -> Sensitivity | None:
    """Return the models' ranks under other averages, other probe settings, and without each task and domain.

    None if fewer than two models hold the same tasks.
    """
    board = leaderboard(results, suite=suite, protocol=protocol, references=False)
    return board.sensitivity(method=method_of(method))


def write_figures(
    output: str | Path,
    *,
    formats: Sequence[str] = ("svg", "png"),
    results: ResultFolders = None,
    suite: str | None = None,
    protocol: str = "uwbench-1",
) -> list[Path]:
    """Write the leaderboard's figures and its LaTeX table into the folder `output`; return the paths.

    `formats` are some of svg, png and pdf. Raises UsageError for another, or if there is no score to draw.
    """
    board = leaderboard(results, suite=suite, protocol=protocol, references=False)
    return board.write_figures(output, formats=formats)


def model_card(
    model: str,
    *,
    format: str = CardFormat.HF,
    results: ResultFolders = None,
    suite: str | None = None,
    protocol: str = "uwbench-1",
) -> str | dict[str, dict[str, Any]]:
    """Return a model's scores for its Hugging Face card (`hf`, `eval`: YAML) or as MTEB keeps them (`mteb`: a dict)."""
    from uwbench.report.model_card import mteb_results, render_eval_results, render_model_index

    form = choice(CardFormat, format, "--format")
    board = leaderboard(results, suite=suite, protocol=protocol, references=False).board
    if form is CardFormat.MTEB:
        return mteb_results(board, model)
    return (render_model_index if form is CardFormat.HF else render_eval_results)(board, model)


def reproduce(
    result: str | Path, *, cache: str | Path | None = None, device: str = "auto", text_encoder: str | None = None
) -> Reproduction:
    """Score the result in a file again from the cache, and say what differs.

    Args:
        result: The file of a result.
        cache: The folder of embeddings. None: see `folders`.
        device: auto, cpu, cuda, cuda:1 or mps.
        text_encoder: For retrieval: the sentence encoder that embeds captions.

    Returns:
        `equal`, the `differences`, and in `context` what differs around the numbers, such as versions.

    Raises:
        StoreError: The cache lacks the embeddings; the error has the command that makes them.
        UsageError: The file holds no score.
    """
    from uwbench.base.device import pick_device
    from uwbench.probes.reproduce import reproduce

    return reproduce(Path(result), folders(cache).cache, device=pick_device(device), text_encoder=text_encoder)


def bundle(
    model: str,
    output: str | Path,
    *,
    protocol: str = "uwbench-1",
    results: str | Path | None = None,
    cache: str | Path | None = None,
) -> Bundle:
    """Pack a model's results with their predictions, labels and vectors into one file that anyone can score again.

    Equal inputs give equal bytes.

    Args:
        model: A model by label, name or fingerprint.
        output: The file to write, a zip.
        protocol: The protocol whose results are packed, by name or file.
        results: The folder of results. None: see `folders`.
        cache: The folder of the cache. None: see `folders`.

    Returns:
        The file's path, hash and size in bytes, its tasks, and why others were left out: those that are scored on
        frames, which take gigabytes, and what is off the board.

    Raises:
        UsageError: No such model has results, or none that can be packed.
        StoreError: The cache lacks vectors; the error has the command that makes them.

    Example:
        >>> packed = uwbench.bundle("mfcc", "mfcc.zip")
        >>> packed.tasks
        ('mini_music',)
    """
    from uwbench.bundles.pack import pack_bundle

    places = folders(cache, None, results)
    return pack_bundle(model, Path(output), places.results, places.cache, protocol=protocol)


def verify(
    file: str | Path,
    *,
    results: str | Path | None = None,
    device: str = "auto",
    text_encoder: str | None = None,
    progress: bool | Reporter | None = None,
) -> Verification:
    """Score a bundle again, without audio or encoder, and return whether it is equal and what differs.

    An equal one is recorded by the hash of its file: `leaderboard` then takes it, and it is not scored a second time.

    Args:
        file: The bundle.
        results: The folder of results, which keeps the record and the bundle's results. None: see `folders`.
        device: auto, cpu, cuda, cuda:1 or mps.
        text_encoder: The sentence encoder of retrieval tasks, as for `ProbeOptions`.
        progress: Show each task that is scored, as `evaluate` does, or a `Reporter` that is told.

    Returns:
        Whether everything is `equal`, the `differences`, and in `context` the versions that differ.

    Raises:
        InputError: The file is no bundle, or holds something else than it lists.
        FetchError: The zip is damaged or not safe to unpack.

    Example:
        >>> verified = uwbench.verify(uwbench.bundle("mfcc", "mfcc.zip").path)
        >>> verified.equal, verified.differences
        (True, ())
    """
    from uwbench.base.device import pick_device
    from uwbench.bundles.verify import verify_bundle
    from uwbench.progress import reporter_for

    home = folders(results=results).results
    reporter = reporter_for(progress)

    @contextmanager
    def watch(model: str, result: Result) -> Iterator[None]:
        reporter.note(f"scoring {result.task.name} by {', '.join(result.scores)}")
        reporter.started(model, f"{result.task.name} (verify)", 0)
        try:
            yield
        finally:
            reporter.finished()

    return verify_bundle(Path(file), home, device=pick_device(device), text_encoder=text_encoder, watch=watch)


def check_encoder(
    encoder: ModelInput, *, task: TaskInput | None = None, data: str | Path | None = None, device: str = "auto"
) -> Conformance:
    """Measure what an encoder promises: frame hop, independence of batch mates, determinism, speed.

    Args:
        encoder: A model as for `evaluate`.
        task: Four of this task's clips are encoded. None: sounds that are computed on the spot.
        data: The folder of datasets. None: see `folders`.
        device: auto, cpu, cuda, cuda:1 or mps.

    Returns:
        The measurements; `problems` has a sentence for each promise that does not hold.

    Raises:
        UsageError: The name is unknown, or stands for ready vectors.
        EncoderError: The weights are missing, or encoding fails.

    Example:
        >>> report = uwbench.check_encoder("mfcc")
        >>> report.problems, round(report.hop_seconds, 6)
        ((), 0.01)
    """
    from uwbench.base.device import pick_device
    from uwbench.encoders.conformance import check_encoder

    model = open_model(encoder).encoder
    if model.info.family == IMPORTED:
        raise UsageError("holds ready vectors, which cannot be checked on audio", where=model.info.name)
    dataset = load_task(task or "mini_sound", data=data)
    count = min(4, len(dataset.clips))
    clips = [dataset.clips[len(dataset.clips) * index // 4] for index in range(count)]
    if not clips:
        raise UsageError("holds no clip", where=f"--task {task}")
    rate = model.info.sample_rate
    decoded = [decode(clip.audio, rate, start_s=clip.start_s, end_s=clip.end_s) for clip in clips]
    audio = f"{count} clips of {dataset.card.name} ({dataset.source})"
    if task is None:
        audio = f"{count} generated sounds of mini_sound; give --task for real audio"
    return check_encoder(model, clips=decoded, device=pick_device(device), audio=audio)


def check_data(
    task: TaskInput, *, data: str | Path | None = None, progress: bool | Reporter | None = None
) -> CheckReport:
    """Decode every clip of a task and report what is wrong with the clips, labels and splits.

    Args:
        task: A task as for `evaluate`.
        data: The folder of datasets. None: see `folders`.
        progress: As for `evaluate`.

    Returns:
        `ok` is False if a finding is an error; each of `findings` has a code, a severity, a message and clips.

    Raises:
        UsageError, InputError, DataError: As `load_task`.

    Example:
        >>> report = uwbench.check_data("mini_music")
        >>> report.ok, report.counts
        (True, {'train': 60, 'valid': 20, 'test': 40})
    """
    from uwbench.progress import reporter_for
    from uwbench.sources.check import check_dataset

    dataset, reporter = load_task(task, data=data), reporter_for(progress)
    reporter.started("check", dataset.card.name, len(dataset.clips))
    try:
        return check_dataset(dataset, progress=lambda *_: reporter.advanced(1, 0.0))
    finally:
        reporter.finished()


def fetch_data(
    task: str | Path,
    *,
    data: str | Path | None = None,
    source: str | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    notice: Callable[[str], None] | None = None,
) -> list[Path]:
    """Download the audio of a card (its name or file) into the folder `data`; return the paths of its files.

    `source` is `shards` (X-ARES's, on Zenodo; the default) or `hub` (a Hugging Face dataset), if the card has both. A
    download that was interrupted resumes. `progress` is called with a file's name, the bytes that are there and all
    bytes; `notice` with the reason for a wait. Raises FetchError if the server, the files or the disk do not allow it.
    """
    from uwbench.sources.download import Patience
    from uwbench.sources.fetch import fetch_task

    folder = folders(None, data).data
    if folder is None:
        raise UsageError("no folder for datasets was given", remedy="give --data DIR or set UWBENCH_DATA")
    chosen = None if source is None else choice(FetchSource, source, "--source").value
    patience = Patience() if notice is None else Patience(tell=notice)
    return fetch_task(load_card(task), folder, source=chosen, progress=progress, patience=patience)


def list_tasks(
    *, cache: str | Path | None = None, data: str | Path | None = None, results: str | Path | None = None
) -> tuple[list[TaskRow], list[str]]:
    """Return a row per task card, and an error line for each card of a plug-in that was skipped."""
    from uwbench.report.listings import list_tasks

    return list_tasks(folders(cache, data, results))


def task_names() -> list[str]:
    """Return the names of all task cards."""
    from uwbench.cards.find import find_cards

    return sorted(find_cards()[0])


def suite_names() -> list[str]:
    """Return the names of the built-in suites of tasks."""
    from uwbench.cards.find import names_of

    return names_of("suite")


def load_card(task: str | Path) -> Card:
    """Return a task card by its name or its file; raise UsageError or InputError naming what is wrong."""
    from uwbench.cards.find import find_card, load_card

    return load_card(Path(task)) if str(task).endswith((".yaml", ".yml")) else find_card(str(task))


def list_models() -> list[CatalogueEntry]:
    """Return the models that are known by name."""
    from uwbench.encoders.catalogue import CATALOGUE

    return list(CATALOGUE)


def list_protocols() -> list[Protocol]:
    """Return the protocols, by name."""
    from uwbench.cards.find import find_protocol, names_of

    return [find_protocol(name) for name in names_of("protocol")]


def load_protocol(name: str) -> Protocol:
    """Return a protocol by its name or its file."""
    from uwbench.cards.find import find_protocol

    return find_protocol(name)


def list_cache(cache: str | Path | None = None) -> tuple[list[Holding], list[str]]:
    """Return what the cache holds, one entry per encoder and task, and an error line for whatever cannot be read."""
    from uwbench.cache.maintenance import holdings

    return holdings(folders(cache).cache)


def verify_cache(cache: str | Path | None = None) -> tuple[int, list[Damage], list[str]]:
    """Check every part of the cache against its checksum.

    Return how many parts were checked, the damaged ones, and an error line for each record that cannot be read.
    """
    from uwbench.cache.maintenance import verify

    return verify(folders(cache).cache)


def prune_cache(cache: str | Path | None = None, *, dry_run: bool = False) -> list[Pruned]:
    """Remove from the cache what no manifest and no task refers to; return it. With `dry_run`, remove nothing.

    Nothing may be extracting into the cache meanwhile.
    """
    from uwbench.cache.maintenance import prune

    return prune(folders(cache).cache, dry_run=dry_run)


def measure_inflation(
    tasks: Sequence[str] = (),
    models: Sequence[str] = (),
    *,
    seeds: int = 20,
    device: str = "auto",
    cache: str | Path | None = None,
) -> list[Inflation]:
    """Measure how much choosing on test data, as X-ARES does, inflates a score, on embeddings in the cache.

    Raises UsageError for a task on which X-ARES does not choose on test data.
    """
    from uwbench.base.device import pick_device
    from uwbench.probes.selection_bias import measure_cached

    return measure_cached(folders(cache).cache, tasks, models, seeds=range(seeds), device=pick_device(device))


def find_manifest(source: str) -> Path | None:
    """Return the manifest that `source` names or that lies in the folder it names; None if there is none."""
    from uwbench.sources.rows import MANIFEST_SUFFIXES
    from uwbench.sources.table import MANIFEST_NAMES

    path = Path(source)
    if path.name.lower().endswith(MANIFEST_SUFFIXES):
        return path
    return next((path / name for name in MANIFEST_NAMES if (path / name).is_file()), None)


def read_manifest(
    path: Path,
    label: str,
    *,
    kind: str = Kind.SINGLE_LABEL,
    group: str | None = None,
    gaps: bool = False,
    allow_outside: bool = False,
) -> tuple[Clip, ...]:
    """Return the clips that a manifest lists, with the labels of one column, in whatever splits there are.

    `load_task` makes a task of a manifest and so requires test clips; this does not. With `gaps`, an empty label is
    `()`; with `allow_outside`, paths may leave the manifest's folder. Raises InputError naming file, line and column.
    """
    from uwbench.sources.table import Columns, read_manifest

    named = {"label": label} if group is None else {"label": label, "group": group}
    return read_manifest(path, Columns(named, choice(Kind, kind, "--kind").value, allow_outside, gaps=gaps)).clips


def decode(audio: Audio, rate: int, *, start_s: float | None = None, end_s: float | None = None) -> np.ndarray:
    """Return audio as float32 `(samples,)`, mono, at `rate` Hz; `start_s` and `end_s` cut a stretch out of it.

    Raises AudioError if it cannot be decoded or holds values that are not finite.
    """
    from uwbench.audio.decode import decode

    return decode(audio, rate, start_s=start_s, end_s=end_s)


__all__ = [
    "BATCH_TOLERANCE",
    "BUILTIN_METHODS",
    "CORRUPTIONS",
    "HEADLINE",
    "METHODS",
    "Audio",
    "AudioArray",
    "AudioBytes",
    "AudioError",
    "AudioFile",
    "AudioMember",
    "CardFormat",
    "CheckReport",
    "Clip",
    "Column",
    "Comparison",
    "Conformance",
    "Contaminated",
    "Context",
    "Corruption",
    "DataError",
    "Dataset",
    "Domain",
    "Dtype",
    "Embeddings",
    "Encoded",
    "Encoder",
    "EncoderError",
    "EncoderInfo",
    "Engine",
    "Event",
    "ExtractOptions",
    "FetchError",
    "FetchSource",
    "FittedTable",
    "Folders",
    "InputError",
    "Kind",
    "Labels",
    "Leaderboard",
    "ModelSpec",
    "ProbeError",
    "ProbeOptions",
    "Reporter",
    "Reproduction",
    "Results",
    "StoreError",
    "TaskSpec",
    "UsageError",
    "UwbenchError",
    "access_problem",
    "active_rms",
    "bundle",
    "check_data",
    "check_encoder",
    "compare",
    "corrupt",
    "counted",
    "crossings",
    "decode",
    "describe_access",
    "describe_model",
    "disk_error",
    "escaped",
    "evaluate",
    "extract",
    "fetch_data",
    "find_manifest",
    "folders",
    "free_bytes",
    "is_own_data",
    "leaderboard",
    "list_cache",
    "list_models",
    "list_protocols",
    "list_tasks",
    "load_card",
    "load_embeddings",
    "load_encoder",
    "load_protocol",
    "load_task",
    "measure_inflation",
    "model_card",
    "open_console",
    "printable",
    "probe",
    "prune_cache",
    "read_bytes",
    "read_manifest",
    "reproduce",
    "sensitivity",
    "sensitivity_view",
    "suite_names",
    "task_names",
    "verify",
    "verify_cache",
    "write_figures",
]
