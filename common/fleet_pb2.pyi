from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EnrolRequest(_message.Message):
    __slots__ = ("protocol_version", "secret", "request", "own_examples")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    OWN_EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    secret: str
    request: bytes
    own_examples: int
    def __init__(self, protocol_version: _Optional[int] = ..., secret: _Optional[str] = ..., request: _Optional[bytes] = ..., own_examples: _Optional[int] = ...) -> None: ...

class EnrolReply(_message.Message):
    __slots__ = ("certificate", "refusal")
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    refusal: str
    def __init__(self, certificate: _Optional[bytes] = ..., refusal: _Optional[str] = ...) -> None: ...

class FromNode(_message.Message):
    __slots__ = ("hello", "progress", "update", "farewell", "renewal")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    FAREWELL_FIELD_NUMBER: _ClassVar[int]
    RENEWAL_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    progress: Progress
    update: Update
    farewell: Farewell
    renewal: Renewal
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., update: _Optional[_Union[Update, _Mapping]] = ..., farewell: _Optional[_Union[Farewell, _Mapping]] = ..., renewal: _Optional[_Union[Renewal, _Mapping]] = ...) -> None: ...

class ToNode(_message.Message):
    __slots__ = ("welcome", "refusal", "beat", "task", "verdict", "cancel", "farewell", "certificate", "owed")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    BEAT_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    FAREWELL_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    OWED_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    refusal: Refusal
    beat: Beat
    task: Task
    verdict: Verdict
    cancel: Cancel
    farewell: Farewell
    certificate: Certificate
    owed: Owed
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ..., beat: _Optional[_Union[Beat, _Mapping]] = ..., task: _Optional[_Union[Task, _Mapping]] = ..., verdict: _Optional[_Union[Verdict, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., farewell: _Optional[_Union[Farewell, _Mapping]] = ..., certificate: _Optional[_Union[Certificate, _Mapping]] = ..., owed: _Optional[_Union[Owed, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol_version", "software_version", "name", "key", "shard", "any_shard", "own_examples", "machine", "codecs")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_VERSION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    ANY_SHARD_FIELD_NUMBER: _ClassVar[int]
    OWN_EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    MACHINE_FIELD_NUMBER: _ClassVar[int]
    CODECS_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    software_version: str
    name: str
    key: str
    shard: int
    any_shard: bool
    own_examples: int
    machine: Machine
    codecs: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, protocol_version: _Optional[int] = ..., software_version: _Optional[str] = ..., name: _Optional[str] = ..., key: _Optional[str] = ..., shard: _Optional[int] = ..., any_shard: _Optional[bool] = ..., own_examples: _Optional[int] = ..., machine: _Optional[_Union[Machine, _Mapping]] = ..., codecs: _Optional[_Iterable[str]] = ...) -> None: ...

class Machine(_message.Message):
    __slots__ = ("hostname", "architecture", "cpu", "cores", "memory_bytes", "python", "torch", "threads")
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    CPU_FIELD_NUMBER: _ClassVar[int]
    CORES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    PYTHON_FIELD_NUMBER: _ClassVar[int]
    TORCH_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    hostname: str
    architecture: str
    cpu: str
    cores: int
    memory_bytes: int
    python: str
    torch: str
    threads: int
    def __init__(self, hostname: _Optional[str] = ..., architecture: _Optional[str] = ..., cpu: _Optional[str] = ..., cores: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., python: _Optional[str] = ..., torch: _Optional[str] = ..., threads: _Optional[int] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("shard", "num_shards", "beat_seconds", "silence_seconds", "max_message_bytes", "renew")
    SHARD_FIELD_NUMBER: _ClassVar[int]
    NUM_SHARDS_FIELD_NUMBER: _ClassVar[int]
    BEAT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SILENCE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    RENEW_FIELD_NUMBER: _ClassVar[int]
    shard: int
    num_shards: int
    beat_seconds: float
    silence_seconds: float
    max_message_bytes: int
    renew: bool
    def __init__(self, shard: _Optional[int] = ..., num_shards: _Optional[int] = ..., beat_seconds: _Optional[float] = ..., silence_seconds: _Optional[float] = ..., max_message_bytes: _Optional[int] = ..., renew: _Optional[bool] = ...) -> None: ...

class Renewal(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: bytes
    def __init__(self, request: _Optional[bytes] = ...) -> None: ...

class Certificate(_message.Message):
    __slots__ = ("certificate",)
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    def __init__(self, certificate: _Optional[bytes] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("reason", "retry", "enrol")
    REASON_FIELD_NUMBER: _ClassVar[int]
    RETRY_FIELD_NUMBER: _ClassVar[int]
    ENROL_FIELD_NUMBER: _ClassVar[int]
    reason: str
    retry: bool
    enrol: bool
    def __init__(self, reason: _Optional[str] = ..., retry: _Optional[bool] = ..., enrol: _Optional[bool] = ...) -> None: ...

class Beat(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Progress(_message.Message):
    __slots__ = ("task", "fraction", "since_seconds")
    TASK_FIELD_NUMBER: _ClassVar[int]
    FRACTION_FIELD_NUMBER: _ClassVar[int]
    SINCE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    task: str
    fraction: float
    since_seconds: float
    def __init__(self, task: _Optional[str] = ..., fraction: _Optional[float] = ..., since_seconds: _Optional[float] = ...) -> None: ...

class Weights(_message.Message):
    __slots__ = ("codec", "layout", "buffer")
    CODEC_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    BUFFER_FIELD_NUMBER: _ClassVar[int]
    codec: str
    layout: _containers.RepeatedCompositeFieldContainer[Tensor]
    buffer: bytes
    def __init__(self, codec: _Optional[str] = ..., layout: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., buffer: _Optional[bytes] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("name", "dtype", "shape")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...

class Value(_message.Message):
    __slots__ = ("integer", "real", "text", "flag", "texts")
    INTEGER_FIELD_NUMBER: _ClassVar[int]
    REAL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FLAG_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    integer: int
    real: float
    text: str
    flag: bool
    texts: Texts
    def __init__(self, integer: _Optional[int] = ..., real: _Optional[float] = ..., text: _Optional[str] = ..., flag: _Optional[bool] = ..., texts: _Optional[_Union[Texts, _Mapping]] = ...) -> None: ...

class Texts(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, items: _Optional[_Iterable[str]] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("task", "deadline_seconds", "weights", "config", "type", "model")
    class ConfigEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...
    TASK_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    task: str
    deadline_seconds: float
    weights: Weights
    config: _containers.MessageMap[str, Value]
    type: str
    model: bytes
    def __init__(self, task: _Optional[str] = ..., deadline_seconds: _Optional[float] = ..., weights: _Optional[_Union[Weights, _Mapping]] = ..., config: _Optional[_Mapping[str, Value]] = ..., type: _Optional[str] = ..., model: _Optional[bytes] = ...) -> None: ...

class Update(_message.Message):
    __slots__ = ("task", "weights", "metrics", "error")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Value, _Mapping]] = ...) -> None: ...
    TASK_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    task: str
    weights: Weights
    metrics: _containers.MessageMap[str, Value]
    error: str
    def __init__(self, task: _Optional[str] = ..., weights: _Optional[_Union[Weights, _Mapping]] = ..., metrics: _Optional[_Mapping[str, Value]] = ..., error: _Optional[str] = ...) -> None: ...

class Owed(_message.Message):
    __slots__ = ("task", "model")
    TASK_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    task: str
    model: bytes
    def __init__(self, task: _Optional[str] = ..., model: _Optional[bytes] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("task", "verdict", "reason")
    TASK_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    task: str
    verdict: str
    reason: str
    def __init__(self, task: _Optional[str] = ..., verdict: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("task", "reason")
    TASK_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    task: str
    reason: str
    def __init__(self, task: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Farewell(_message.Message):
    __slots__ = ("reason", "run_done")
    REASON_FIELD_NUMBER: _ClassVar[int]
    RUN_DONE_FIELD_NUMBER: _ClassVar[int]
    reason: str
    run_done: bool
    def __init__(self, reason: _Optional[str] = ..., run_done: _Optional[bool] = ...) -> None: ...
