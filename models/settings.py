"""The settings tree: the only reader of environment variables.

Names: `RAPPORT_<SECTION>__<FIELD>` (for example `RAPPORT_SAFETY__BLOCK_AT=4`), plus the documented names of the source
documents (`REDIS_URL`, `DATABASE_URL`, `CONTEXT_CACHE_ENABLED`, `CONTEXT_CACHE_TTL`, `OPENAI_API_KEY`, ...). The
environment beats `.env`, which beats the arguments of `serve_config.yaml`, which beat the defaults written here.
An unknown `RAPPORT_*` name or a malformed value stops the start with a message that names it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from models.errors import ConfigurationError

PREFIX = "RAPPORT_"

#: Documented names without our prefix, and where they stand in the tree.
DOCUMENTED: Mapping[str, tuple[str, ...]] = {
    "DATABASE_URL": ("database", "url"),
    "REDIS_URL": ("redis", "url"),
    "CONTEXT_CACHE_ENABLED": ("context", "cache_enabled"),
    "CONTEXT_CACHE_TTL": ("context", "l2_ttl_s"),
    "OPENAI_API_KEY": ("language_model", "openai_api_key"),
    "OPENAI_BASE_URL": ("language_model", "openai_base_url"),
    "AZURE_OPENAI_API_KEY": ("language_model", "azure_api_key"),
    "AZURE_OPENAI_ENDPOINT": ("language_model", "azure_endpoint"),
    "CLEARBIT_API_KEY": ("context", "clearbit_api_key"),
    "CRUNCHBASE_API_KEY": ("context", "crunchbase_api_key"),
    "NEWS_API_KEY": ("context", "news_api_key"),
}


#: Settings that never travel in Serve arguments.
SECRETS = frozenset(
    {
        "hash_salt",
        "database.url",
        "redis.url",
        "language_model.openai_api_key",
        "language_model.azure_api_key",
        "context.clearbit_api_key",
        "context.crunchbase_api_key",
        "context.news_api_key",
        "ingress.api_keys",
    }
)


class Section(BaseModel):
    """A part of the tree; frozen, and it refuses names it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DatabaseSettings(Section):
    """SQLite by default; any `postgresql+asyncpg://` URL in production."""

    url: SecretStr = SecretStr("")
    pool_size: Annotated[int, Field(ge=1, le=200)] = 5
    busy_timeout_s: Annotated[float, Field(gt=0)] = 5.0


class RedisSettings(Section):
    """Empty URL: memory only, which `/ready` reports and which allows a single replica of what needs shared state."""

    url: SecretStr = SecretStr("")
    timeout_s: Annotated[float, Field(gt=0)] = 0.5


class KnowledgeSettings(Section):
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8100
    collection: Annotated[str, Field(min_length=3, max_length=60)] = "medley"
    #: Cosine under which a passage is not shown to the language model, which judges the others itself.
    min_score: Annotated[float, Field(ge=-1, le=1)] = 0.3
    limit: Annotated[int, Field(ge=1, le=50)] = 5
    timeout_s: Annotated[float, Field(gt=0)] = 3.0


class EmbeddingSettings(Section):
    """`device` is `auto` (a GPU where there is one), `cpu`, `cuda`...; `auto` precision takes bf16 where it is fast."""

    engine: str = "sentence_transformers"
    model: str = "all-minilm-l6-v2"
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    max_batch: Annotated[int, Field(ge=1, le=1024)] = 64
    cache_entries: Annotated[int, Field(ge=0)] = 20_000


class VLLMSettings(Section):
    """The model that vLLM serves inside the graph; read only when the chain names the engine `vllm`."""

    #: A folder with weights and tokenizer, or a name on the Hugging Face hub.
    model: str = ""
    #: `auto` takes a GPU where the cluster has one.
    device: Literal["auto", "gpu", "cpu"] = "auto"
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    #: Tokens of the longest conversation, prompt and reply together.
    max_model_len: Annotated[int, Field(ge=16)] = 4096
    #: Memory of the key-value cache on a processor; a GPU takes `gpu_memory_utilization` of its memory.
    kv_cache_mib: Annotated[int, Field(ge=1)] = 512
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    max_num_seqs: Annotated[int, Field(ge=1)] = 128
    tensor_parallel_size: Annotated[int, Field(ge=1)] = 1
    prefix_caching: bool = True
    #: The format in which the model writes tool calls.
    tool_call_parser: str = "hermes"
    #: Where LoRA adapters lie (`s3://...`, `gs://...`); a request takes one as the model `vllm:ADAPTER`.
    lora_path: str = ""
    max_loras: Annotated[int, Field(ge=1)] = 4
    max_lora_rank: Annotated[int, Field(ge=1)] = 16
    #: Logical CPUs that one replica reserves on a processor; its model runs on `threads` of them.
    cpus: Annotated[float, Field(gt=0)] = 0.4
    threads: Annotated[int, Field(ge=1)] = 1
    #: Tokens that arrive within this time travel to the caller together.
    stream_interval_ms: Annotated[int, Field(ge=0, le=1000)] = 20


class LanguageModelSettings(Section):
    """`engine` answers; where it cannot, `fallbacks` are tried in their order and the reply says so.

    Engines: `extractive`, `openai`, `azure_openai`, `vllm`, and `scripted:...` for load and fault tests.
    """

    engine: str = "extractive"
    fallbacks: tuple[str, ...] = ()
    timeout_s: Annotated[float, Field(gt=0)] = 30.0
    #: Of a whole streamed reply under `/v1`, which may be long and shows that it goes on.
    stream_timeout_s: Annotated[float, Field(gt=0)] = 120.0
    max_tokens: Annotated[int, Field(ge=1)] = 512
    #: Of requests that name none. Left out, vLLM takes 0 and an OpenAI endpoint its own; 0 is better for grounded
    #: answers, but OpenAI's reasoning models (gpt-5, o3, o4-mini) refuse it.
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    #: Generations of one replica at the same time; beyond, the answer is 503 at once.
    max_concurrent: Annotated[int, Field(ge=1)] = 100
    #: Whether personal data is replaced before a model outside, or inside, our walls reads it.
    redact_external: bool = True
    redact_local: bool = False
    prices: str = "config/prices.yaml"
    #: Models outside our walls stop when this is spent within a UTC day, or by one campaign.
    budget_usd_per_day: Annotated[float, Field(gt=0)] | None = None
    budget_usd_per_campaign: Annotated[float, Field(gt=0)] | None = None
    openai_api_key: SecretStr = SecretStr("")
    openai_base_url: str = "https://api.openai.com/v1"
    openai_model: str = "gpt-4o-mini"
    openai_api: Literal["chat", "responses"] = "chat"
    azure_api_key: SecretStr = SecretStr("")
    azure_endpoint: str = ""
    azure_deployment: str = ""
    azure_api: Literal["chat", "responses"] = "chat"
    #: `key` takes `azure_api_key`; `managed_identity` asks the platform, for `azure_client_id` if one is given.
    azure_auth: Literal["key", "managed_identity"] = "key"
    azure_client_id: str = ""
    vllm: VLLMSettings = VLLMSettings()


class ClassificationSettings(Section):
    engine: str = "exemplars"
    #: Below this confidence a human looks at the message (row C3).
    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.5


class ContextSettings(Section):
    """Customer context: caching, patience with providers, and keys of the vendors; a vendor without a key is off."""

    cache_enabled: bool = True
    l1_entries: Annotated[int, Field(ge=1)] = 1000
    l1_ttl_s: Annotated[float, Field(gt=0)] = 30.0
    #: Upper bound of every provider's own time to live.
    l2_ttl_s: Annotated[float, Field(gt=0)] = 300.0
    deadline_ms: Annotated[int, Field(ge=1, le=5000)] = 250
    #: An expiry comes up to this share earlier, so that what was cached together does not expire together.
    expiry_jitter: Annotated[float, Field(ge=0, lt=1)] = 0.1
    #: A read past this share of the time to live fetches anew behind the answer.
    early_refresh: Annotated[float, Field(gt=0, le=1)] = 0.8
    #: How long a read waits for fresh data when a stale value may be shown.
    soft_timeout_ms: Annotated[int, Field(ge=0, le=5000)] = 0
    #: How long data past its time stands in, with its age told, while its provider fails.
    stale_if_error_s: Annotated[float, Field(ge=0)] = 600.0
    #: How long "there is no such customer" is believed.
    unknown_ttl_s: Annotated[float, Field(ge=0)] = 30.0
    #: Fetches of one provider at the same time in one replica; what is over is skipped.
    max_in_flight: Annotated[int, Field(ge=1)] = 64
    #: Consecutive failures after which a provider is left alone, and for how long.
    breaker_failures: Annotated[int, Field(ge=1)] = 5
    breaker_open_s: Annotated[float, Field(gt=0)] = 10.0
    agent_types: str = "config/agent_types.yaml"
    strategies: str = "config/context_strategies.yaml"
    history_retention_days: Annotated[int, Field(ge=1)] = 90
    #: File of the company's own insights model; empty for the one of the demo company.
    insights_model: str = ""
    external_enabled: bool = True
    #: Vendors are asked only about customers who pay at least this much a month.
    external_min_mrr: Annotated[float, Field(ge=0)] = 0.0
    clearbit_api_key: SecretStr = SecretStr("")
    clearbit_base_url: str = "https://company.clearbit.com"
    crunchbase_api_key: SecretStr = SecretStr("")
    crunchbase_base_url: str = "https://api.crunchbase.com"
    news_api_key: SecretStr = SecretStr("")
    news_base_url: str = "https://newsapi.org"
    #: What the plan at NewsAPI allows; the free one 100.
    news_requests_per_day: Annotated[int, Field(ge=4)] = 100


class SafetySettings(Section):
    """`block_at` 4 means that severity 4 and above is blocked."""

    block_at: Annotated[int, Field(ge=1, le=7)] = 4
    #: Customers' own messages at this severity or above go to a person; they are never blocked.
    escalate_at: Annotated[int, Field(ge=1, le=7)] = 4


class SessionSettings(Section):
    ttl_s: Annotated[float, Field(gt=0)] = 24 * 3600.0
    turn_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    max_turns: Annotated[int, Field(ge=1)] = 200


class Credential(Section):
    """What one API key may do. `agent_types` empty means the most masked view only."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    agent_types: tuple[str, ...] = ()
    requests_per_minute: Annotated[int, Field(ge=1)] = 60


class IngressSettings(Section):
    """`api_keys` maps the secret key to what it may do; without any, anonymous calls are possible on loopback.

    `host` and `port` are where `make serve` listens; in a config file they must equal `http_options`.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    api_keys: Mapping[str, Credential] = Field(default_factory=dict, repr=False)
    max_body_bytes: Annotated[int, Field(ge=1)] = 256 * 1024
    #: Of a request to the OpenAI-compatible surface, which may carry 2048 texts or a long conversation.
    max_model_body_bytes: Annotated[int, Field(ge=1)] = 4 * 1024 * 1024
    max_concurrent: Annotated[int, Field(ge=1)] = 100
    request_timeout_s: Annotated[float, Field(gt=0)] = 30.0


class CampaignSettings(Section):
    config: str = "config/campaign/demo.yaml"
    report_dir: str = ""


class TelemetrySettings(Section):
    """Traces go to an OpenTelemetry collector over OTLP/HTTP; off while `otlp_endpoint` is empty."""

    otlp_endpoint: str = ""
    #: Record what is said to and by models in spans; off because it is personal.
    capture_content: bool = False


class Settings(BaseSettings):
    """All of Rapport's settings, frozen; built once at an edge by `load_settings` and passed on."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_prefix=PREFIX, env_nested_delimiter="__", env_ignore_empty=True
    )

    environment: Literal["development", "staging", "production"] = "development"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    #: Durable state of this machine: database, knowledge, token, reports.
    state_dir: Path = Path(".rapport")
    #: Salt of hashed customer ids in logs and audit lines.
    hash_salt: SecretStr = SecretStr("rapport")
    database: DatabaseSettings = DatabaseSettings()
    redis: RedisSettings = RedisSettings()
    knowledge: KnowledgeSettings = KnowledgeSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    language_model: LanguageModelSettings = LanguageModelSettings()
    classification: ClassificationSettings = ClassificationSettings()
    context: ContextSettings = ContextSettings()
    safety: SafetySettings = SafetySettings()
    sessions: SessionSettings = SessionSettings()
    ingress: IngressSettings = IngressSettings()
    campaign: CampaignSettings = CampaignSettings()
    telemetry: TelemetrySettings = TelemetrySettings()

    @property
    def database_url(self) -> str:
        """The configured URL, or SQLite in the state folder."""
        return self.database.url.get_secret_value() or f"sqlite+aiosqlite:///{self.state_dir.resolve()}/rapport.db"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment over `.env` over the arguments of a Serve config file."""
        from_file = DocumentedNames(settings_cls, _read(getattr(dotenv_settings, "env_file", None)))
        return env_settings, DocumentedNames(settings_cls, os.environ), dotenv_settings, from_file, init_settings


class DocumentedNames(PydanticBaseSettingsSource):
    """Reads the names of the source documents, which carry no prefix and point into sections."""

    def __init__(self, settings_cls: type[BaseSettings], variables: Mapping[str, str]) -> None:
        super().__init__(settings_cls)
        self._variables = variables

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        section = {
            path[1]: self._variables[name]
            for name, path in DOCUMENTED.items()
            if path[0] == field_name and self._variables.get(name)
        }
        return section or None, field_name, False

    def __call__(self) -> dict[str, Any]:
        values = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in values.items() if value is not None}


def load_settings(args: Mapping[str, Any] | None = None, *, env_file: str | Path | None = ".env") -> Settings:
    """Build the tree: environment over `.env` over `args` over defaults.

    Raises `ConfigurationError` naming every unknown `RAPPORT_*` variable and every malformed value; values themselves
    are never printed, since they may be secrets.
    """
    variables = {**_read(env_file), **os.environ}
    problems = [f"{name}: there is no such setting" for name in sorted(variables) if _is_unknown(name)]
    problems += [f"serve argument {name}: there is no such setting" for name in args or {} if not _exists((name,))]
    problems += [f"serve argument {name}: is a secret; set it in the environment" for name in _secrets(args or {})]
    settings = None
    try:
        settings = Settings(_env_file=env_file, **(args or {}))
    except SettingsError as exc:
        problems += [f"{name}: not valid JSON" for name in _not_json(variables)] or [str(exc)]
    except ValidationError as exc:
        told = {problem.partition(":")[0] for problem in problems}
        wrong = [(_source(error["loc"], variables), error["msg"]) for error in exc.errors()]
        problems += [f"{name}: {message}" for name, message in wrong if name not in told]
    if problems or settings is None:
        raise ConfigurationError("settings are not valid:\n  " + "\n  ".join(dict.fromkeys(problems)))
    return settings


def config_file(name: str) -> Path:
    """A file that a setting names: as it stands, else beside Rapport's own code, where the shipped ones lie."""
    path = Path(name)
    return path if path.is_absolute() or path.exists() else Path(__file__).resolve().parents[1] / path


def _read(env_file: Any) -> dict[str, str]:
    return {name: value for name, value in dotenv_values(env_file).items() if value} if env_file else {}


def _secrets(args: Mapping[str, Any], path: tuple[str, ...] = ()) -> list[str]:
    """Dotted names in `args` whose values would be secrets; the Ray dashboard shows `args` to whoever may open it."""
    found = []
    for name, value in args.items():
        here = (*path, str(name))
        if ".".join(here) in SECRETS:
            found.append(".".join(here))
        elif isinstance(value, Mapping):
            found += _secrets(value, here)
    return found


def _is_unknown(name: str) -> bool:
    return name.startswith(PREFIX) and not _exists(_path(name))


def _path(name: str) -> tuple[str, ...]:
    return tuple(name[len(PREFIX) :].lower().split("__"))


def _exists(path: tuple[str, ...]) -> bool:
    return _annotation(path) is not None


def _annotation(path: tuple[str, ...]) -> Any:
    """The type of the setting at this path; `None` if there is none."""
    model: Any = Settings
    for part in path:
        fields = getattr(model, "model_fields", {})
        if part not in fields:
            return None
        model = fields[part].annotation
    return model


def _not_json(variables: Mapping[str, str]) -> list[str]:
    """The variables of lists and tables that do not hold JSON."""
    found = []
    for name, value in sorted(variables.items()):
        if name.startswith(PREFIX) and _takes_json(_annotation(_path(name))):
            try:
                json.loads(value)
            except ValueError:
                found.append(name)
    return found


def _takes_json(annotation: Any) -> bool:
    origin = get_origin(annotation) or annotation
    if origin in (Union, UnionType, Annotated):
        return any(map(_takes_json, get_args(annotation)))
    collections = (BaseModel, Mapping, list, tuple, set, frozenset)
    return isinstance(origin, type) and issubclass(origin, collections)


def _source(location: tuple[int | str, ...], variables: Mapping[str, str]) -> str:
    """The variable a value came from; without deeper parts of the location, which may be secret keys."""
    parts = [str(part) for part in location]
    for length in range(len(parts), 0, -1):
        if (name := PREFIX + "__".join(parts[:length]).upper()) in variables:
            return name
    documented = (name for name, path in DOCUMENTED.items() if list(path) == parts[: len(path)] and name in variables)
    return next(documented, "serve argument " + ".".join(parts[:2]))
