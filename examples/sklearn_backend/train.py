"""Train two classifiers on data that ships with scikit-learn and store them as a model repository.

Usage: python examples/sklearn_backend/train.py FOLDER

Makes `FOLDER/models/{digits,iris}` and, for the evaluation, the rows that the models have not
seen in `FOLDER/held_out/{digits,iris}.npz`. Equal runs make equal models.
"""

import sys
from pathlib import Path

import joblib
import numpy as np
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def make_repository(folder):
    """Make the repository; returns the path of its `models` folder."""
    folder = Path(folder)
    digits, iris = load_digits(), load_iris()
    for name, rows, labels, estimator in (
        # Labels 0 to 9; KNN on 8 x 8 pixels.
        ("digits", digits.data, digits.target, KNeighborsClassifier(n_neighbors=3)),
        # Labels are the species' names.
        (
            "iris",
            iris.data,
            iris.target_names[iris.target],
            make_pipeline(StandardScaler(), LogisticRegression()),
        ),
    ):
        train_rows, test_rows, train_labels, test_labels = train_test_split(
            rows.astype(np.float32), labels, test_size=0.25, stratify=labels, random_state=0
        )
        estimator.fit(train_rows, train_labels)

        version_folder = folder / "models" / name / "1"
        version_folder.mkdir(parents=True, exist_ok=True)
        joblib.dump(estimator, version_folder / "model.joblib")
        (version_folder.parent / "config.pbtxt").write_text('backend: "sklearn"\n')

        held_out = folder / "held_out"
        held_out.mkdir(exist_ok=True)
        np.savez(held_out / f"{name}.npz", rows=test_rows, labels=test_labels)
    return folder / "models"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(make_repository(sys.argv[1]))
