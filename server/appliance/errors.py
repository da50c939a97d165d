"""Every error the product can raise, each with an HTTP status and a stable code.

ApplianceError
├── RequestError                 the client sent something we refuse; the message goes to the client
│   ├── InvalidRequest           400  invalid_value (or a code of the raiser's)
│   │   ├── UnsupportedParameter 400  unsupported_parameter
│   │   └── ContextLengthExceeded 400 context_length_exceeded
│   ├── Unauthorized             401  invalid_api_key
│   ├── HostNotAllowed           403  host_not_allowed
│   ├── NotFound                 404  not_found
│   │   └── ModelNotFound        404  model_not_found
│   ├── MethodNotAllowed         405  method_not_allowed
│   ├── PayloadTooLarge          413  payload_too_large
│   ├── UnsupportedMediaType     415  unsupported_media_type
│   ├── RateLimited              429  rate_limit_exceeded
│   └── QuotaExceeded            429  insufficient_quota
├── ServiceError                 we cannot serve now; the client may retry
│   ├── Overloaded               503  server_overloaded
│   ├── QueueTimeout             503  queue_timeout
│   ├── NotReady                 503  not_ready
│   ├── ModelUnavailable         503  model_unavailable
│   └── EngineFailure            500  engine_failure
├── StartupError                 the process cannot start; the message goes to the terminal
│   ├── SettingsError
│   ├── AccessError
│   ├── ModelRefused
│   └── ModelDoesNotFit
└── ReleaseError                 a lock, download, bundle or release that cannot be made or used;
                                 the message goes to the terminal

Messages say what is wrong, the value, the limit and the way out, in the reader's words. Those that
go to a client never hold a path of the server or a traceback.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

# Codes that are given where an error is raised, in place of its class's: status and meaning.
CODES_OF_RAISERS: Mapping[str, tuple[int, str]] = {
    "invalid_type": (400, "A value is of the wrong type."),
    "missing_required_parameter": (400, "A required parameter is absent."),
    "invalid_json": (400, "The body is empty, not JSON in UTF-8, or has NUL, NaN or a key twice."),
    "invalid_form": (400, "An uploaded form cannot be read, or has too many or too large fields."),
    "invalid_http": (400, "The request is not HTTP."),
    "body_timeout": (400, "The body did not arrive within 60 seconds."),
    "unsupported_schema": (400, "A JSON schema has a keyword or a size that cannot be kept."),
    "no_tool_calls": (400, "The model's chat template has no tool calls that this server reads."),
    "no_chat_template": (400, "The model has no chat template; use `/v1/completions`."),
    "chat_template_failed": (400, "The template failed or passed a limit with these messages."),
    "headers_too_large": (431, "The headers are larger than 64 KiB."),
    "internal_error": (500, "A defect of the server; its log tells, under this `X-Request-Id`."),
}


class ApplianceError(Exception):
    """The root: anything we raise on purpose. A process that one ends exits with its code."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class RequestError(ApplianceError):
    """A value is out of its range, or does not go with another."""

    status: ClassVar[int] = 400
    default_code: ClassVar[str] = "invalid_value"
    type: str = "invalid_request_error"

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        """`field` is the domain's name of what is at fault, as are the names in backticks in a
        message that comes with it: a face puts the client's words there. `param` is a client's
        word already.
        """
        super().__init__(message)
        self.field = field
        self.param = param
        self.code = code or self.default_code


class InvalidRequest(RequestError):
    """A parameter or body that cannot be honoured."""


class UnsupportedParameter(InvalidRequest):
    """A parameter is refused, not known, or asks for what this server cannot do."""

    default_code = "unsupported_parameter"


class ContextLengthExceeded(InvalidRequest):
    """Prompt and new tokens do not fit the model's context."""

    default_code = "context_length_exceeded"

    @classmethod
    def of(
        cls,
        num_prompt_tokens: int,
        max_context_tokens: int,
        *,
        num_new_tokens: int = 0,
        param: str | None = None,
    ) -> ContextLengthExceeded:
        """Say what was asked for and what the context holds; `param` is the prompt's own name."""
        prompt = "The prompt" if param is None else f"`{param}`"
        asked = f" and {num_new_tokens} new ones were asked for" if num_new_tokens else ""
        return cls(
            f"{prompt} has {num_prompt_tokens} tokens{asked}; the model's context holds"
            f" {max_context_tokens}. Shorten the prompt or ask for fewer tokens.",
            param=param,
        )


class Unauthorized(RequestError):
    """With access control: no key was sent, or one that is wrong, expired or revoked."""

    status = 401
    default_code = "invalid_api_key"


class HostNotAllowed(RequestError):
    """The `Host` header has a name that `--allowed-hosts` does not list."""

    status = 403
    default_code = "host_not_allowed"


class NotFound(RequestError):
    """No such path."""

    status = 404
    default_code = "not_found"


class ModelNotFound(NotFound):
    """This server does not serve the model that the request names."""

    default_code = "model_not_found"


class MethodNotAllowed(RequestError):
    """The path has other methods; the header `Allow` lists them."""

    status = 405
    default_code = "method_not_allowed"


class PayloadTooLarge(RequestError):
    """The body is larger than `--max-body-bytes`; the connection is closed."""

    status = 413
    default_code = "payload_too_large"


class UnsupportedMediaType(RequestError):
    """The body is not `application/json` in UTF-8, or is compressed."""

    status = 415
    default_code = "unsupported_media_type"


class RateLimited(RequestError):
    """The key is at a limit, of which `type` says; `Retry-After` says when to come back."""

    status = 429
    default_code = "rate_limit_exceeded"

    def __init__(
        self, message: str, *, retry_after_s: int, kind: Literal["requests", "tokens"]
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.type = kind  # as OpenAI's API does


class QuotaExceeded(RequestError):
    """The request may take more tokens than its key may use in a minute, and never fits."""

    status = 429
    default_code = "insufficient_quota"
    type = "insufficient_quota"
    retry_after_s: ClassVar[int] = 60


class ServiceError(ApplianceError):
    """The server cannot answer now; the client may try again."""

    status: ClassVar[int] = 503
    code: ClassVar[str] = "not_ready"
    type: ClassVar[str] = "server_error"
    param: ClassVar[None] = None
    retry_after_s: ClassVar[int | None] = 1


class Overloaded(ServiceError):
    """All places, running and waiting, are taken."""

    code = "server_overloaded"


class QueueTimeout(ServiceError):
    """The request waited for `--queue-timeout-s` seconds and had not begun."""

    code = "queue_timeout"


class NotReady(ServiceError):
    """The model is loading, or the server is shutting down."""

    code = "not_ready"


class ModelUnavailable(ServiceError):
    """The model that the request names could not be loaded."""

    code = "model_unavailable"
    retry_after_s = 30


class EngineFailure(ServiceError):
    """The answer could not be computed; the server's log has the cause."""

    status = 500
    code = "engine_failure"
    retry_after_s = None


class StartupError(ApplianceError):
    """Printed as one message on the terminal."""


class SettingsError(StartupError):
    """A flag or environment variable with a value we cannot use."""

    exit_code = 2  # argparse's own for a wrong command line


class AccessError(StartupError):
    """A file of keys, of identities or of audit entries that cannot be used."""

    exit_code = 2


class ModelRefused(StartupError):
    """A model directory that is unsafe, incomplete or beyond what we can run."""

    exit_code = 3


class ModelDoesNotFit(StartupError):
    """A model that has no room beside the others; `numbers` may go to a client, too."""

    def __init__(self, numbers: str, way_out: str) -> None:
        super().__init__(f"{numbers} {way_out}")
        self.numbers = numbers


class ReleaseError(ApplianceError):
    """What belongs to a release cannot be made, or does not hold what it promises."""

    exit_code = 4
