"""Runs in MLflow."""

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from layers.errors import message

from .logger import Logger, text

if TYPE_CHECKING:
    from ddbp.training.trainer import Trainer

_MOST = 500
"""The longest text of a parameter that all stores of MLflow take."""


class MLflow(Logger):
    """Send a run to MLflow.

    Parameters
    ----------
    uri
        The address of the tracking server or store; files in `mlruns` in the run folder unless
        given.
    experiment
        The experiment that the run belongs to.
    every_steps
        Updates from one loss to the next.

    Notes
    -----
    A trainer with it needs MLflow: `pip install "ddbp[mlflow]"`.
    """

    package, extra = "mlflow", "mlflow"

    def __init__(
        self, uri: str | None = None, *, experiment: str = "ddbp", every_steps: int = 10
    ) -> None:
        super().__init__(every_steps=every_steps)
        fix = 'uri="http://localhost:5000".'
        self.uri = None if uri is None else text("MLflow", "uri", uri, fix)
        self.experiment = text("MLflow", "experiment", experiment, 'experiment="ddbp".')
        self._client: Any = None
        self._run = ""

    def on_attach(self, trainer: "Trainer") -> None:
        super().on_attach(trainer)
        if self.uri is None and trainer.run_dir is None:
            fix = "Pass run_dir= to Trainer, or uri= here."
            raise ValueError(message("MLflow", "runs must have a place", None, fix))

    def begin(self, trainer: "Trainer", run: str, resumed: bool) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        uri = self.uri
        if uri is None:
            assert trainer.run_dir is not None
            uri = (trainer.run_dir / "mlruns").as_uri()
        if uri.startswith("file:"):
            # MLflow 3 has one ask for files in so many words; databases need all of MLflow.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        client = self._client = MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name(self.experiment)
        number = client.create_experiment(self.experiment) if found is None else found.experiment_id
        if resumed:
            # MLflow numbers runs itself, and knows this one by its name.
            runs = client.search_runs([number], f"attributes.run_name = '{run}'", max_results=1)
            if runs:
                self._run = runs[0].info.run_id
                client.update_run(self._run, status="RUNNING")
                return
        self._run = client.create_run(number, run_name=run).info.run_id
        facts = self.configuration(trainer).items()
        params = [Param(name, str(fact)[:_MOST]) for name, fact in facts]
        client.log_batch(self._run, params=params)

    def send(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(name, number, now, step) for name, number in values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def end(self, failed: bool) -> None:
        self._client.set_terminated(self._run, status="FAILED" if failed else "FINISHED")
