"""A model that cannot compute is told apart from one that can before anybody asks it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from appliance.errors import StartupError
from appliance.metrics import Metrics
from appliance.models.directory import open_model
from appliance.models.hashing import FileHasher
from appliance.models.loading import load_model, try_out
from appliance.models.machine import ThisMachine
from appliance.models.options import ModelOptions
from appliance.models.plan import plan_runner
from tests.model_factory import model_config, random_weights, write_model, write_weights


def load_and_try(path: Path) -> None:
    options = ModelOptions(runner="torch", device="cpu", threads=1)
    plan = plan_runner(options, open_model(path), ThisMachine())
    loaded = load_model(plan, FileHasher(), Metrics().observer("m"))
    try:
        asyncio.run(try_out(loaded.service))
    finally:
        loaded.engine.stop()


def test_a_model_whose_weights_are_no_numbers_ends_the_start_with_a_sentence(
    tmp_path: Path,
) -> None:
    pytest.importorskip("torch")
    path = write_model(tmp_path / "m")
    load_and_try(path)
    weights = random_weights(model_config())
    weights["model.norm.weight"][:] = np.nan
    write_weights(path / "model.safetensors", weights)
    with pytest.raises(StartupError, match="first token could not be computed"):
        load_and_try(path)
