"""The prompt as the beginning of the answer, for `echo` on /v1/completions."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.completion import CompletionService, TokenChoice

PromptTokens = tuple[TokenChoice | None, ...]


@dataclass(frozen=True, slots=True)
class Echo:
    """A prompt's text."""

    text: str

    def unseen_text(self, tokens: PromptTokens) -> str:
        """The text of the first token, for which the model tells no log-probability and no text:
        what the other tokens leave over. Nothing, if it is one that begins every text."""
        rest = "".join(token.text for token in tokens if token is not None)
        return self.text[: len(self.text) - len(rest)] if self.text.endswith(rest) else ""


async def echo_of(service: CompletionService, prompt: str | tuple[int, ...]) -> Echo:
    return Echo(prompt if isinstance(prompt, str) else await service.detokenize(prompt))
