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
from appliance.completion.request import (
    ChatPrompt,
    CompletionRequest,
    OutputFormat,
    Tool,
    ToolChoice,
)
from appliance.completion.service import CompletionService
from appliance.completion.stream import CompletionStream

__all__ = [
    "ChatPrompt",
    "Choice",
    "Completion",
    "CompletionRequest",
    "CompletionService",
    "CompletionStream",
    "Delta",
    "Embeddings",
    "FinishWord",
    "OutputFormat",
    "TokenChoice",
    "Tool",
    "ToolCall",
    "ToolChoice",
    "Usage",
]
