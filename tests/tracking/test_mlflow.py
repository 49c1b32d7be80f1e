"""The tracker mlflow: against a real server, and against ones that misbehave."""

from __future__ import annotations

import base64
import datetime as dt
import email.utils
import ipaddress
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import ValidationError

from fl_core.tracking import mlflow, mlflow_api
from fl_core.tracking.contract import RESUMED, Outcome, Part, Point, Refused, Status, Unavailable
from fl_core.tracking.mlflow import MLflow
from tests.tracking.mlflow_server import Answer, Call, Server, forward, front, needed, server

ARN = "arn:aws:sagemaker:eu-central-1:123456789012:mlflow-tracking-server/trial"
PASSWORD, TOKEN = "not-for-logs", "token-not-for-logs"
BEGUN = 1_700_000_000.0
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("mlflow")) as started:
        yield started


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of this machine's own settings and credentials."""
    for name in [n for n in os.environ if n.startswith(("AWS_", "MLFLOW_", "SAGEMAKER_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """Names experiments that no other test has."""
    return f"t{abs(hash(request.node.name)):x}"


def tracker(url: str, prefix: str = "fl") -> MLflow:
    return MLflow(MLflow.Params(url=url, prefix=prefix))


def part(silo: str | None = "north", **changes: Any) -> Part:
    parameters = {"learning-rate": 0.001, "model": "mlp", "center": str(silo), "shuffle": True}
    given = Part("trial-1", silo, "ab" * 32, BEGUN, parameters)
    return replace(given, **changes)


def points(rounds: range, *names: str) -> list[Point]:
    return [
        Point(BEGUN + number / 4, number, name, number / 100)
        for number in rounds
        for name in names or ("Test:AUC", "Training:Loss")
    ]


def outcome(status: Status = Status.COMPLETED, message: str = "") -> Outcome:
    return Outcome(status, message, BEGUN + 60.5)


def steps(run: dict[str, Any]) -> dict[str, list[int]]:
    return {name: [point[0] for point in history] for name, history in run["metrics"].items()}


def refusal(url: str, prefix: str = "fl") -> Refused:
    with pytest.raises(Refused) as caught:
        tracker(url, prefix).check([None, "north"])
    assert caught.value.remedy
    return caught.value


def unavailable(url: str) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        tracker(url).start(part())
    assert caught.value.remedy
    return caught.value


# --- a real server ---


@needed
def test_mlflow_s_own_client_reads_the_whole_run(service, prefix, tmp_path):
    big = os.urandom(3 * 1024 * 1024 + 1)
    (tmp_path / "the report.html").write_bytes(big)
    one = tracker(service.url, prefix)
    one.check([None, "north"])
    assert service.ask("runs", f"{prefix}-client-north") == []
    handle = json.loads(json.dumps(one.start(part())))
    assert service.only_run(f"{prefix}-client-north")["status"] == "RUNNING"
    for rounds in (range(1, 11), range(11, 21)):
        one.log(handle, points(rounds), again=False)
    kept = one.artifact(handle, tmp_path / "the report.html")
    late = {**part().parameters, "Test:AUC undefined": "one class", "learning-rate": 7}
    one.end(handle, outcome(), late, {"the report.html": kept})

    run = service.only_run(f"{prefix}-client-north")
    assert run["parameters"] == {
        "learning-rate": "0.001",
        "model": "mlp",
        "center": "north",
        "shuffle": "True",
        "Test:AUC undefined": "one class",
    }
    assert run["metrics"] == {
        name: [[n, n / 100, round((BEGUN + n / 4) * 1000)] for n in range(1, 21)]
        for name in ("Test:AUC", "Training:Loss")
    }
    assert (run["name"], run["status"]) == ("trial-1", "FINISHED")
    assert (run["start"], run["end"]) == (BEGUN * 1000, (BEGUN + 60.5) * 1000)
    tags = {name: value for name, value in run["tags"].items() if name.startswith("fl.")}
    assert tags == {
        "fl.run": "trial-1",
        "fl.role": "silo",
        "fl.silo": "north",
        "fl.spec_sha256": "ab" * 32,
    }
    assert base64.b64decode(run["files"]["the report.html"]) == big
    assert kept == f"mlflow-artifacts:/{handle['artifacts'].partition(':/')[2]}/the%20report.html"


@needed
def test_a_run_of_20_rounds_takes_at_most_14_calls(service, prefix):
    with front(forward(service.url)) as between:
        one = tracker(between.url, prefix)
        handle = one.start(part())
        whole = points(range(1, 21), "Training:Loss", "Validation:AUC", "Test:AUC")
        one.log(handle, whole[: one.batch_points], again=True)
        one.end(handle, outcome(), part().parameters, {})
    assert between.paths() == [
        "experiments/get-by-name",
        "experiments/create",
        "runs/search",
        "runs/create",
        "runs/log-batch",
        *["metrics/get-history"] * 3,
        "runs/log-batch",
        "runs/get",
        "runs/update",
    ]


@needed
@pytest.mark.parametrize(
    "lost", ["experiments/create", "runs/create", "runs/log-batch", "runs/update"]
)
def test_a_lost_answer_leaves_everything_once(service, prefix, lost):
    prefix += lost.replace("/", "-")
    through = forward(service.url)
    with front(through) as between:
        one = tracker(between.url, prefix)

        def losing(call: Call) -> Answer | None:
            answer = through(call)
            if lost not in call.path:
                return answer
            between.behave = through
            return None

        def insist(what: Any, *arguments: Any) -> Any:
            between.behave = losing
            try:
                return what(*arguments)
            except Unavailable:
                return what(*arguments)

        handle = insist(one.start, part())
        insist(one.log, handle, points(range(1, 9)), True)
        insist(one.log, handle, points(range(5, 13)), True)
        insist(one.end, handle, outcome(Status.FAILED, "no memory"), {"late": 1}, {})
    run = service.only_run(f"{prefix}-client-north")
    assert steps(run) == {name: list(range(1, 13)) for name in ("Test:AUC", "Training:Loss")}
    assert run["parameters"] == {
        name: str(value) for name, value in {**part().parameters, "late": 1}.items()
    }
    assert (run["status"], run["tags"]["fl.message"]) == ("FAILED", "no memory")


@needed
def test_a_role_that_starts_again_goes_on_in_its_run(service, prefix, monkeypatch):
    monkeypatch.setattr(mlflow, "PAGE_METRICS", 2)
    experiment = f"{prefix}-aggregator"
    one = tracker(service.url, prefix)
    handle = one.start(part(None))
    one.log(handle, points(range(1, 4)), again=False)
    one.end(handle, outcome(Status.STOPPED, "killed by a signal"), {}, {})
    assert service.only_run(experiment)["status"] == "KILLED"

    other = tracker(service.url, prefix)
    changed = part(None, started=BEGUN + 100, parameters={"model": "xgboost", "device": "cuda"})
    again = other.start(changed)
    assert again == {**handle, RESUMED: "yes"}
    assert service.only_run(experiment)["status"] == "RUNNING"
    repeated = [replace(point, time=point.time + 100, value=0.9) for point in points(range(1, 7))]
    other.log(again, repeated, again=True)
    other.end(again, outcome(), changed.parameters, {})
    run = service.only_run(experiment)
    assert (run["status"], run["tags"]["fl.message"]) == ("FINISHED", "")
    assert (run["parameters"]["model"], run["parameters"]["device"]) == ("mlp", "cuda")
    values = {name: [point[1] for point in found] for name, found in run["metrics"].items()}
    kept = [0.01, 0.02, 0.03, 0.9, 0.9, 0.9]
    assert values == {"Test:AUC": kept, "Training:Loss": kept}
    assert other.start(part(None, run="trial-2")) != handle


@needed
def test_parts_that_start_at_once_share_one_experiment(service, prefix):
    """As five jobs of one silo do."""
    ready = threading.Barrier(5)

    def start(number: int) -> str:
        ready.wait()
        one = tracker(service.url, prefix)
        while True:
            try:
                return one.start(part(run=f"trial-{number}"))["run"]
            except Unavailable:  # its database was locked
                continue

    with ThreadPoolExecutor(5) as pool:
        started = list(pool.map(start, range(5)))
    runs = service.ask("runs", f"{prefix}-client-north")
    assert sorted(run["id"] for run in runs) == sorted(started)
    assert {run["name"] for run in runs} == {f"trial-{number}" for number in range(5)}


@needed
def test_threads_share_one_instance(service, prefix):
    one = tracker(service.url, prefix)

    def deliver(silo: str) -> None:
        handle = one.start(part(silo))
        one.log(handle, points(range(1, 4)), again=True)
        one.end(handle, outcome(), {}, {})

    silos = [f"site-{number}" for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(deliver, silos))
    for silo in silos:
        assert steps(service.only_run(f"{prefix}-client-{silo}"))["Test:AUC"] == [1, 2, 3]


@needed
def test_what_is_too_much_for_one_call_or_value_still_arrives(service, prefix):
    many = {f"p-{number}": number for number in range(230)}
    one = tracker(service.url, prefix)
    handle = one.start(part(parameters={**many, "long": "x" * 7000}))
    one.end(handle, outcome(Status.FAILED, "y" * 9000), {**many, "later": ""}, {})
    run = service.only_run(f"{prefix}-client-north")
    assert len(run["parameters"]) == 232
    assert len(run["parameters"]["long"]) == 6000
    assert run["parameters"]["long"].startswith("xxx")
    assert len(run["tags"]["fl.message"]) == 5000


@needed
def test_a_deleted_experiment_is_told_before_training(service, prefix):
    one = tracker(service.url, prefix)
    handle = one.start(part())
    service.ask("delete", f"{prefix}-client-north")
    error = refusal(service.url, prefix)
    assert error.message.endswith(f"the experiment '{prefix}-client-north' was deleted")
    assert "mlflow experiments restore" in error.remedy
    with pytest.raises(Refused, match="was deleted"):
        one.start(part())
    with pytest.raises(Refused, match="active"):
        one.log(handle, points(range(1, 2)), again=False)


@needed
def test_a_run_deleted_there_is_made_anew(service, prefix):
    one = tracker(service.url, prefix)
    gone = one.start(part())
    service.ask("delete_run", gone["run"])
    with pytest.raises(Refused):
        one.log(gone, points(range(1, 2)), again=False)
    assert one.start(part())["run"] != gone["run"]


@needed
def test_mlflow_s_own_words_are_told(service, prefix):
    one = tracker(service.url, prefix)
    with pytest.raises(Refused) as caught:
        one.start(part(parameters={"wrong;name": 1}))
    assert "wrong;name" in caught.value.message
    assert "400" in caught.value.message


@needed
def test_a_file_that_cannot_be_read_is_told(service, prefix, tmp_path):
    one = tracker(service.url, prefix)
    handle = one.start(part())
    with pytest.raises(Refused, match="No such file"):
        one.artifact(handle, tmp_path / "absent")


@needed
@pytest.mark.parametrize("way", ["token", "user"])
def test_credentials_of_the_environment_are_sent_and_never_told(
    service, prefix, way, monkeypatch, caplog
):
    expected = f"Bearer {TOKEN}"
    if way == "user":
        expected = "Basic " + base64.b64encode(f"mia:{PASSWORD}".encode()).decode()
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "mia")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    through = forward(service.url)

    def guarded(call: Call) -> Answer:
        given = call.headers.get("authorization", "")
        # Some servers repeat what they were sent.
        return through(call) if given == expected else Answer(401, f"not {given}".encode())

    caplog.set_level("DEBUG")
    with front(guarded) as between:
        handle = tracker(between.url, prefix).start(part())
        assert handle["run"]
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", f"other-{TOKEN}")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", f"other-{PASSWORD}" if way == "user" else "")
        error = refusal(between.url, prefix)
    assert " answers 401: not " in error.message
    assert "MLFLOW_TRACKING_TOKEN" in error.remedy
    told = error.message + error.remedy + caplog.text
    assert "not-for-logs" not in told
    assert base64.b64encode(f"mia:other-{PASSWORD}".encode()).decode() not in told


# --- a managed MLflow ---


@pytest.mark.parametrize(
    ("arn", "service_name", "header"),
    [
        (ARN, "sagemaker-mlflow", "x-mlflow-sm-tracking-server-arn"),
        (
            ARN.replace("tracking-server/", "app/"),
            "sagemaker",
            "x-sm-mlflow-app-arn",
        ),
    ],
)
def test_what_goes_to_a_managed_one_is_signed(arn, service_name, header, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "session")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    (tmp_path / "a b.bin").write_bytes(b"0123456789" * 100_000)

    def managed(call: Call) -> Answer:
        if "get-by-name" in call.path:
            return Answer(200, b'{"experiment": {"experiment_id": "7"}}')
        if "runs/search" in call.path:
            info = {"run_id": "r", "status": "RUNNING", "artifact_uri": "mlflow-artifacts:/7/r"}
            return Answer(200, json.dumps({"runs": [{"info": info}]}).encode())
        return Answer(200, b"{}")

    with front(managed) as between:
        monkeypatch.setenv("SAGEMAKER_MLFLOW_CUSTOM_ENDPOINT", between.url)
        one = tracker(arn, "a-b")
        handle = one.start(part())
        one.log(handle, points(range(1, 3)), again=True)
        one.artifact(handle, tmp_path / "a b.bin")
    assert {call.method for call in between.calls} == {"GET", "POST", "PUT"}
    for call in between.calls:
        assert call.headers[header] == arn
        assert call.headers["x-amz-security-token"] == "session"
        scope, signed, given = call.headers["authorization"].split(", ")
        _, day, region, name, _ = scope.split("/")
        assert (region, name) == ("eu-central-1", service_name)
        names = signed.removeprefix("SignedHeaders=").split(";")
        assert {"host", header, "x-amz-date", "x-amz-content-sha256"} <= set(names)
        assert given == f"Signature={signature(call, between.url, names, day, name)}"


def signature(call: Call, url: str, names: list[str], day: str, service: str) -> str:
    """What AWS computes from the request that arrived."""
    signer = SigV4Auth(Credentials("AKIDEXAMPLE", "secret", "session"), service, "eu-central-1")
    headers = {name: call.headers[name] for name in names}
    request = AWSRequest(call.method, f"{url}{call.path}", headers, call.body)
    request.context["timestamp"] = call.headers["x-amz-date"]
    assert call.headers["x-amz-date"].startswith(day)
    given = call.headers["x-amz-content-sha256"]
    del request.headers["x-amz-content-sha256"]
    assert signer.payload(request) == given
    request.headers["x-amz-content-sha256"] = given
    text = signer.string_to_sign(request, signer.canonical_request(request))
    return str(signer.signature(text, request))


def test_a_managed_one_is_where_aws_has_it():
    assert tracker(ARN)._api.base == "https://eu-central-1.experiments.sagemaker.aws"
    app = tracker(ARN.replace("tracking-server/", "app/"))
    assert app._api.base == "https://mlflow.sagemaker.eu-central-1.app.aws"


def test_without_aws_credentials_the_remedy_is_told():
    error = refusal(ARN)
    assert error.message == "there are no AWS credentials"
    assert "AWS_PROFILE" in error.remedy


def test_an_aws_denial_repeats_no_session_token(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "session-not-for-logs")
    denial = b'{"message": "signed x-amz-security-token:session-not-for-logs"}'
    with front(lambda _: Answer(403, denial)) as between:
        monkeypatch.setenv("SAGEMAKER_MLFLOW_CUSTOM_ENDPOINT", between.url)
        error = refusal(ARN)
    assert "answers 403" in error.message
    assert "not-for-logs" not in error.message
    assert error.remedy.endswith(f"sagemaker-mlflow:* on {ARN}")


# --- servers that misbehave ---


def test_a_hanging_server_is_left_soon(monkeypatch):
    monkeypatch.setattr(mlflow_api, "READ_SECONDS", 0.3)
    over = threading.Event()

    def hang(_: Call) -> None:
        over.wait(30)

    with front(hang) as between:
        begun = time.monotonic()
        error = unavailable(between.url)
        seconds = time.monotonic() - begun
        over.set()
    assert error.message == f"{between.url} does not answer in time"
    assert seconds < 3
    assert len(between.calls) == 1


def test_an_answer_that_drips_is_left(monkeypatch):
    monkeypatch.setattr(mlflow_api, "ANSWER_SECONDS", 0.3)
    with raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"{", 0.05) as url:
        assert "an answer took over 0.3 s" in unavailable(url).message


def test_an_endless_answer_is_cut_off(monkeypatch):
    monkeypatch.setattr(mlflow_api, "MAX_ANSWER_BYTES", 200_000)
    chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    with raw_server(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunk, 0) as url:
        assert "more than 200000 bytes" in refusal(url).message


class raw_server:
    """Answers one request with ``head``, and then ``more`` without end."""

    def __init__(self, head: bytes, more: bytes, pause: float) -> None:
        self._said = (head, more, pause)
        self._over = threading.Event()

    def __enter__(self) -> str:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._listening.close()

    def _serve(self) -> None:
        head, more, pause = self._said
        peer, _ = self._listening.accept()
        with peer:
            peer.settimeout(10)
            peer.recv(65536)
            try:
                peer.sendall(head)
                while not self._over.wait(pause):
                    peer.sendall(more)
            except OSError:  # who asked is gone
                pass


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [("7", 7, 7), ("", 0, 0), ("soon", 0, 0), ("999999999", 300, 300), (None, 20, 40)],
)
@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_says_for_how_long(status, header, least, most):
    if header is None:
        header = email.utils.formatdate(time.time() + 30, usegmt=True)
    with front(lambda _: Answer(status, b"", {"Retry-After": header})) as between:
        error = unavailable(between.url)
    assert f"answers {status}" in error.message
    assert least <= error.after <= most


def test_a_redirect_is_not_followed(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    with front(lambda _: Answer(200, b"{}")) as other:
        where = {"Location": f"{other.url}/login?state=1"}
        with front(lambda _: Answer(302, b"", where)) as between:
            error = refusal(between.url)
    assert "sends on to 'http://127.0.0.1'" in error.message
    assert other.calls == []


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer(404, b"<html>"), "is no MLflow: it answers 404"),
        (Answer(200, b"<html>"), "is no MLflow: it answers something else"),
        (Answer(200, b"{}", JSON), "is no MLflow: it answers something else"),
        (Answer(200, b"\xff\xfe"), "is no MLflow: it answers something else"),
        (Answer(403, b"<html>a page</html>"), "answers 403"),
        (Answer(403, b"Invalid Host header"), "answers 403: Invalid Host header"),
        (
            Answer(400, b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "no"}', JSON),
            "answers 400: no",
        ),
    ],
)
def test_what_is_no_mlflow_or_refuses_is_told(answer, told):
    with front(lambda _: answer) as between:
        error = refusal(between.url)
    assert error.message.startswith(f"{between.url} ")
    assert told in error.message
    assert "page" not in error.message


@pytest.mark.parametrize(
    ("version", "taken"),
    [
        (Answer(200, b"2.15.1"), False),
        (Answer(200, b"3.4.0"), True),
        (Answer(200, b"<html>"), True),
        (Answer(403), True),
    ],
)
def test_a_version_that_takes_no_colon_is_told_before_training(version, taken):
    absent = b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "none"}'

    def old(call: Call) -> Answer:
        return version if call.path == "/version" else Answer(404, absent)

    with front(old) as between:
        if taken:
            tracker(between.url).check([None, "north"])
        else:
            assert "is MLflow 2.15, which" in refusal(between.url).message


def test_a_server_that_is_not_there_may_come():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert unavailable(url).message == f"{url} takes no connection: Connection refused"


@pytest.fixture
def no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """No host is known, and nobody is asked for one."""

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)


@pytest.mark.usefixtures("no_names")
def test_a_host_that_is_not_known_may_be_later():
    error = unavailable("https://mlflow.example")
    assert error.message == "https://mlflow.example has a host that is not known here"


# --- TLS and credentials ---


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate of 127.0.0.1, signed by itself."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "trial")])
    now = dt.datetime.now(dt.UTC)
    loopback = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(loopback, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(key.private_bytes(pem, *plain))
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    return folder


def test_tls_is_verified_with_the_authority_that_is_named(certificate, monkeypatch):
    absent = b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "none"}'
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    with front(lambda _: Answer(404, absent), context=context) as between:
        error = refusal(between.url)
        assert "its certificate is not trusted" in error.message
        assert "MLFLOW_TRACKING_SERVER_CERT_PATH" in error.remedy
        assert between.calls == []
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate / "cert.pem"))
        tracker(between.url).check(["north"])
    with front(lambda _: Answer(404, absent)) as plain:
        error = refusal(plain.url.replace("http:", "https:"))
    assert error.message.endswith("does not speak TLS")
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate / "absent.pem"))
    assert "MLFLOW_TRACKING_SERVER_CERT_PATH" in refusal("https://127.0.0.1:1").message
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", __file__)
    assert "MLFLOW_TRACKING_SERVER_CERT_PATH" in refusal("https://127.0.0.1:1").message


@pytest.mark.usefixtures("no_names")
@pytest.mark.parametrize("host", ["mlflow.example", "10.0.0.7", "localhost.example"])
def test_credentials_go_over_http_to_loopback_alone(host, monkeypatch):
    unavailable(f"http://{host}:5000")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    error = refusal(f"http://{host}:5000")
    assert "over http, anyone on the way could read the credentials" in error.message
    assert "use https" in error.remedy
    assert TOKEN not in error.message + error.remedy


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"MLFLOW_TRACKING_TOKEN": f"{TOKEN}\n"}, "a line break"),
        ({"MLFLOW_TRACKING_USERNAME": "mia"}, "MLFLOW_TRACKING_PASSWORD is not set"),
        ({"MLFLOW_TRACKING_PASSWORD": PASSWORD}, "MLFLOW_TRACKING_USERNAME is not set"),
    ],
)
def test_credentials_that_cannot_be_sent_are_told(variables, told, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    error = refusal("https://127.0.0.1:1")
    assert told in error.message
    assert "not-for-logs" not in error.message + error.remedy


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mlflow",
        "file:///tmp/mlruns",
        "https://",
        "https://host:99999",
        "https://host:0",
        "https://a b",
        "https://host\n",
        "https://[::1",
        "https://[1:2:3",
        "arn:aws:sagemaker:eu-central-1:1:mlflow-tracking-server/trial",
        "arn:aws:s3:::bucket",
    ],
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ValidationError):
        MLflow.Params(url=url)


@pytest.mark.parametrize("url", ["https://mia:{}@host", "https://host/?token={}"])
def test_a_secret_in_the_address_is_refused_without_being_told(url):
    with pytest.raises(Refused) as caught:
        MLflow.Params(url=url.format(PASSWORD))
    assert PASSWORD not in str(caught.value) + caught.value.remedy
    assert "MLFLOW_TRACKING_TOKEN" in caught.value.remedy


@pytest.mark.parametrize("url", ["https://host/team/", "http://[::1]:5000", "http://localhost"])
def test_an_address_is_taken(url):
    assert MLflow.Params(url=url).url == url.rstrip("/")


def test_files_of_a_store_of_their_own_are_not_kept(tmp_path):
    (tmp_path / "report.html").write_bytes(b"")
    one = tracker("http://127.0.0.1:1")
    for place in ("s3://bucket/7/r/artifacts", "mlflow-artifacts://other:5000/7/r", "/mlruns", ""):
        handle = {"run": "r", "artifacts": place}
        assert one.artifact(handle, tmp_path / "report.html") is None


@pytest.mark.parametrize(("package", "url"), [("urllib3", "http://host"), ("botocore", ARN)])
def test_a_package_that_is_missing_is_named(package, url, monkeypatch):
    for name in [n for n in sys.modules if n.partition(".")[0] == package]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, package, None)
    error = refusal(url)
    assert error.remedy.startswith("pip install 'fl-core[mlflow")


def test_importing_it_brings_no_client():
    code = (
        "import sys, fl_core.tracking.mlflow as m; m.MLflow(m.MLflow.Params(url='http://host')); "
        "print([n for n in ('urllib3', 'boto3', 'botocore', 'requests') if n in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
