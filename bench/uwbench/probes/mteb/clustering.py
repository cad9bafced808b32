"""AudioClustering: mini-batch k-means on samples of the clips, drawn with replacement."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from pydantic import Field

from uwbench.probes.methods.base import ProbeRun, Scored, settings_of
from uwbench.probes.methods.clustering import chance_level
from uwbench.probes.mteb.parts import MtebSettings, interval_over, tested_part
from uwbench.probes.predictions import experiment_rows
from uwbench.results import metrics
from uwbench.results.record import Score

METHOD = "mteb-clustering"


class MtebClusteringSettings(MtebSettings):
    """Settings of the samples and of k-means."""

    experiments: int = Field(gt=0)  # samples of clips
    clips: int = Field(gt=1)  # in each sample, however few there are
    batch: int = Field(gt=0)  # clips per step of k-means


def score(task: ProbeRun) -> Scored:
    """Return the V-measure, the mean over mteb's samples of clips; there are as many clusters as classes."""
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.metrics import adjusted_mutual_info_score, v_measure_score

    settings = settings_of(task.protocol, METHOD, MtebClusteringSettings)
    clips = tested_part(task, settings)
    codes, vectors = task.kind.targets(clips), task.last_layer(clips)
    model: Any = MiniBatchKMeans(
        len(np.unique(codes)),
        batch_size=settings.batch,
        init="k-means++",
        n_init=1,  # type: ignore[arg-type]
        random_state=settings.seed,
    )
    rng, measured, adjusted = random.Random(settings.seed), [], []
    for _ in range(settings.experiments):
        places = rng.choices(range(len(clips)), k=settings.clips)
        labels = model.fit_predict(vectors[places])
        measured.append(float(v_measure_score(codes[places], labels)))
        adjusted.append(float(adjusted_mutual_info_score(codes[places], labels)))
    return Scored(
        Score(
            metric="v-measure",
            main_score=metrics.mean(measured),
            ci95=interval_over(measured, task.protocol.bootstrap),
            per_seed=tuple(measured),
            per_fold={},
            raw={"ami": metrics.mean(adjusted)},
            chosen={"layer": task.data.layers[-1], "experiments": len(measured), "clips": len(clips)},
            chance=chance_level(codes),
        ),
        [experiment_rows(METHOD, measured)],
    )
