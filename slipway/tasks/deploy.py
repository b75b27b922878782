"""`inv deploy`: an endpoint on SageMaker for a model in S3."""

from __future__ import annotations

from invoke.collection import Collection
from invoke.context import Context

from slipway import cluster, pipeline
from slipway.tasks.commands import JSON, ROOT, task_command

REGION = {"region": "AWS region of the endpoint (default: slipway.region)"}
ENDPOINT = {"endpoint": "its name"}
YES = {"yes": "agree in advance"}


@task_command(
    repeatable=("option",),
    help={
        **REGION,
        **YES,
        "model": "S3 URI of a Hugging Face model's folder, or of a .tar.gz",
        "role": "ARN of the IAM role that the endpoint has",
        "instance": "type, e.g. ml.g5.12xlarge",
        "count": "how many instances",
        "endpoint": "its name (default: the last part of the URI)",
        "server": "lmi (AWS's Large Model Inference) or vllm",
        "option": "the server's own, e.g. max_model_len=8192; repeatable",
        "config": "the model's config.json here (default: read from S3)",
        "dry_run": "print all documents as JSON, make nothing",
    },
)
def deploy_lmi(
    c: Context,
    model: str,
    region: str = "",
    role: str = "",
    instance: str = "",
    count: str = "1",
    endpoint: str = "",
    server: str = "lmi",
    option: list[str] = [],  # noqa: B006 - the flag's name; invoke's own empty list
    config: str = "",
    yes: bool = False,
    dry_run: bool = False,
) -> None:
    """Serve a model: model, endpoint configuration and endpoint, and wait until it answers."""
    options = cluster.EndpointOptions(
        model=model,
        role=role,
        instance=instance,
        count=count,
        name=endpoint,
        server=server,
        options=tuple(option),
        config=config,
    )
    where = pipeline.Settings.of(c.config, region=region).required_region
    cluster.deploy_model(ROOT, options, where, yes=yes, dry_run=dry_run)


@task_command(help={**ENDPOINT, **REGION, **JSON})
def deploy_status(c: Context, endpoint: str, region: str = "", json: bool = False) -> None:
    """How an endpoint is: why it failed, what it runs on."""
    where = pipeline.Settings.of(c.config, region=region).required_region
    cluster.show_endpoint(endpoint, where, as_json=json)


@task_command(help={**ENDPOINT, **REGION, "prompt": "the text", "tokens": "how many at most"})
def deploy_invoke(
    c: Context,
    endpoint: str,
    region: str = "",
    prompt: str = "Once upon a time",
    tokens: str = "32",
) -> None:
    """Send one prompt, print the answer."""
    where = pipeline.Settings.of(c.config, region=region).required_region
    cluster.invoke_once(endpoint, where, prompt, tokens)


@task_command(
    help={**ENDPOINT, **REGION, **YES, "price": "dollars an hour of one instance, to say the cost"}
)
def deploy_delete(
    c: Context, endpoint: str, region: str = "", yes: bool = False, price: str = ""
) -> None:
    """Remove an endpoint, its configuration and its model; then look again."""
    where = pipeline.Settings.of(c.config, region=region).required_region
    cluster.delete_endpoint(endpoint, where, yes=yes, price=price)


ns = Collection(
    "deploy", lmi=deploy_lmi, status=deploy_status, invoke=deploy_invoke, delete=deploy_delete
)
