"""Endpoints: what a model's kind means for its server, documents, and the whole way at moto."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from slipway.cluster.serving import endpoint_change
from slipway.cluster.serving.endpoint_change import (
    delete_endpoint,
    deploy_model,
    invoke_once,
    show_endpoint,
)
from slipway.cluster.serving.endpoint_documents import EndpointOptions
from slipway.cluster.serving.model_kind import (
    parse_model_config,
    request_body,
    server_environment,
    serving_properties,
)
from slipway.core import SlipwayError, UsageError
from tests.support.aws_control_plane import (
    REGION,
    ControlPlane,
    check_request,
    control_plane_in_process,
)

ROOT = Path(__file__).parents[3]
LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
T5 = {
    "model_type": "t5",
    "architectures": ["T5ForConditionalGeneration"],
    "is_encoder_decoder": True,
    "num_heads": 64,
}
SEEING = {
    "model_type": "qwen2_5_vl",
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "text_config": {"num_attention_heads": 28, "num_key_value_heads": 4},
}


def environment(config: dict[str, Any], gpus: int, server: str = "lmi", **options: str) -> Any:
    kind = parse_model_config(json.dumps(config), "config.json")
    return server_environment(server, kind, gpus, options)


@pytest.mark.parametrize(
    ("config", "gpus", "degree"),
    [
        (LLAMA, 8, "8"),
        (LLAMA, 4, "4"),
        (LLAMA, 1, "1"),
        (SEEING, 8, "4"),  # 28 heads: not by 8
        ({**LLAMA, "num_attention_heads": 71, "num_key_value_heads": 1}, 8, "1"),
        ({**LLAMA, "num_attention_heads": 64, "num_key_value_heads": 2}, 8, "8"),
    ],
)
def test_a_model_is_shared_by_as_many_gpus_as_divide_its_heads(
    config: dict[str, Any], gpus: int, degree: str
) -> None:
    assert environment(config, gpus)["OPTION_TENSOR_PARALLEL_DEGREE"] == degree
    assert environment(config, gpus, "vllm")["SM_VLLM_TENSOR_PARALLEL_SIZE"] == degree


def test_an_encoder_with_a_decoder_has_another_handler() -> None:
    """Seed 001's Flan-T5: vLLM does not serve it."""
    settings = environment(T5, 4)
    assert settings["OPTION_ENTRYPOINT"] == "djl_python.huggingface"
    assert settings["OPTION_TASK"] == "text2text-generation"
    with pytest.raises(UsageError, match="vLLM does not serve t5"):
        environment(T5, 4, "vllm")


def test_options_of_ones_own_win_and_the_file_says_the_same() -> None:
    settings = environment(LLAMA, 4, max_model_len="8192", tensor_parallel_degree="2")
    lines = serving_properties(settings).splitlines()
    assert settings["OPTION_TENSOR_PARALLEL_DEGREE"] == "2"
    assert lines[0] == "engine=Python"
    assert "option.tensor_parallel_degree=2" in lines
    assert "option.max_model_len=8192" in lines
    assert "option.entryPoint=djl_python.lmi_vllm.vllm_async_service" in lines


def test_code_of_a_model_runs_only_where_it_is_trusted() -> None:
    own = {**LLAMA, "auto_map": {"AutoModel": "modeling.Own"}}
    with pytest.raises(UsageError, match="brings Python code of its own"):
        environment(own, 1)
    assert environment(own, 1, trust_remote_code="true")["OPTION_TRUST_REMOTE_CODE"] == "true"


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", '{"model_type": "llama"}', "null"),
        json.dumps({**LLAMA, "num_attention_heads": 0}),
        json.dumps({**LLAMA, "num_attention_heads": "many"}),
        json.dumps({**LLAMA, "architectures": ["BertForSequenceClassification"]}),
    ],
)
def test_what_is_no_model_that_writes_is_one_paragraph(text: str) -> None:
    with pytest.raises(SlipwayError, match=r"s3://bucket/m/config\.json: "):
        parse_model_config(text, "s3://bucket/m/config.json")


def test_each_server_is_asked_in_its_own_way() -> None:
    assert request_body(environment(LLAMA, 1), "a", 5)["inputs"] == "a"
    assert request_body(environment(LLAMA, 1, "vllm"), "a", 5) == {"prompt": "a", "max_tokens": 5}


ASKED = EndpointOptions(
    model="s3://models/run/llama-8b/",
    role="arn:aws:iam::123456789012:role/Serve",
    instance="ml.g4dn.12xlarge",
)


@pytest.fixture
def plane(monkeypatch: pytest.MonkeyPatch) -> Iterator[ControlPlane]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setattr(endpoint_change, "POLL_S", 0.0)
    with control_plane_in_process() as plane:
        storage = boto3.client("s3", region_name=REGION)
        storage.create_bucket(Bucket="models")
        storage.put_object(
            Bucket="models", Key="run/llama-8b/config.json", Body=json.dumps(LLAMA).encode()
        )
        yield plane


def deploy(**changes: Any) -> None:
    deploy_model(ROOT, dataclasses.replace(ASKED, **changes), REGION, yes=True, dry_run=False)


@pytest.mark.parametrize("changes", [{}, {"server": "vllm"}, {"count": "3", "name": "other"}])
def test_documents_are_what_the_models_of_the_calls_take(
    plane: ControlPlane, changes: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    options = dataclasses.replace(ASKED, **changes)
    deploy_model(ROOT, options, REGION, yes=False, dry_run=True)
    documents = json.loads(capsys.readouterr().out)
    for name, call in (
        ("create-model", "CreateModel"),
        ("create-endpoint-config", "CreateEndpointConfig"),
        ("create-endpoint", "CreateEndpoint"),
    ):
        assert check_request("sagemaker", call, documents[name]) == []
    assert ("serving.properties" in documents) == (options.server == "lmi")
    assert documents["create-model"]["PrimaryContainer"]["ModelDataSource"] == {
        "S3DataSource": {
            "S3Uri": "s3://models/run/llama-8b/",
            "S3DataType": "S3Prefix",
            "CompressionType": "None",
        }
    }
    (variant,) = documents["create-endpoint-config"]["ProductionVariants"]
    # The images are of CUDA 13, whose driver the default machine image does not have.
    assert variant["InferenceAmiVersion"] == "al2023-ami-sagemaker-inference-gpu-4-1"
    assert boto3.client("sagemaker", region_name=REGION).list_models()["Models"] == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"role": ""}, "--role is missing"),
        ({"role": "Serve"}, "--role 'Serve'"),
        ({"instance": "ml.g4dn.12xlarg"}, "did you mean ml.g4dn.12xlarge"),
        ({"instance": "ml.trn1.32xlarge"}, "has no GPU"),
        ({"server": "tgi"}, "--server 'tgi'"),
        ({"count": "0"}, "--count"),
        ({"options": ("max_model_len",)}, "expected NAME=VALUE"),
        ({"options": ("Max-Len=1",)}, "expected a name like"),
        ({"name": "a_b"}, "no name of an endpoint"),
        ({"model": "run/llama"}, "expected s3://"),
        ({"model": "s3://models/run/llama.tar.gz"}, "--config FILE"),
        ({"model": "s3://models/gone"}, "s3://models/gone/config.json: there is no such object"),
        ({"model": "s3://gone/gone"}, "there is no such object"),
        ({"config": "/nowhere/config.json"}, "it cannot be read"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_made(
    plane: ControlPlane, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        deploy(**changes)
    assert words in str(caught.value)
    assert boto3.client("sagemaker", region_name=REGION).list_models()["Models"] == []


def test_an_endpoint_is_made_asked_and_removed(
    plane: ControlPlane, capsys: pytest.CaptureFixture[str]
) -> None:
    deploy()
    assert "next: ./inv deploy.invoke llama-8b" in capsys.readouterr().err
    deploy()  # again: all of it is there
    show_endpoint("llama-8b", REGION, as_json=True)
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {
        "name": "llama-8b",
        "status": "InService",
        "cause": None,
        "variants": [{"type": "ml.g4dn.12xlarge", "count": 1, "model": "llama-8b"}],
    }
    invoke_once("llama-8b", REGION, "Once", "5")
    captured = capsys.readouterr()
    assert captured.out
    assert "answered in" in captured.err
    with pytest.raises(UsageError, match="there is a model llama-8b already, and it is another"):
        deploy(server="vllm")
    with pytest.raises(UsageError, match="there is a configuration llama-8b already"):
        deploy(count="2")
    delete_endpoint("llama-8b", REGION, yes=True, price="7.09")
    told = capsys.readouterr().err
    assert "1 x ml.g4dn.12xlarge, 0.0 hours so far: $7.09 an hour, about $0.00" in told
    assert "looked again: nothing of llama-8b is left" in told
    client = boto3.client("sagemaker", region_name=REGION)
    assert client.list_models()["Models"] == client.list_endpoints()["Endpoints"] == []
    assert client.list_endpoint_configs()["EndpointConfigs"] == []
    delete_endpoint("llama-8b", REGION, yes=True, price="")
    assert "nothing of llama-8b is left" in capsys.readouterr().err


@pytest.mark.parametrize("call", ["CreateModel", "CreateEndpointConfig", "CreateEndpoint"])
def test_a_refusal_is_in_awss_words_and_the_next_run_goes_on(
    plane: ControlPlane, call: str
) -> None:
    words = "The account-level service limit 'ml.g4dn.12xlarge for endpoint usage' is 0 Instances"
    plane.refusals[call] = [("ResourceLimitExceeded", words)]
    with pytest.raises(SlipwayError, match=r"ml\.g4dn\.12xlarge for endpoint usage"):
        deploy()
    deploy()
    show_endpoint("llama-8b", REGION, as_json=False)


def test_an_endpoint_that_failed_is_told_with_its_reason(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from moto.sagemaker.models import sagemaker_backends

    deploy()
    endpoint: Any = sagemaker_backends["123456789012"][REGION].endpoints["llama-8b"]
    endpoint.endpoint_status = "Failed"
    endpoint.failure_reason = "The container did not pass the ping health check"
    capsys.readouterr()
    with pytest.raises(SlipwayError, match="the endpoint is Failed: The container did not pass"):
        deploy()
    with pytest.raises(SlipwayError, match="llama-8b is Failed"):
        invoke_once("llama-8b", REGION, "a", "1")
    capsys.readouterr()
    show_endpoint("llama-8b", REGION, as_json=False)
    assert "cause: The container did not pass" in capsys.readouterr().out


def test_a_name_that_is_not_there_is_told(plane: ControlPlane) -> None:
    with pytest.raises(UsageError, match="there is no endpoint 'gone'"):
        show_endpoint("gone", REGION, as_json=False)
