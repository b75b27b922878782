"""The distribution client against a real registry, plain and behind doors that break on demand."""

from __future__ import annotations

import io
import json
import ssl
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from slipway.core import anonymous
from slipway.registry import (
    ImageMissingError,
    Manifest,
    NoCredentialsError,
    RegistryClient,
    RegistryError,
    RegistryUnavailableError,
    RepositoryMissingError,
    ThrottledError,
    credentials_for,
    digest_of,
    prepare_repository,
)
from slipway.registry.distribution.blob_upload import PIECE, piece_size, upload_blob
from slipway.registry.errors import ManifestError
from slipway.registry.manifests import OCI_INDEX, OCI_MANIFEST
from tests.support.registry.ecr_front_door import Door, public_registry
from tests.support.registry.images import QUICK, layer_tar, put_blob, put_oci_image, unique

pytest_plugins = ["tests.support.registry.fixtures"]


@pytest.fixture
def repository() -> str:
    return unique()


@pytest.fixture
def client(door: Door, repository: str) -> Iterator[RegistryClient]:
    """A client of the ECR, with a repository there."""
    prepare_repository(door.target, repository)
    with RegistryClient(door.host, credentials_for([door.target]), policy=QUICK) as opened:
        yield opened


def test_a_manifest_comes_back_byte_for_byte(plain: RegistryClient, repository: str) -> None:
    put = put_oci_image(plain, repository, "v1")
    for reference in ("v1", put.digest):
        assert plain.manifest(repository, reference) == put
        assert plain.head(repository, reference) == put.digest
    assert plain.config(repository, put)["config"]["Labels"] == {"seed": "oci"}


def test_an_index_is_followed_to_the_platform_past_its_attestations(
    plain: RegistryClient, repository: str
) -> None:
    image = put_oci_image(plain, repository, "amd64")
    other = put_oci_image(plain, repository, "other", seed="other")
    entries = [("unknown", "unknown", other), ("linux", "arm64", other), ("linux", "amd64", image)]
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [
                {
                    "mediaType": OCI_MANIFEST,
                    "digest": manifest.digest,
                    "size": len(manifest.raw),
                    "platform": {"os": os, "architecture": architecture},
                }
                for os, architecture, manifest in entries
            ],
        }
    ).encode()
    index = Manifest(OCI_INDEX, digest_of(raw), raw)
    plain.put_manifest(repository, "all", index)
    assert plain.image(repository, "all") == image
    with pytest.raises(ManifestError, match=r"no image for linux/s390x, only .*linux/amd64"):
        plain.image(repository, "all", architecture="s390x")


def test_what_is_missing_is_none_for_head_and_an_error_for_get(
    client: RegistryClient, repository: str
) -> None:
    assert client.head(repository, "v1") is None
    with pytest.raises(ImageMissingError):
        client.manifest(repository, "v1")
    with pytest.raises(RepositoryMissingError, match="no/such"):
        client.manifest("no/such", "v1")


def test_anyone_may_pull_with_a_bearer_token_and_a_new_one_when_it_ends(
    plain: RegistryClient, public: Door, repository: str
) -> None:
    put = put_oci_image(plain, repository, "v1")
    with RegistryClient(public.host, anonymous, policy=QUICK) as client:
        assert client.manifest(repository, "v1") == put
        assert client.head(repository, "v1") == put.digest
        assert public.issued == 1
        public.expire()
        assert client.manifest(repository, "v1") == put
        assert public.issued == 2
        with pytest.raises(NoCredentialsError, match="asks for a login"):
            client.put_manifest(repository, "v2", put)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_expired_login_is_renewed_once_and_unseen(
    client: RegistryClient, door: Door, repository: str, method: str
) -> None:
    put = put_oci_image(client, repository, "v1")
    door.fault(method, "/manifests/v1", "expire")
    before = door.issued
    assert client.head(repository, "v1") == put.digest
    assert client.manifest(repository, "v1") == put
    assert door.issued == before + 1


@pytest.mark.parametrize(
    "fault",
    [
        {"action": "status", "status": 503},
        {"action": "status", "status": 429, "code": "TOOMANYREQUESTS", "retry_after": "0"},
        {"action": "reset"},
        {"action": "reset", "after_bytes": 10},
    ],
)
def test_a_question_survives_a_registry_that_is_busy_or_broken_three_times(
    client: RegistryClient, door: Door, repository: str, fault: dict[str, object]
) -> None:
    put = put_oci_image(client, repository, "v1")
    rule = door.fault("GET", "/manifests/v1", count=3, **fault)
    assert client.manifest(repository, "v1") == put
    assert rule.met == 3


def test_throttling_without_end_is_told_as_that(
    client: RegistryClient, door: Door, repository: str
) -> None:
    rule = door.fault("GET", "/manifests/", "status", count=99, status=429, code="TOOMANYREQUESTS")
    with pytest.raises(ThrottledError, match="too many requests"):
        client.manifest(repository, "v1")
    assert rule.met == QUICK.attempts


def test_a_host_that_was_found_down_is_asked_only_once_afterwards(door: Door) -> None:
    rule = door.fault("GET", ".*", "reset", count=99)
    with RegistryClient(door.host, anonymous, policy=QUICK) as client:
        with pytest.raises(RegistryUnavailableError):
            client.manifest("a", "1")
        assert rule.met == QUICK.attempts
        with pytest.raises(RegistryUnavailableError):
            client.manifest("b", "1")
        assert rule.met == QUICK.attempts + 1


def test_a_manifest_that_is_not_what_its_digest_says_is_refused(
    client: RegistryClient, door: Door, repository: str
) -> None:
    put = put_oci_image(client, repository, "v1")
    door.fault("GET", "/manifests/", "corrupt")
    with pytest.raises(ManifestError, match="digest"):
        client.manifest(repository, put.digest)


def test_a_blob_that_is_not_what_its_digest_says_is_refused(
    client: RegistryClient, door: Door, repository: str
) -> None:
    config = put_oci_image(client, repository, "v1").json()["config"]["digest"]
    door.fault("GET", "/blobs/", "corrupt")
    with pytest.raises(ManifestError, match="digest"):
        client.blob(repository, config)


def test_a_download_goes_on_where_it_was_cut(
    client: RegistryClient, door: Door, repository: str
) -> None:
    data = layer_tar("download", 1_000_000)
    digest = str(put_blob(client, repository, data)["digest"])
    door.faults.clear()
    rule = door.fault("GET", "/blobs/", "reset", count=2, after_bytes=400_000)
    assert b"".join(client.blob_stream(repository, digest)) == data
    assert rule.met == 2


def test_an_upload_goes_on_with_the_piece_that_was_cut_off(
    client: RegistryClient, door: Door, repository: str
) -> None:
    data = layer_tar("upload", 2 * PIECE + 1000)
    digest, piece = digest_of(data), piece_size(2 * PIECE, client.host)
    pieces: list[int] = []

    def heard(offset: int) -> None:
        if not pieces:  # of the second piece nothing arrives
            door.fault("PATCH", "/uploads/", "reset")
        pieces.append(offset)

    assert upload_blob(client, repository, digest, io.BytesIO(data), len(data), on_bytes=heard)
    assert pieces == [piece, *range(piece, len(data), piece), len(data)]
    assert door.faults.uploaded() == len(data)
    assert client.has_blob(repository, digest)


def test_an_upload_survives_a_piece_that_arrived_in_part(
    client: RegistryClient, door: Door, repository: str
) -> None:
    data = layer_tar("part", PIECE + 1000)
    piece = piece_size(len(data), client.host)
    rule = door.fault("PATCH", "/uploads/", "reset", after_bytes=piece // 2)
    upload_blob(client, repository, digest_of(data), io.BytesIO(data), len(data))
    assert rule.met == 1
    assert door.faults.uploaded() <= len(data) + 2 * piece  # it, and the one that tells the offset
    assert b"".join(client.blob_stream(repository, digest_of(data))) == data


@pytest.mark.parametrize(("verb", "size"), [("PUT", 2000), ("PATCH", PIECE)])
def test_an_upload_that_was_damaged_on_the_way_is_sent_once_again(
    client: RegistryClient, door: Door, repository: str, verb: str, size: int
) -> None:
    data = layer_tar("damaged", size)
    door.fault(verb, "/uploads/", "corrupt")
    upload_blob(client, repository, digest_of(data), io.BytesIO(data), len(data))
    assert b"".join(client.blob_stream(repository, digest_of(data))) == data
    assert door.faults.uploaded() == 2 * len(data)


def test_a_blob_that_is_there_is_not_sent_again(
    client: RegistryClient, door: Door, repository: str
) -> None:
    data = layer_tar("again")
    assert upload_blob(client, repository, digest_of(data), io.BytesIO(data), len(data))
    assert not upload_blob(client, repository, digest_of(data), io.BytesIO(data), len(data))
    assert door.faults.uploaded() == len(data)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_no_proxy_is_asked_for_a_registry_on_loopback(
    data_registry: str, repository: str, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    with RegistryClient(data_registry, anonymous, policy=QUICK) as client:
        assert client.head(repository, "v1") is None


@pytest.fixture
def authority(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate authority of one certificate, for "localhost", that nobody trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a proxy's own authority")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    bundle, secret = tmp_path / "ca.pem", tmp_path / "key.pem"
    bundle.write_bytes(certificate.public_bytes(Encoding.PEM))
    secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(bundle, secret)
    return bundle, context


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", None])
def test_a_certificate_is_trusted_where_the_environment_names_its_authority(
    plain: RegistryClient,
    repository: str,
    authority: tuple[Path, ssl.SSLContext],
    monkeypatch: pytest.MonkeyPatch,
    variable: str | None,
) -> None:
    put = put_oci_image(plain, repository, "v1")
    bundle, context = authority
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, str(bundle))
    with public_registry(plain.host, context) as door:
        host = door.host.replace("127.0.0.1", "localhost")
        door.host = host
        with RegistryClient(host, anonymous, insecure=False, policy=QUICK) as client:
            if variable:
                assert client.manifest(repository, "v1") == put
            else:
                with pytest.raises(RegistryError, match="certificate is not trusted") as failed:
                    client.manifest(repository, "v1")
                assert "REQUESTS_CA_BUNDLE" in str(failed.value)
