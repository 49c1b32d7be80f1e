"""A real engine with the keys of the tls plugin: preview, up, change, refresh, destroy, errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509

from .conftest import MakeWorkspace
from .engine import Workspace, copy_project

pytestmark = pytest.mark.engine

UP = ("up", "--yes", "--skip-preview")

CERTIFICATES = """
import pulumi
import pulumi_tls as tls

config = pulumi.Config()
provider = pulumi.ResourceOptions(provider=tls.Provider("tls"))
P256 = {"algorithm": "ECDSA", "ecdsa_curve": "P256"}
authority = tls.PrivateKey("authority", **P256, opts=provider)
root = tls.SelfSignedCert(
    "authority",
    private_key_pem=authority.private_key_pem,
    subject={"common_name": "trial"},
    is_ca_certificate=True,
    allowed_uses=["cert_signing", "crl_signing"],
    validity_period_hours=1000,
    opts=provider,
)
key = tls.PrivateKey("silo", **P256, opts=provider)
request = tls.CertRequest(
    "silo", private_key_pem=key.private_key_pem, uris=[config.require("uri")], opts=provider
)
cert = tls.LocallySignedCert(
    "silo",
    cert_request_pem=request.cert_request_pem,
    ca_cert_pem=root.cert_pem,
    ca_private_key_pem=authority.private_key_pem,
    allowed_uses=["client_auth", "digital_signature"],
    validity_period_hours=100,
    early_renewal_hours=config.get_int("early") or 1,
    opts=provider,
)
pulumi.export("identity", {"tls.crt": cert.cert_pem, "tls.key": key.private_key_pem})
pulumi.export("authority", root.cert_pem)
"""
COUNT = 7  # with the stack and the provider


def test_certificates_from_preview_to_destroy(workspace: MakeWorkspace) -> None:
    trial = workspace(CERTIFICATES, uri="spiffe://trial/silo/a")
    assert trial.checked("preview").changes == {"to create": COUNT}
    assert trial.checked(*UP).changes == {"created": COUNT}

    hidden = trial.outputs()
    assert hidden["identity"]["tls.key"] == "[secret]"
    shown = trial.outputs(show_secrets=True)
    authority = x509.load_pem_x509_certificate(shown["authority"].encode())
    certificate = x509.load_pem_x509_certificate(shown["identity"]["tls.crt"].encode())
    certificate.verify_directly_issued_by(authority)
    assert "PRIVATE KEY" in shown["identity"]["tls.key"]
    _assert_no_key(trial)

    assert trial.checked(*UP).changes == {"unchanged": COUNT}
    trial.checked("config", "set", "early", "2")
    assert trial.checked(*UP).changes == {"updated": 1, "unchanged": COUNT - 1}

    trial.checked("config", "set", "uri", "spiffe://trial/silo/b")
    # The certificate's request is not known in a preview, and so differs.
    assert trial.checked("preview").changes == {"to replace": 2, "unchanged": COUNT - 2}
    assert trial.checked(*UP).changes == {"replaced": 2, "unchanged": COUNT - 2}
    again = trial.outputs(show_secrets=True)
    assert again["identity"]["tls.key"] == shown["identity"]["tls.key"]
    assert again["identity"]["tls.crt"] != shown["identity"]["tls.crt"]
    assert trial.checked("refresh", "--yes").changes == {"unchanged": COUNT}
    assert trial.checked(*UP).changes == {"unchanged": COUNT}
    _assert_no_key(trial)

    assert trial.checked("destroy", "--yes", "--skip-preview").changes == {"deleted": COUNT}
    assert trial.resources() == []


def _assert_no_key(trial: Workspace) -> None:
    assert "PRIVATE KEY" not in trial.state_text()
    # It is there, encrypted.
    assert any("ciphertext" in str(resource["outputs"]) for resource in trial.resources()[1:])


def test_a_certificate_that_is_due_is_renewed(workspace: MakeWorkspace) -> None:
    trial = workspace(CERTIFICATES, uri="spiffe://trial/silo/a", early="101")
    trial.checked(*UP)
    assert trial.checked(*UP).changes == {"replaced": 1, "unchanged": COUNT - 1}


PLACE = """
import os
import sys

import pulumi

pulumi.export("folder", os.path.basename(os.getcwd()))
pulumi.export("first", sys.path[0])
pulumi.export("prefix", sys.prefix)
pulumi.export("name", __name__)
pulumi.export("place", [pulumi.get_project(), pulumi.get_stack(), pulumi.get_organization()])
pulumi.export("token", pulumi.Config().require_secret("token"))
try:
    import infra
except ModuleNotFoundError:
    pulumi.export("infra", "not to be imported")
try:
    import run_program
except ModuleNotFoundError:
    pulumi.export("run_program", "not to be imported")
"""


def test_where_and_how_a_program_runs(workspace: MakeWorkspace) -> None:
    trial = workspace(PLACE)
    trial.set_secret("token", "hidden-token")
    result = trial.checked(*UP)
    outputs = trial.outputs()
    prefix = outputs.pop("prefix")
    assert Path(prefix) == trial.project / ".venv"
    assert outputs == {
        "folder": "infra",
        "first": ".",
        "name": "__main__",
        "place": ["trial", "local", "organization"],
        "token": "[secret]",
        "infra": "not to be imported",
        "run_program": "not to be imported",
    }
    assert "hidden-token" not in f"{result.out}{result.err}{trial.state_text()}"


ERRORS = """
import sys

import pulumi

print("said by the program")
fault = pulumi.Config().require("fault")
if fault == "told":
    raise pulumi.RunError("silos: the name cleveland stands twice: rename one")
if fault == "raised":
    raise ValueError("odd value")
if fault == "ended":
    sys.exit(3)
pulumi.Output.from_input(1).apply(lambda _: 1 / 0)
"""


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        ("told", "error: silos: the name cleveland stands twice: rename one", ""),
        ("raised", "error: Program failed with an unhandled exception:", "ValueError: odd value"),
        (
            "ended",
            "error: an unhandled error occurred: Program exited with non-zero exit code: 3",
            "",
        ),
        ("applied", "error: Program failed with an unhandled exception:", "ZeroDivisionError"),
    ],
)
def test_a_programs_error_reaches_the_user_once(
    workspace: MakeWorkspace, fault: str, error: str, said: str
) -> None:
    trial = workspace(ERRORS, fault=fault)
    result = trial.pulumi("preview")
    assert result.code != 0
    assert result.errors == [error]
    assert said in result.out
    assert "said by the program" in result.out
    if not said:
        assert "Traceback" not in result.out
    assert trial.resources() == []


def test_no_virtual_environment_is_told(workspace: MakeWorkspace) -> None:
    trial = workspace(PLACE)
    (trial.project / ".venv").unlink()
    (trial.project / ".venv").mkdir()
    result = trial.pulumi("preview")
    assert result.code != 0
    assert "virtual environment" in f"{result.out}{result.err}"


def test_a_copy_has_the_files_that_stacks_name(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("infra", "stacks", "data"):
        (root / name).mkdir(parents=True)
    (root / "Pulumi.yaml").write_text("name: trial\n")
    (root / "data" / "a.csv").write_text("1\n")
    (root / "data" / "b.csv").write_text("2\n")
    (root / "stacks" / "Pulumi.local.yaml").write_text(
        "config:\n  trial:silos:\n    - name: a\n      data: data/a.csv\n"
    )
    copy_project(root, tmp_path / "copy")
    copied = sorted(file.name for file in (tmp_path / "copy").rglob("*") if file.is_file())
    assert copied == ["Pulumi.local.yaml", "Pulumi.yaml", "a.csv"]
