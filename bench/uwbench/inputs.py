"""Models and tasks as callers name them, opened for a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard, cast

from uwbench.encoders.base import Encoder, ModelSpec
from uwbench.errors import UsageError, UwbenchError
from uwbench.options import TaskSpec

if TYPE_CHECKING:
    import pandas as pd

    from uwbench.pipeline.model import Model
    from uwbench.sources.dataset import Dataset

    ModelInput = str | Path | ModelSpec | Encoder | type[Encoder]
    TaskInput = str | Path | TaskSpec | Dataset | pd.DataFrame


def open_models(models: ModelInput | Sequence[ModelInput]) -> tuple[list[Model], list[str]]:
    """Open models, whose weights are not loaded; return them, and an error line for each that could not be opened.

    Raises UsageError if none was named, and the first error if none could be opened.
    """
    named = _model_list(models)
    if not named:
        raise UsageError("no model was named", remedy="uwbench models lists the names")
    opened, failures = [], []
    for model in named:
        try:
            opened.append(open_model(model))
        except UwbenchError as error:
            failures.append(error)
    if failures and not opened:
        raise failures[0]
    return opened, [str(error) for error in failures]


def open_model(model: ModelInput) -> Model:
    """Open a model by its name or take an encoder as it is; its weights are not loaded."""
    from uwbench.encoders.resolve import open_encoder
    from uwbench.pipeline.model import Model

    opened = model if isinstance(model, ModelSpec) else _made(model)
    if isinstance(opened, str):
        opened = ModelSpec(opened)
    return Model(open_encoder(opened), opened) if isinstance(opened, ModelSpec) else Model(opened, None)


def names_of_models(models: ModelInput | Sequence[ModelInput] | None) -> list[str | Encoder]:
    """Return what the cache knows models by, or encoders, whose identity finds them there."""
    return [name_of_model(model) for model in _model_list(models)]


def name_of_model(model: ModelInput) -> str | Encoder:
    """Return what the cache knows a model by, or an encoder, whose identity finds it there."""
    return model.name if isinstance(model, ModelSpec) else _made(model)


def _model_list(models: ModelInput | Sequence[ModelInput] | None) -> list[ModelInput]:
    """Return one or many models as a list; a module that is an encoder may itself be a sequence of layers."""
    if models is None:
        return []
    if isinstance(models, str | Path | ModelSpec) or hasattr(models, "encode") or not isinstance(models, Iterable):
        return [cast("ModelInput", models)]
    return list(cast("Iterable[ModelInput]", models))


def _made(model: str | Path | Encoder | type[Encoder]) -> str | Encoder:
    """Return an encoder object, made if a class is given, with the identity of its code; names as they are."""
    from uwbench.encoders.own_code import adopt

    if isinstance(model, str | Path):
        return str(model)
    return adopt(model() if isinstance(model, type) else model)


def task_specs(tasks: TaskInput | Sequence[TaskInput] | None) -> list[TaskSpec | Dataset]:
    """Return one or many tasks as a list of what the stages open."""
    if tasks is None:
        return []
    if isinstance(tasks, str | Path | TaskSpec) or hasattr(tasks, "clips") or is_frame(tasks):
        return [task_spec(cast("TaskInput", tasks))]
    return [task_spec(task) for task in cast("Sequence[TaskInput]", tasks)]


def task_spec(task: TaskInput) -> TaskSpec | Dataset:
    """Return a task as what the stages open; a DataFrame is opened at once."""
    if isinstance(task, str | Path):
        return TaskSpec(str(Path(task).expanduser() if str(task).startswith("~") else task))
    if is_frame(task):
        from uwbench.sources.frame import open_frame

        return open_frame(task, TaskSpec("DataFrame"))
    return cast("TaskSpec | Dataset", task)


def is_frame(task: object) -> TypeGuard[pd.DataFrame]:
    """Return whether `task` is a DataFrame, without importing pandas."""
    return hasattr(task, "iterrows")
