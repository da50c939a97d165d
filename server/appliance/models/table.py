"""The models of a process by name: what is listed, and what answers a request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.completion.protocol import ListedModel, Served, model_not_found
from appliance.errors import NotReady

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.completion.protocol import Asker

LOADING = "The model is being loaded."


class ModelTable:
    """A table of `ListedModel`; what is loaded and unloaded is put here."""

    def __init__(self, *models: ListedModel) -> None:
        self._models = {model.name: model for model in models}

    def put(self, model: ListedModel) -> None:
        """Add a model, or replace what is known of it."""
        self._models[model.name] = model

    def listed(self, asker: Asker | None = None) -> Sequence[ListedModel]:
        models = list(self._models.values())
        return models if asker is None else [each for each in models if asker.may_use(each.name)]

    def context_limit(self, name: object) -> int | None:
        named = self._models.get(name) if isinstance(name, str) else None
        if named is not None and named.served is not None:
            return named.served.max_context_tokens
        limits = [each.served.max_context_tokens for each in self._models.values() if each.served]
        return max(limits, default=None)

    async def find(self, name: str | None = None, asker: Asker | None = None) -> Served:
        model = self.named(name, asker)
        if model.served is None:
            raise NotReady(f"{model.reason} GET /health says when the server is ready.")
        return model.served

    def named(self, name: str | None, asker: Asker | None) -> ListedModel:
        """Return the model of that name, or the first one that the asker may use."""
        model = self._models.get(name) if name is not None else None
        if name is None:
            model = next(iter(self.listed(asker)), None)
        if model is None or (asker is not None and not asker.may_use(model.name)):
            raise model_not_found(self.listed(asker))
        return model
