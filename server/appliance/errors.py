"""Every error the product can raise, each with an HTTP status and a stable code.

ApplianceError
├── RequestError                 the client sent something we refuse; the message goes to the client
│   ├── InvalidRequest           400  invalid_value (or a code of the raiser's)
│   │   ├── UnsupportedParameter 400  unsupported_parameter
│   │   └── ContextLengthExceeded 400 context_length_exceeded
│   ├── HostNotAllowed           403  host_not_allowed
│   ├── NotFound                 404  not_found
│   │   └── ModelNotFound        404  model_not_found
│   ├── MethodNotAllowed         405  method_not_allowed
│   ├── PayloadTooLarge          413  payload_too_large
│   └── UnsupportedMediaType     415  unsupported_media_type
├── ServiceError                 we cannot serve now; the client may retry
│   ├── Overloaded               503  server_overloaded
│   ├── QueueTimeout             503  queue_timeout
│   ├── NotReady                 503  not_ready
│   └── EngineFailure            500  engine_failure
├── StartupError                 the process cannot start; the message goes to the terminal
│   ├── SettingsError
│   └── ModelRefused
└── ReleaseError                 a lock, download, bundle or release that cannot be made or used;
                                 the message goes to the terminal

Messages say what is wrong, the value, the limit and the way out, in the reader's words. Those that
go to a client never hold a path of the server or a traceback.
"""

from __future__ import annotations

from typing import ClassVar


class ApplianceError(Exception):
    """The root: anything we raise on purpose. A process that one ends exits with its code."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class RequestError(ApplianceError):
    status: ClassVar[int] = 400
    default_code: ClassVar[str] = "invalid_value"
    type: ClassVar[str] = "invalid_request_error"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code or self.default_code


class InvalidRequest(RequestError):
    """A parameter or body that cannot be honoured."""


class UnsupportedParameter(InvalidRequest):
    default_code = "unsupported_parameter"


class ContextLengthExceeded(InvalidRequest):
    default_code = "context_length_exceeded"


class HostNotAllowed(RequestError):
    status = 403
    default_code = "host_not_allowed"


class NotFound(RequestError):
    status = 404
    default_code = "not_found"


class ModelNotFound(NotFound):
    default_code = "model_not_found"


class MethodNotAllowed(RequestError):
    status = 405
    default_code = "method_not_allowed"


class PayloadTooLarge(RequestError):
    status = 413
    default_code = "payload_too_large"


class UnsupportedMediaType(RequestError):
    status = 415
    default_code = "unsupported_media_type"


class ServiceError(ApplianceError):
    status: ClassVar[int] = 503
    code: ClassVar[str] = "not_ready"
    type: ClassVar[str] = "server_error"
    param: ClassVar[None] = None
    retry_after_s: ClassVar[int | None] = 1


class Overloaded(ServiceError):
    code = "server_overloaded"


class QueueTimeout(ServiceError):
    code = "queue_timeout"


class NotReady(ServiceError):
    code = "not_ready"


class EngineFailure(ServiceError):
    status = 500
    code = "engine_failure"
    retry_after_s = None


class StartupError(ApplianceError):
    """Printed as one message on the terminal."""


class SettingsError(StartupError):
    """A flag or environment variable with a value we cannot use."""

    exit_code = 2  # argparse's own for a wrong command line


class ModelRefused(StartupError):
    """A model directory that is unsafe, incomplete or beyond what we can run."""

    exit_code = 3


class ReleaseError(ApplianceError):
    """What belongs to a release cannot be made, or does not hold what it promises."""

    exit_code = 4
