"""Train with a logger. Usage: python -m tests.ddbp.loggers.logged KIND FOLDER EPOCHS [resume]."""

import sys

import ddbp
from tests.ddbp.training.small import DATA, make

KINDS = {
    "tensorboard": lambda: ddbp.TensorBoard(every_steps=2),
    "wandb": lambda: ddbp.WeightsAndBiases("tests", mode="offline", every_steps=2),
    "mlflow": lambda: ddbp.MLflow(experiment="tests", every_steps=2),
    "trackio": lambda: ddbp.Trackio("tests", every_steps=2),
}


def main() -> None:
    """Train, and print the losses of the epochs."""
    kind, folder, epochs, *resume = sys.argv[1:]
    trainer = make(
        callbacks=[KINDS[kind](), ddbp.Checkpoints()],
        run_dir=folder,
        resume="auto" if resume else None,
    )
    history = trainer.fit(DATA, epochs=int(epochs), validation=DATA)
    print("losses", [record["loss"] for record in history])


if __name__ == "__main__":
    main()
