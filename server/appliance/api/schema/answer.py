"""The base of every answer's model."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class AnswerModel(BaseModel):
    """An answer as the API's description has it: built when the description is, as nothing else
    needs it."""

    model_config = ConfigDict(defer_build=True)
