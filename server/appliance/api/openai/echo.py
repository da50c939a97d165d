"""The prompt as the beginning of the answer, for `echo` on /v1/completions."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.api.openai.logprobs import (
    TextLogprobsDict,
    TextOffsets,
    text_logprobs,
    token_bytes,
)
from appliance.completion import Completions, TokenChoice

PromptTokens = tuple[TokenChoice | None, ...]


@dataclass(frozen=True, slots=True)
class Echo:
    """A prompt's text."""

    text: str

    def unseen(self, tokens: PromptTokens) -> bytes:
        """The first token, for which the model tells no log-probability and no text: what the
        other tokens leave over. Nothing, if it is one that begins every text."""
        rest = b"".join(token.bytes for token in tokens if token is not None)
        text = self.text.encode()
        if text.endswith(rest):
            return text.removesuffix(rest)
        readable = rest.decode(errors="replace")  # token ids may be no whole text
        return self.text.removesuffix(readable).encode() if self.text.endswith(readable) else b""


def echo_logprobs(echo: Echo, tokens: PromptTokens) -> TextLogprobsDict:
    unseen = echo.unseen(tokens)
    offsets = TextOffsets().place(token_bytes(tokens, unseen), echo.text)
    return text_logprobs(tokens, offsets, unseen)


async def echo_of(service: Completions, prompt: str | tuple[int, ...]) -> Echo:
    return Echo(prompt if isinstance(prompt, str) else await service.detokenize(prompt))
