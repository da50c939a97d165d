"""Messages or a prompt in, text deltas out: the one service that every HTTP face translates."""

from appliance.completion.answer import (
    Choice,
    Completion,
    Delta,
    Embeddings,
    FinishWord,
    TokenChoice,
    ToolCall,
    Usage,
)
from appliance.completion.protocol import (
    Asker,
    Completions,
    Embedder,
    ListedModel,
    Models,
    ModelStatus,
    Provenance,
    Served,
    Stream,
    model_not_found,
)
from appliance.completion.request import (
    Account,
    ChatPrompt,
    CompletionRequest,
    OutputFormat,
    Reservation,
    Tool,
    ToolChoice,
    draw_seed,
    given,
)
from appliance.completion.service import CompletionService
from appliance.completion.stream import CompletionStream

__all__ = [
    "Account",
    "Asker",
    "ChatPrompt",
    "Choice",
    "Completion",
    "CompletionRequest",
    "CompletionService",
    "CompletionStream",
    "Completions",
    "Delta",
    "Embedder",
    "Embeddings",
    "FinishWord",
    "ListedModel",
    "ModelStatus",
    "Models",
    "OutputFormat",
    "Provenance",
    "Reservation",
    "Served",
    "Stream",
    "TokenChoice",
    "Tool",
    "ToolCall",
    "ToolChoice",
    "Usage",
    "draw_seed",
    "given",
    "model_not_found",
]
