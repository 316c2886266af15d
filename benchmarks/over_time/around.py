"""What is around the numbers: importing nnx, saving and loading a model, reading a table."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

import nnx

from .networks import network


class Around:
    """Things that a script does once."""

    timer = time.process_time

    def setup(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.model_file = str(Path(self.folder.name, "model.safetensors"))
        self.table_file = str(Path(self.folder.name, "table.csv"))
        self.model = network((32, 64, 32, 2), 0.0, 0.0)
        self.model.save(self.model_file)
        numbers = np.random.default_rng(0).standard_normal((10_000, 10)).round(4)
        header = ",".join(f"x{i}" for i in range(9)) + ",target"
        np.savetxt(self.table_file, numbers, "%.4f", ",", header=header, comments="")

    def teardown(self) -> None:
        self.folder.cleanup()

    def time_save(self) -> None:
        self.model.save(self.model_file)

    def time_load(self) -> None:
        nnx.Model.load(self.model_file)

    def time_load_csv(self) -> None:
        nnx.load_csv(self.table_file, "target")

    def timeraw_import(self) -> tuple[str, str]:
        return "import nnx", "import numpy"
