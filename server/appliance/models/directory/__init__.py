"""Opens a model directory: refuses what is unsafe or does not fit, verifies it against its lock."""

from appliance.models.directory.model_directory import (
    GenerationDefaults,
    ModelDirectory,
    embedded_model_path,
    open_model,
)

__all__ = ["GenerationDefaults", "ModelDirectory", "embedded_model_path", "open_model"]
