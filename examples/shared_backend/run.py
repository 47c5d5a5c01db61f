"""Serve two models of one Python-based backend in this process, and ask both."""

from pathlib import Path

import numpy as np

import pytriton_lite as ptl

HERE = Path(__file__).resolve().parent


def main():
    with ptl.Server(HERE / "models", backend_directory=HERE / "backends") as server:
        print(server.backends())
        for name, readings in (
            ("thermocouple_k", [-3.554, 0.0, 4.096, 41.276]),
            ("pt100", [-100.0, 0.0, 100.0, 850.0]),
        ):
            model = server.model(name)
            metadata = model.metadata()
            source, target = metadata["inputs"][0]["name"], metadata["outputs"][0]["name"]
            values = model({source: np.array(readings)})[target]
            print(f"\n{name}: {source} to {target}")
            for reading, value in zip(readings, values, strict=True):
                print(f"{reading:10.3f} {value:10.3f}")
        try:
            server.model("pt100")({"CELSIUS": np.array([900.0])})
        except ptl.InvalidArgumentError as error:
            print(f"\npt100 at 900 degrees: {error}")


if __name__ == "__main__":
    main()
