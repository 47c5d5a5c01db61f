"""A piecewise polynomial, read from a JSON file."""

import json
import os

import numpy as np
from numpy.polynomial import polynomial


class Piecewise:
    """Polynomials on neighbouring intervals, ascending; a bound belongs to the upper piece."""

    def __init__(self, description):
        pieces = description["pieces"]
        self.input_name = description["input"]
        self.output_name = description["output"]
        self.bounds = np.array([pieces[0]["from"]] + [piece["to"] for piece in pieces])
        self.coefficients = [piece["coefficients"] for piece in pieces]

    @classmethod
    def from_folder(cls, folder):
        with open(os.path.join(folder, "calibration.json"), encoding="utf-8") as file:
            return cls(json.load(file))

    def __call__(self, x):
        low, high = self.bounds[0], self.bounds[-1]
        if not np.all((low <= x) & (x <= high)):
            raise ValueError(f"{self.input_name} must be within {low:g} and {high:g}")
        piece = np.searchsorted(self.bounds[1:-1], x, side="right")
        choices = [polynomial.polyval(x, c) for c in self.coefficients]
        return np.choose(piece, choices)
