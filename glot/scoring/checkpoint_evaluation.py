"""A spec in; the errors of its checkpoint by each protocol, the errors of baselines, and the paper's errors out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from glot.features.store import FeatureStore
from glot.home import body_for
from glot.human.body import Body, load_body
from glot.models.inference import load_model_for
from glot.models.temporal_model import TemporalModel
from glot.scoring.baselines import guessed_bodies, linear_predictor, mean_pose_predictor, untrained_model
from glot.scoring.evaluation import (
    Evaluation,
    Inputs,
    Predictor,
    check_body,
    evaluate_predictor,
    model_predictor,
    rows_needed,
)
from glot.scoring.official_evaluation import evaluate_officially
from glot.scoring.official_protocols import OFFICIAL
from glot.scoring.paper_rows import paper_row
from glot.scoring.report import Report
from glot.scoring.spec import EvaluateSpec


@dataclass(frozen=True)
class Subject:
    """A model, and the feature set and the body that it is evaluated with, on one device."""

    model: TemporalModel
    store: FeatureStore
    body: Body

    def errors(
        self,
        predict: Predictor,
        what: str,
        protocols: Sequence[str],
        true_bodies: Mapping[str, Body] | None = None,
        inputs: Inputs | None = None,
    ) -> dict[str, Evaluation]:
        """Errors of a predictor on the feature set by each protocol; see ``evaluate_predictor``."""
        return evaluate_predictor(
            predict,
            self.store,
            self.body,
            frames=rows_needed(self.model.config),
            protocols=protocols,
            what=what,
            true_bodies=true_bodies,
            inputs=inputs,
        )

    def own_errors(
        self,
        spec: EvaluateSpec,
        what: str,
        protocols: Sequence[str],
        true_bodies: Mapping[str, Body] | None = None,
    ) -> dict[str, Evaluation]:
        """Errors of the model itself by each protocol. "official" is what the release of the model does."""
        shared = [name for name in protocols if name != "official" or self.model.config.kind not in OFFICIAL]
        predict = model_predictor(self.model, batch_size=spec.batch_size)
        found = self.errors(predict, what, shared, true_bodies) if shared else {}
        if len(shared) < len(protocols):
            found["official"] = evaluate_officially(
                self.model,
                self.store,
                self.body,
                batch_size=spec.batch_size,
                what=f"{what}, official",
                true_bodies=true_bodies,
            )
        return {name: found[name] for name in protocols}


def evaluate_checkpoint(spec: EvaluateSpec) -> Report:
    """Evaluates ``spec.checkpoint`` on a GPU if there is one.

    InputError where the checkpoint, the features and the body do not belong together, or cannot be read.
    """
    assert spec.checkpoint is not None, "EvaluateSpec.with_places fills it in"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    store = FeatureStore.open(spec.feature_set)
    body_path = body_for(spec.body, store.manifest.body)
    body = load_body(body_path).to(device)
    saved = load_model_for(spec.checkpoint, store.manifest)
    check_body(saved, store.manifest, body)
    subject = Subject(saved.model.to(device), store, body)
    results = subject.own_errors(spec, "evaluating", spec.protocols)
    if spec.gendered:
        # 3DPW's shapes were fitted with gendered bodies, but published numbers use these shapes with the neutral body.
        bodies = {gender: load_body(body_path, gender=gender).to(device) for gender in ("male", "female")}
        first = spec.protocols[:1]
        results["gendered"] = subject.own_errors(spec, "against gendered bodies", first, bodies)[first[0]]
    return Report(
        dataset=spec.dataset,
        split=spec.split,
        checkpoint=spec.checkpoint,
        recipe=saved.recipe.name,
        step=saved.info.get("step"),
        notes=saved.info["notes"],
        manifest=store.manifest,
        results=results,
        baselines=_baselines(spec, subject, seed=saved.recipe.seed),
        paper=paper_row(spec.dataset, saved.recipe.name, saved.recipe.model.kind),
        comparable=not store.manifest.body["open"] and not body.is_open and spec.split == "test",
    )


def _baselines(spec: EvaluateSpec, subject: Subject, *, seed: int) -> dict[str, Evaluation]:
    """Errors of the baselines that ``spec`` names, by its first protocol; by GLoT's where that is official."""
    protocols = spec.protocols[:1]
    predictors: dict[str, tuple[str, Predictor]] = {"mean_pose": ("mean pose", mean_pose_predictor(subject.model))}
    if spec.probe:
        predictors["linear_probe"] = ("linear probe", linear_predictor(spec.features / spec.dataset, subject.body))
    if spec.untrained:
        fresh = untrained_model(subject.model, seed=seed)
        predictors["untrained"] = ("random weights", model_predictor(fresh, batch_size=spec.batch_size))
    found = {
        name: subject.errors(predict, what, protocols)[protocols[0]] for name, (what, predict) in predictors.items()
    }
    if subject.store.manifest.has_guess:
        of_guesses = subject.errors(guessed_bodies, "first guess", protocols, inputs=subject.store.guess_of)
        found["first_guess"] = of_guesses[protocols[0]]
    return found
