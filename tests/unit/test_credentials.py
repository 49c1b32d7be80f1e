"""Identities and authorities in files: kept for their owner, and not believed when they are off."""

import base64
import datetime as dt
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_core.errors import CertificateError, FlError, StorageError
from fl_core.transport.authority import AUTHORITY_KEY_FILE, Authority
from fl_core.transport.identity import CA_FILE, CERTIFICATE_FILE, KEY_FILE, Identity, Party

DAY = dt.timedelta(days=1)
URI = "spiffe://trial/silo/a"
FILES = (KEY_FILE, CERTIFICATE_FILE, CA_FILE)
P256 = ec.generate_private_key(ec.SECP256R1())
labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)


def name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def certificate(
    alternatives: x509.ExtensionType | None,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey = P256,
    start: dt.timedelta = -DAY,
    end: dt.timedelta = DAY,
    subject: str = "a",
) -> bytes:
    """What an authority by the name of ``trial authority`` signs with the key P256; times from
    now."""
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name("trial authority"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + start)
        .not_valid_after(now + end)
    )
    if alternatives is not None:
        builder = builder.add_extension(alternatives, critical=False)
    return builder.sign(P256, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def uris(*found: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in found])


CA = certificate(None, subject="trial authority")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("trial", DAY)


@pytest.fixture
def folder(tmp_path, authority) -> Path:
    """A silo's."""
    authority.silo("a").save(tmp_path / "a")
    return tmp_path / "a"


@pytest.fixture
def by_hand(tmp_path) -> Path:
    """A silo's, made of the parts above."""
    Identity(certificate(uris(URI)), pem(P256), CA).save(tmp_path / "hand")
    return tmp_path / "hand"


@pytest.fixture
def authority_folder(tmp_path, authority) -> Path:
    authority.save(tmp_path / "authority")
    return tmp_path / "authority"


@contextmanager
def umask(mask: int) -> Iterator[None]:
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file of this process grows over ``size``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(folder: Path, said: str, *kinds: str) -> CertificateError:
    """The error of loading; it tells no secret, and what to do."""
    with pytest.raises(CertificateError) as caught:
        Identity.load(folder, *(kinds or ("silo",)))
    assert said in caught.value.message
    assert caught.value.remedy
    assert "PRIVATE" not in caught.value.message
    return caught.value


# Identities


@pytest.mark.parametrize("kind", ["aggregator", "silo", "operator"])
def test_an_identity_is_loaded_as_it_was_saved(tmp_path, authority, kind):
    make = {
        "aggregator": lambda: authority.aggregator(["127.0.0.1"]),
        "silo": lambda: authority.silo("a"),
        "operator": lambda: authority.operator("ann"),
    }
    identity = make[kind]()
    identity.save(tmp_path / "deep" / "party")
    loaded = Identity.load(tmp_path / "deep" / "party", kind)
    assert loaded == identity
    assert loaded.party.kind == kind
    assert loaded.fingerprint == identity.fingerprint


def test_an_identity_of_other_tools_is_loaded(by_hand):
    assert Identity.load(by_hand, "operator", "silo").party == Party("trial", "silo", "a")


@pytest.mark.parametrize("mask", [0, 0o022, 0o077])
def test_only_the_owner_can_read_a_key_whatever_the_umask(tmp_path, authority, mask):
    with umask(mask):
        authority.silo("a").save(tmp_path / "a")
        authority.save(tmp_path / "authority")
    for made, secret in (("a", KEY_FILE), ("authority", AUTHORITY_KEY_FILE)):
        folder = tmp_path / made
        assert mode(folder) == 0o700
        for path in folder.iterdir():
            assert mode(path) == (0o600 if path.name == secret else 0o644 & ~mask)
    assert Identity.load(tmp_path / "a", "silo").party.name == "a"


def test_a_folder_that_is_there_keeps_its_rights_and_the_key_is_the_owners_still(
    tmp_path, authority
):
    tmp_path.chmod(0o755)
    authority.silo("a").save(tmp_path)
    assert mode(tmp_path) == 0o755
    assert mode(tmp_path / KEY_FILE) == 0o600


@pytest.mark.parametrize("file", FILES)
def test_a_file_that_is_missing_is_named(folder, file):
    (folder / file).unlink()
    error = refused(folder, f"{folder / file}: No such file or directory")
    assert "fl certs" in error.remedy


def test_a_folder_that_is_missing_is_named(tmp_path):
    refused(tmp_path / "absent", f"{tmp_path / 'absent' / CERTIFICATE_FILE}: No such file")


def test_a_folder_in_the_place_of_a_file_is_named(folder):
    (folder / KEY_FILE).unlink()
    (folder / KEY_FILE).mkdir()
    refused(folder, f"{folder / KEY_FILE}: Is a directory")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(folder):
    (folder / KEY_FILE).chmod(0)
    refused(folder, f"{folder / KEY_FILE}: Permission denied")


JUNK = [
    b"",
    b"junk",
    b"\xff\0",
    b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
    b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
]


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("file", FILES)
def test_a_file_that_is_no_pem_is_named(folder, file, junk):
    (folder / file).write_bytes(junk)
    what = "private key" if file == KEY_FILE else "certificate"
    refused(folder, f"{folder / file} is no {what} in PEM form")


@settings(max_examples=60)
@given(st.sampled_from(FILES), st.data())
def test_a_damaged_file_is_good_or_refused(tmp_path_factory, file, data):
    """Whatever stands in it, the error is one for users."""
    folder = tmp_path_factory.getbasetemp() / "damaged"
    if not folder.exists():
        Identity(certificate(uris(URI)), pem(P256), CA).save(folder)
    path = folder / file
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    byte = data.draw(st.integers(0, 255))
    path.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
    told = URI
    try:
        assert Identity.load(folder, "silo").party.uri == URI
    except CertificateError as error:
        told = error.message
    finally:
        path.write_bytes(whole)
    assert told == URI or str(folder) in told


@pytest.mark.parametrize(("file", "held"), [FILES[:2], FILES[1::-1]])
def test_a_file_in_anothers_place_is_refused(folder, file, held):
    (folder / file).write_bytes((folder / held).read_bytes())
    refused(folder, f"{folder / file} is no ")


def test_the_key_of_another_certificate_is_refused(folder, authority):
    (folder / KEY_FILE).write_bytes(authority.silo("a").key)
    refused(folder, f"{folder / KEY_FILE} is not the key of the certificate beside it")


def other_keys() -> dict[str, Callable[[], bytes]]:
    locked = serialization.BestAvailableEncryption(b"secret")
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return {
        "RSA": lambda: pem(rsa.generate_private_key(65537, 2048)),
        "P-384": lambda: pem(ec.generate_private_key(ec.SECP384R1())),
        "secp256k1": lambda: pem(ec.generate_private_key(ec.SECP256K1())),
        "Ed25519": lambda: pem(ed25519.Ed25519PrivateKey.generate()),
        "encrypted": lambda: P256.private_bytes(encoding, form, locked),
    }


@pytest.mark.parametrize("kind", other_keys())
def test_a_key_of_another_kind_is_refused(folder, kind):
    (folder / KEY_FILE).write_bytes(other_keys()[kind]())
    said = (
        "is no private key in PEM form" if kind == "encrypted" else "is no key on the curve P-256"
    )
    refused(folder, f"{folder / KEY_FILE} {said}")


def test_a_certificate_of_an_rsa_key_is_refused_with_its_key(by_hand):
    key = rsa.generate_private_key(65537, 2048)
    (by_hand / CERTIFICATE_FILE).write_bytes(certificate(uris(URI), key))
    (by_hand / KEY_FILE).write_bytes(pem(key))
    refused(by_hand, "is no key on the curve P-256")


def unknown_curve(text: bytes) -> bytes:
    """The PEM with P-256's identifier replaced by one that stands for no curve."""
    label = text.split(b"-----")[1].removeprefix(b"BEGIN ")
    known, unknown = bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a8648ce3d03017f")
    if label == b"CERTIFICATE":
        der = x509.load_pem_x509_certificate(text).public_bytes(serialization.Encoding.DER)
    else:
        der = P256.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    assert known in der
    body = base64.encodebytes(der.replace(known, unknown))
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (label, body, label)


@pytest.mark.parametrize("file", FILES)
def test_a_curve_that_nobody_knows_is_refused(by_hand, file):
    (by_hand / file).write_bytes(unknown_curve((by_hand / file).read_bytes()))
    refused(by_hand, str(by_hand))


@pytest.mark.parametrize("rights", [0o604, 0o602, 0o601, 0o644, 0o666, 0o777])
def test_a_key_that_is_open_to_all_is_refused(folder, rights):
    (folder / KEY_FILE).chmod(rights)
    error = refused(folder, f"{folder / KEY_FILE} may be read by everybody")
    assert error.remedy == f"chmod 600 {folder / KEY_FILE}"


@pytest.mark.parametrize("rights", [0o400, 0o600, 0o440, 0o640])
def test_a_key_for_the_owner_or_its_group_is_taken(folder, rights):
    """Kubernetes gives a secret's files to the group of the pod."""
    (folder / KEY_FILE).chmod(rights)
    assert Identity.load(folder, "silo").party.name == "a"


@pytest.mark.parametrize("file", [CERTIFICATE_FILE, CA_FILE])
def test_a_certificate_that_has_expired_is_named_with_the_day(by_hand, file):
    subject = "trial authority" if file == CA_FILE else "a"
    (by_hand / file).write_bytes(certificate(uris(URI), P256, -2 * DAY, -DAY, subject))
    yesterday = dt.datetime.now(dt.UTC) - DAY
    error = refused(by_hand, f"{by_hand / file} has expired on {yesterday:%Y-%m}")
    assert error.message.endswith(" UTC")
    assert "fl certs issue" in error.remedy


@pytest.mark.parametrize("file", [CERTIFICATE_FILE, CA_FILE])
def test_a_certificate_that_is_not_valid_yet_is_named_with_the_day(by_hand, file):
    subject = "trial authority" if file == CA_FILE else "a"
    (by_hand / file).write_bytes(certificate(uris(URI), P256, DAY, 2 * DAY, subject))
    error = refused(by_hand, f"{by_hand / file} is valid from ")
    assert "clock" in error.remedy


def test_a_certificate_of_another_authority_of_the_same_name_is_refused(folder):
    (folder / CA_FILE).write_bytes(Authority("trial", DAY).certificate)
    refused(folder, f"{folder / CERTIFICATE_FILE} was not issued by the authority in ")


def test_a_certificate_of_another_federation_is_refused(folder):
    (folder / CA_FILE).write_bytes(Authority("other", DAY).certificate)
    error = refused(folder, f"was not issued by the authority in {folder / CA_FILE}")
    assert "same federation" in error.remedy


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        (("aggregator",), "is the certificate of a silo, not of an aggregator"),
        (("operator",), "is the certificate of a silo, not of an operator"),
        (("operator", "aggregator"), "of a silo, not of an operator or aggregator"),
    ],
)
def test_a_party_of_another_kind_is_refused(folder, kinds, said):
    error = refused(folder, said, *kinds)
    assert "--identity" in error.remedy


@pytest.mark.parametrize(
    "alternatives",
    [
        None,
        uris(),
        uris("https://trial/silo/a"),
        uris(URI, "spiffe://trial/silo/b"),
        uris("spiffe://trial/owner/a"),
        x509.SubjectAlternativeName([x509.DNSName("trial")]),
    ],
    ids=["no names", "empty", "https", "two", "unknown kind", "host"],
)
def test_a_certificate_that_names_no_party_is_refused(by_hand, alternatives):
    (by_hand / CERTIFICATE_FILE).write_bytes(certificate(alternatives))
    error = refused(by_hand, "names no party of a federation: its URIs are ")
    assert "spiffe://FEDERATION/silo/NAME" in error.remedy
    with pytest.raises(CertificateError, match="the certificate names no party"):
        _ = Identity(certificate(alternatives), b"", CA).party


def test_names_that_cannot_be_read_are_no_party(by_hand):
    broken = x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, b"\x30\x03\x86\x01\xff")
    (by_hand / CERTIFICATE_FILE).write_bytes(certificate(broken))
    refused(by_hand, str(by_hand / CERTIFICATE_FILE))


@pytest.mark.parametrize("file", FILES)
def test_an_identity_that_is_there_is_kept(folder, authority, file):
    for other in FILES:
        if other != file:
            (folder / other).unlink()
    before = contents(folder)
    with pytest.raises(CertificateError, match=f"{folder / file} exists already") as caught:
        authority.silo("b").save(folder)
    assert caught.value.remedy
    assert contents(folder) == before


def test_a_link_is_not_followed(tmp_path, authority):
    (tmp_path / KEY_FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CertificateError, match="exists already"):
        authority.silo("a").save(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path, authority):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=f"cannot write {tmp_path / 'file' / 'a'}"):
        authority.silo("a").save(tmp_path / "file" / "a")
    with pytest.raises(StorageError, match=f"cannot write {tmp_path / 'file'}"):
        authority.save(tmp_path / "file")


@pytest.mark.parametrize("size", [1, 300])
@pytest.mark.parametrize("what", ["identity", "authority"])
def test_a_full_disk_leaves_nothing_half_made(tmp_path, authority, what, size):
    """Else the next try says that there is an identity already."""
    one = authority if what == "authority" else authority.silo("a")
    with full_disk(size), pytest.raises(StorageError, match="cannot write"):
        one.save(tmp_path / "made")
    one.save(tmp_path / "made")


# Authorities


def test_an_authority_that_was_saved_signs_as_it_did(authority_folder, authority):
    loaded = Authority.load(authority_folder, DAY)
    assert loaded.federation == "trial"
    assert loaded.certificate == authority.certificate
    identity = loaded.silo("b")
    assert identity.party == Party("trial", "silo", "b")
    issued = x509.load_pem_x509_certificate(identity.certificate)
    issued.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate))
    assert loaded.aggregator(["10.0.0.1"]).party == Party("trial", "aggregator")


@pytest.mark.parametrize("days", [1, 7, 3650])
def test_what_a_loaded_authority_signs_is_valid_as_long_as_asked(tmp_path, days):
    Authority("trial", 4000 * DAY).save(tmp_path)
    issued = Authority.load(tmp_path, days * DAY).silo("a").certificate
    left = x509.load_pem_x509_certificate(issued).not_valid_after_utc - dt.datetime.now(dt.UTC)
    assert (days - 1) * DAY < left <= days * DAY


def test_nothing_is_valid_longer_than_its_authority(tmp_path):
    """Or it is not as long as the command says."""
    Authority("trial", DAY).save(tmp_path)
    authority = x509.load_pem_x509_certificate((tmp_path / CA_FILE).read_bytes())
    try:
        issued = Authority.load(tmp_path, 365 * DAY).silo("a").certificate
    except CertificateError:
        return
    issued = x509.load_pem_x509_certificate(issued)
    assert issued.not_valid_after_utc <= authority.not_valid_after_utc


@settings(max_examples=20)
@given(labels)
def test_a_federation_of_any_name_is_kept(tmp_path_factory, federation):
    folder = tmp_path_factory.mktemp("authority")
    Authority(federation, DAY).save(folder)
    loaded = Authority.load(folder, DAY)
    assert loaded.federation == federation
    assert loaded.silo("a").party == Party(federation, "silo", "a")


@pytest.mark.parametrize("length", [54, 55, 63])
def test_a_long_name_of_a_federation_is_a_name(tmp_path, length):
    federation = "f" * length
    Authority(federation, DAY).save(tmp_path)
    assert Authority.load(tmp_path, DAY).silo("a").party.federation == federation


@pytest.mark.parametrize("common", ["My CA", "Trial authority", " authority", "a/b authority"])
def test_an_authority_of_no_federation_issues_nothing(tmp_path, common):
    """Made by another tool: what it signed would name no party."""
    ca = certificate(None, subject=common)
    (tmp_path / CA_FILE).write_bytes(ca)
    (tmp_path / AUTHORITY_KEY_FILE).write_bytes(pem(P256))
    (tmp_path / AUTHORITY_KEY_FILE).chmod(0o600)
    with pytest.raises(CertificateError):
        _ = Authority.load(tmp_path, DAY).silo("a").party


@pytest.mark.parametrize("file", [CA_FILE, AUTHORITY_KEY_FILE])
def test_an_authority_without_a_file_is_refused(authority_folder, file):
    (authority_folder / file).unlink()
    with pytest.raises(CertificateError, match=f"{authority_folder / file}: No such") as caught:
        Authority.load(authority_folder, DAY)
    assert "fl certs" in caught.value.remedy


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / CA_FILE).write_bytes(b"junk"), "is no certificate in PEM form"),
        (lambda f: (f / AUTHORITY_KEY_FILE).write_bytes(b"junk"), "is no private key in PEM form"),
        (lambda f: (f / AUTHORITY_KEY_FILE).write_bytes(pem(P256)), "is not the key of the"),
        (lambda f: (f / AUTHORITY_KEY_FILE).chmod(0o644), "may be read by everybody"),
        (
            lambda f: (f / CA_FILE).write_bytes(certificate(None, start=-2 * DAY, end=-DAY)),
            "has expired on",
        ),
        (
            lambda f: (f / CA_FILE).write_bytes(certificate(None, start=DAY, end=2 * DAY)),
            "is valid from",
        ),
    ],
    ids=["certificate", "key", "other key", "open", "expired", "early"],
)
def test_an_authority_that_is_off_is_refused(authority_folder, spoil, said):
    spoil(authority_folder)
    with pytest.raises(CertificateError, match=said):
        Authority.load(authority_folder, DAY)


@pytest.mark.parametrize("file", [CA_FILE, AUTHORITY_KEY_FILE])
def test_an_authority_that_is_there_is_kept(authority_folder, file):
    for path in authority_folder.iterdir():
        if path.name != file:
            path.unlink()
    before = contents(authority_folder)
    with pytest.raises(CertificateError, match="exists already"):
        Authority("other", DAY).save(authority_folder)
    assert contents(authority_folder) == before


def test_a_partys_folder_does_not_become_an_authoritys(folder):
    before = contents(folder)
    with pytest.raises(FlError):
        Authority("trial", DAY).save(folder)
    assert contents(folder) == before
