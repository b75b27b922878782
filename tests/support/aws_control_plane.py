"""AWS's control plane on loopback: moto, and before it the calls that moto lacks.

Each call that passes is checked against botocore's model of it first, so that a request which AWS
would refuse is refused here. The states of a training job are those that AWS documents
(docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeTrainingJob.html).
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from moto.moto_api._internal.models import moto_api_backend
from moto.sagemaker.models import FakeTrainingJob, sagemaker_backends
from moto.server import ThreadedMotoServer

from slipway.cluster.aws_model import request_faults

ACCOUNT = "123456789012"  # moto's own
REGION = "us-east-1"


def check_request(service: str, name: str, parameters: Mapping[str, Any]) -> list[str]:
    """All that AWS would refuse of a request, as far as botocore's model knows."""
    return [f"{fault.field} {fault.what}" for fault in request_faults(service, name, parameters)]


class ControlPlane:
    """One AWS. `calls` are the SageMaker calls that came, by name."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.url = ""

    def job(self, name: str) -> FakeTrainingJob:
        """moto's record of a training job."""
        made: FakeTrainingJob = sagemaker_backends[ACCOUNT][REGION].training_jobs[name]
        return made

    def play(self, name: str, status: str, step: str, **facts: Any) -> None:
        """Put a job into a state."""
        made = self.job(name)
        made.training_job_status, made.secondary_status = status, step
        for fact, value in facts.items():
            setattr(made, fact, value)

    def stop_training_job(self, name: str) -> tuple[int, dict[str, Any]]:
        """StopTrainingJob: the state is Stopping; what has ended is refused."""
        if self.job(name).training_job_status != "InProgress":
            text = "The request was rejected because the training job is in status Completed"
            return 400, {"__type": "ValidationException", "message": text}
        self.play(name, "Stopping", "Stopping")
        return 200, {}


@contextmanager
def control_plane() -> Iterator[ControlPlane]:
    """Serve one until the end of the block."""
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    moto_api_backend.reset()  # what it knows outlives its servers
    plane = ControlPlane()
    upstream = "{}:{}".format(*moto.get_host_and_port())
    door = ThreadingHTTPServer(("127.0.0.1", 0), _handler(plane, upstream))
    plane.url = f"http://127.0.0.1:{door.server_port}"
    thread = threading.Thread(target=door.serve_forever, daemon=True)
    thread.start()
    try:
        yield plane
    finally:
        door.shutdown()
        door.server_close()
        moto.stop()
        thread.join()


def _handler(plane: ControlPlane, upstream: str) -> type[BaseHTTPRequestHandler]:
    own: dict[str, Callable[[str], tuple[int, dict[str, Any]]]] = {
        "StopTrainingJob": plane.stop_training_job
    }

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            service, _, call = self.headers.get("X-Amz-Target", "").partition(".")
            if service == "SageMaker":
                plane.calls.append(call)
                wrong = check_request("sagemaker", call, json.loads(body))
                if wrong:
                    text = {"__type": "ValidationException", "message": "; ".join(wrong)}
                    self._send(400, [], json.dumps(text).encode())
                    return
                if call in own:
                    status, answer = own[call](json.loads(body)["TrainingJobName"])
                    self._send(status, [], json.dumps(answer).encode())
                    return
            behind = http.client.HTTPConnection(upstream)
            behind.request(self.command, self.path, body, dict(self.headers))
            response = behind.getresponse()
            self._send(response.status, response.getheaders(), response.read())
            behind.close()

        def _send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Nothing."""

    return Handler
