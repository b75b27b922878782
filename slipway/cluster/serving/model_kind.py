"""What a model is, from its config.json, and what a server has to be told for it. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slipway.core import SlipwayError, UsageError

MODEL_FOLDER = "/opt/ml/model"
"""Where SageMaker puts the model's files."""

_OPTION = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class ModelKind:
    """`heads` and `kv_heads` bound how many GPUs can share the model; `encoder_decoder` is T5 and
    its kin; `own_code` says that it brings Python code of its own."""

    model_type: str
    heads: int
    kv_heads: int
    encoder_decoder: bool
    own_code: bool

    def parallel_degree(self, gpus: int) -> int:
        """The most GPUs, a power of two, that divide its heads."""
        degree = 1
        while degree * 2 <= gpus and self._fits(degree * 2):
            degree *= 2
        return degree

    def _fits(self, degree: int) -> bool:
        # A key-value head is copied where there are more GPUs than heads, never cut.
        shared = self.kv_heads % degree == 0 or degree % self.kv_heads == 0
        return self.heads % degree == 0 and shared


def parse_model_config(text: str, where: str) -> ModelKind:
    """Read a Hugging Face config.json. Raises SlipwayError for what no server here takes."""
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _no_config("it is no JSON", where) from error
    if not isinstance(config, dict):
        raise _no_config("it is no JSON object", where)
    # Models of several kinds of input have their text model inside.
    inner = config.get("text_config") or config
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not isinstance(inner, dict):
        raise _no_config("it has no model_type", where)
    heads: Any = inner.get("num_attention_heads") or inner.get("num_heads")
    kv_heads: Any = inner.get("num_key_value_heads") or heads
    for count in (heads, kv_heads):
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise _no_config(f"its number of attention heads is {json.dumps(count)[:40]}", where)
    names = config.get("architectures") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _no_config("its architectures are no list of names", where)
    encoder_decoder = bool(config.get("is_encoder_decoder"))
    if names and not encoder_decoder and not any(_generates(name) for name in names):
        raise SlipwayError(
            f"{', '.join(names)} writes no text, and these servers are for models that do",
            where=where,
            cure="The Hugging Face inference images serve such a model.",
        )
    return ModelKind(model_type, heads, kv_heads, encoder_decoder, "auto_map" in config)


def _no_config(what: str, where: str) -> SlipwayError:
    return SlipwayError(
        f"{what}: a config.json of a Hugging Face model is needed, with model_type and the number "
        "of attention heads",
        where=where,
        cure="Save the model with `save_pretrained`, and its tokenizer beside it.",
    )


def _generates(architecture: str) -> bool:
    return architecture.endswith(("ForCausalLM", "ForConditionalGeneration", "LMHeadModel"))


def server_environment(
    server: str, kind: ModelKind, gpus: int, options: Mapping[str, str]
) -> dict[str, str]:
    """The container's variables. `options` are the server's own, by their small names."""
    for name in options:
        if not _OPTION.fullmatch(name):
            raise UsageError(f"--option {name!r}: expected a name like max_model_len")
    if kind.own_code and options.get("trust_remote_code") != "true":
        raise UsageError(
            f"the model ({kind.model_type}) brings Python code of its own, which runs only where "
            "it is trusted",
            cure="Look at its code, then say --option trust_remote_code=true.",
        )
    degree = kind.parallel_degree(gpus)
    if server == "vllm":
        if kind.encoder_decoder:
            raise UsageError(
                f"vLLM does not serve {kind.model_type} (an encoder with a decoder)",
                cure="Say --server lmi: its Hugging Face handler does.",
            )
        # aws.github.io/deep-learning-containers/vllm/configuration: each variable is a flag.
        flags = {"model": MODEL_FOLDER, "tensor_parallel_size": str(degree), **options}
        return {f"SM_VLLM_{name.upper()}": value for name, value in flags.items()}
    settings = {**_lmi_options(kind, degree), **options}
    return {
        "HF_MODEL_ID": MODEL_FOLDER,
        "SERVING_FAIL_FAST": "true",
        **{f"OPTION_{name.upper()}": value for name, value in settings.items()},
    }


def _lmi_options(kind: ModelKind, degree: int) -> dict[str, str]:
    """Of LMI (docs.djl.ai, LMI user guides): vLLM's asynchronous service, which is its default
    since LMI 17; for T5 and its kin the Hugging Face handler, which batches nothing."""
    if kind.encoder_decoder:
        return {
            "entrypoint": "djl_python.huggingface",
            "rolling_batch": "disable",
            "task": "text2text-generation",
            "tensor_parallel_degree": "1",
        }
    return {
        "async_mode": "true",
        "entrypoint": "djl_python.lmi_vllm.vllm_async_service",
        "rolling_batch": "disable",
        "tensor_parallel_degree": str(degree),
    }


def serving_properties(environment: Mapping[str, str]) -> str:
    """The same settings as LMI's file, for a model that carries its own."""
    lines = ["engine=Python", f"option.model_id={environment['HF_MODEL_ID']}"]
    for name, value in environment.items():
        if name.startswith("OPTION_"):
            option = name.removeprefix("OPTION_").lower()
            lines.append(f"option.{'entryPoint' if option == 'entrypoint' else option}={value}")
    return "\n".join(lines) + "\n"


def request_body(environment: Mapping[str, str], prompt: str, tokens: int) -> dict[str, Any]:
    """What the server takes for one prompt, known by its settings."""
    if any(name.startswith("SM_VLLM_") for name in environment):
        return {"prompt": prompt, "max_tokens": tokens}
    return {"inputs": prompt, "parameters": {"max_new_tokens": tokens}}
