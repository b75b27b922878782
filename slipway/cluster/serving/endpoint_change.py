"""An endpoint at AWS: made, looked at, asked once, removed."""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from slipway.cluster import launcher_tables, option_values
from slipway.cluster.aws_account import AwsAccount
from slipway.cluster.aws_model import check_parameters
from slipway.cluster.serving.endpoint_documents import (
    SERVERS,
    EndpointDocuments,
    EndpointOptions,
    endpoint_name,
    make_endpoint_documents,
)
from slipway.cluster.serving.model_kind import ModelKind, parse_model_config, request_body
from slipway.core import (
    Project,
    SlipwayError,
    UsageError,
    human_seconds,
    print_json,
    printable,
    say,
)
from slipway.matrix import image_uri, read_matrix
from slipway.storage import ask_user

POLL_S = 20.0
PATIENCE_S = 2 * 3600.0
#: What Describe answers for a name that is not there (API reference, DescribeEndpoint).
_MISSING = ("ValidationException", "ResourceNotFound")


def deploy_model(
    root: Path, options: EndpointOptions, region: str, *, yes: bool, dry_run: bool
) -> None:
    """Print what would be made, ask, and make model, configuration and endpoint, each where it is
    not there. With `dry_run` print all documents as one JSON. Raises SlipwayError."""
    project = Project.at(root)
    account = AwsAccount(region)
    documents = _documents(project, options, account)
    if dry_run:
        print_json(documents.as_json())
        return
    (variant,) = documents.config["ProductionVariants"]
    nodes = f"{variant['InitialInstanceCount']} x {variant['InstanceType']}"
    say(f"{documents.name}: {nodes}, paid by the hour until `./inv deploy.delete {documents.name}`")
    say(f"image: {documents.model['PrimaryContainer']['Image']}")
    if not ask_user("make it?", yes=yes):
        raise UsageError("nothing was made")
    _make(account, documents)
    _wait(account, documents.name)
    say(f"{documents.name} is in service. next: ./inv deploy.invoke {documents.name}")


def show_endpoint(name: str, region: str, *, as_json: bool) -> None:
    """Print an endpoint: its state, why it failed, what it runs on. Raises SlipwayError."""
    account = AwsAccount(region)
    endpoint = _describe(account, name)
    variants = [
        {
            "type": variant.get("InstanceType", "serverless"),
            "count": variant.get("InitialInstanceCount", 1),
            "model": variant.get("ModelName", "of its inference components"),
        }
        for variant in _variants(account, endpoint)
    ]
    cause = printable(endpoint.get("FailureReason", ""))
    if as_json:
        state = {"name": name, "status": endpoint["EndpointStatus"], "cause": cause or None}
        print_json({**state, "variants": variants})
        return
    print(f"{name}: {endpoint['EndpointStatus']}")
    if cause:
        print(f"cause: {cause}")
    for variant in variants:
        print(f"{variant['count']} x {variant['type']}: {variant['model']}")
    print(f"logs: `aws logs tail /aws/sagemaker/Endpoints/{name} --region {region}`")


def invoke_once(name: str, region: str, prompt: str, tokens: str) -> None:
    """Send one prompt, print the answer's JSON, and say how long it took. Raises SlipwayError."""
    count = option_values.whole_number(tokens, "--tokens", 1, 100_000)
    account = AwsAccount(region)
    endpoint = _describe(account, name)
    if endpoint["EndpointStatus"] != "InService":
        raise SlipwayError(
            f"{name} is {endpoint['EndpointStatus']}: it answers once it is InService",
            cure=f"`./inv deploy.status {name}` says why.",
        )
    variant = _variants(account, endpoint)[0]
    if "ModelName" not in variant:
        raise UsageError(f"{name} has no model of its own: `./inv deploy.lmi` did not make it")
    model = account.call("sagemaker", "DescribeModel", ModelName=variant["ModelName"])
    environment = model.get("PrimaryContainer", {}).get("Environment", {})
    started = time.monotonic()
    answer = account.call(
        "sagemaker-runtime",
        "InvokeEndpoint",
        EndpointName=name,
        ContentType="application/json",
        Body=json.dumps(request_body(environment, prompt, count)),
    )
    body = account.read_body("sagemaker-runtime", "InvokeEndpoint", answer)
    text = body.decode("utf-8", "replace")
    print(printable(text))
    say(f"answered in {human_seconds(time.monotonic() - started)}")


def delete_endpoint(name: str, region: str, *, yes: bool, price: str) -> None:
    """List what is there and what it has cost, ask, remove it, and look again."""
    check_parameters("sagemaker", "DescribeEndpoint", EndpointName=name)
    dollars = _dollars(price)
    account = AwsAccount(region)
    there = {
        title: found
        for title, found in (
            ("endpoint", _find_endpoint(account, name)),
            ("configuration", _find_config(account, name)),
            ("model", _find_model(account, name)),
        )
        if found is not None
    }
    if not there:
        say(f"nothing of {name} is left in {region}")
        return
    say(f"there: {', '.join(there)}; the model's files in S3 stay")
    if "endpoint" in there:
        say(_cost(account, there["endpoint"], dollars))
    if not ask_user(f"remove {name}?", yes=yes):
        raise UsageError("nothing was removed")
    if "endpoint" in there:
        if there["endpoint"]["EndpointStatus"] != "Deleting":
            account.call("sagemaker", "DeleteEndpoint", EndpointName=name)
        started = time.monotonic()
        while _find_endpoint(account, name) is not None:
            if time.monotonic() - started > PATIENCE_S:
                raise SlipwayError(f"{name} is still there", cure="Run the same again.")
            time.sleep(POLL_S)
    if "configuration" in there:
        account.call("sagemaker", "DeleteEndpointConfig", EndpointConfigName=name)
    if "model" in there:
        account.call("sagemaker", "DeleteModel", ModelName=name)
    left = [_find_endpoint(account, name), _find_config(account, name), _find_model(account, name)]
    if any(left):
        raise SlipwayError(f"parts of {name} are still there", cure="Run the same again.")
    say(f"looked again: nothing of {name} is left in {region}")


def _documents(
    project: Project, options: EndpointOptions, account: AwsAccount
) -> EndpointDocuments:
    server = option_values.one_of_values(options.server, "--server", SERVERS)
    for option, value in (("--role", options.role), ("--instance", options.instance)):
        if not value:
            raise UsageError(f"{option} is missing", cure="`./inv --help deploy.lmi` explains.")
    endpoint_name(options)  # before S3 is asked
    instance, row = launcher_tables.find_instance_row(project.launcher, options.instance)
    if not row.gpus:
        raise UsageError(f"{instance} has no GPU, and the server's image needs one")
    reference = read_matrix(project).references[server]
    image = image_uri(reference.registry, account.region, reference.repository, reference.tag)
    kind = _model_kind(options, account)
    return make_endpoint_documents(options, kind, image.reference, instance, row.gpus)


def _model_kind(options: EndpointOptions, account: AwsAccount) -> ModelKind:
    """From the file here, or from the model's own in S3."""
    if options.config:
        path = Path(options.config)
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"it cannot be read: {error}", where=options.config) from error
        return parse_model_config(text, options.config)
    if options.model.endswith(".tar.gz"):
        raise UsageError(
            "what kind of model is in an archive cannot be seen from outside",
            where=options.model,
            cure="Give its config.json: --config FILE. Or leave the model unpacked below a prefix, "
            "which starts sooner, too.",
        )
    bucket, _, prefix = options.model.removeprefix("s3://").partition("/")
    key = f"{prefix.rstrip('/')}/config.json".removeprefix("/")
    uri = f"s3://{bucket}/{key}"
    answer = account.call("s3", "GetObject", ("NoSuchKey", "NoSuchBucket"), Bucket=bucket, Key=key)
    if answer is None:
        raise UsageError(
            "there is no such object, and it says what kind of model this is",
            where=uri,
            cure="Name the folder that `save_pretrained` has written, or give --config FILE.",
        )
    text = account.read_body("s3", "GetObject", answer).decode("utf-8", "replace")
    return parse_model_config(text, uri)


def _make(account: AwsAccount, documents: EndpointDocuments) -> None:
    """What is not there; a model or a configuration that is another one is refused."""
    name = documents.name
    model = _find_model(account, name)
    wanted = documents.model["PrimaryContainer"]
    if model is None:
        account.call("sagemaker", "CreateModel", **documents.model)
    elif any(model["PrimaryContainer"].get(key) != value for key, value in wanted.items()):
        raise _another("model", name)
    config = _find_config(account, name)
    (variant,) = documents.config["ProductionVariants"]
    if config is None:
        account.call("sagemaker", "CreateEndpointConfig", **documents.config)
    else:
        keys = ("InstanceType", "InitialInstanceCount")
        there = [[each.get(key) for key in keys] for each in config["ProductionVariants"]]
        if there != [[variant[key] for key in keys]]:
            raise _another("configuration", name)
    if _find_endpoint(account, name) is None:
        account.call("sagemaker", "CreateEndpoint", **documents.endpoint)


def _another(what: str, name: str) -> UsageError:
    return UsageError(
        f"there is a {what} {name} already, and it is another one",
        cure=f"Choose another --endpoint, or remove it: `./inv deploy.delete {name}`.",
    )


def _wait(account: AwsAccount, name: str) -> None:
    started = told = time.monotonic()
    while True:
        endpoint = _describe(account, name)
        status = endpoint["EndpointStatus"]
        if status == "InService":
            return
        if status in ("Failed", "Deleting", "OutOfService"):
            raise SlipwayError(
                f"the endpoint is {status}: {endpoint.get('FailureReason') or 'AWS says no more'}",
                where=name,
                cure=f"Its log is /aws/sagemaker/Endpoints/{name} in CloudWatch; `./inv "
                f"deploy.delete {name}` removes it.",
            )
        waited = time.monotonic() - started
        if waited > PATIENCE_S:
            raise SlipwayError(
                f"{name} is {status} after {human_seconds(waited)}",
                cure=f"`./inv deploy.status {name}` looks again.",
            )
        if time.monotonic() - told >= 60:
            say(f"{name}: {status}, {human_seconds(waited)}")
            told = time.monotonic()
        time.sleep(POLL_S)


def _dollars(price: str) -> Decimal | None:
    """Of --price; None where there is none."""
    try:
        dollars = Decimal(price) if price else None
    except InvalidOperation:
        dollars = Decimal(-1)
    if dollars is not None and not (dollars.is_finite() and dollars >= 0):
        raise UsageError(f"--price {price!r}: dollars an hour, e.g. 7.09")
    return dollars


def _cost(account: AwsAccount, endpoint: Any, price: Decimal | None) -> str:
    """Instance hours so far, and dollars where the price of one hour is given."""
    hours = (datetime.now(timezone.utc) - endpoint["CreationTime"]).total_seconds() / 3600
    words = []
    for variant in _variants(account, endpoint):
        count = variant.get("InitialInstanceCount", 1)
        if "InstanceType" not in variant:
            words.append("without instances: paid by the request")
            continue
        text = f"{count} x {variant['InstanceType']}, {hours:.1f} hours so far"
        if price is not None:
            dollars = price * count
            text += f": ${dollars} an hour, about ${dollars * Decimal(f'{hours:.2f}'):.2f}"
        words.append(text)
    return "; ".join(words)


def _describe(account: AwsAccount, name: str) -> Any:
    check_parameters("sagemaker", "DescribeEndpoint", EndpointName=name)
    endpoint = _find_endpoint(account, name)
    if endpoint is None:
        raise UsageError(
            f"there is no endpoint {name!r} in {account.region}",
            cure=f"`aws sagemaker list-endpoints --region {account.region}` lists those there are.",
        )
    return endpoint


def _variants(account: AwsAccount, endpoint: Any) -> Any:
    name = endpoint["EndpointConfigName"]
    config = account.call("sagemaker", "DescribeEndpointConfig", EndpointConfigName=name)
    return config["ProductionVariants"]


def _find_endpoint(account: AwsAccount, name: str) -> Any:
    return account.call("sagemaker", "DescribeEndpoint", _MISSING, EndpointName=name)


def _find_config(account: AwsAccount, name: str) -> Any:
    return account.call("sagemaker", "DescribeEndpointConfig", _MISSING, EndpointConfigName=name)


def _find_model(account: AwsAccount, name: str) -> Any:
    return account.call("sagemaker", "DescribeModel", _MISSING, ModelName=name)
