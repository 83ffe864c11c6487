"""Certificates, options and switches: what the configuration makes of TLS, and what it says of files."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from tests.config.helpers import config, document
from tests.tlsfiles import NOW, Authority, Files, self_signed
from trio_wsb.config.certificates import CertificateFileError, read_certificate
from trio_wsb.config.disable import usable
from trio_wsb.config.effective import to_yaml
from trio_wsb.config.load import check_files, read_file
from trio_wsb.config.tls import Certificate, ClientAuth, RouterTLS, TLSOptions
from trio_wsb.config.tlschecks import asks_more, fallback_options, host_options, secured_routers

ROUTER = "http: {{routers: {{r: {{rule: PathPrefix(`/`), service: ping@internal, tls: {}}}}}}}\n"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("true", RouterTLS()),
        ("{}", RouterTLS()),
        ("", RouterTLS()),
        ("false", None),
        ("{options: default}", RouterTLS()),
    ],
)
def test_a_switch_may_be_a_section(written: str, meant: RouterTLS | None) -> None:
    assert config(ROUTER.format(written)).http.routers["r"].tls == meant


def test_the_effective_configuration_means_the_same() -> None:
    made = config(ROUTER.format("true") + "tls: {options: {strict: {sniStrict: true}}}\n")
    assert config(to_yaml(made)) == made


def test_the_entry_point_decides_for_routers_that_do_not() -> None:
    made = config(
        """\
entryPoints:
  web: {address: ':80'}
  secure: {address: ':443', http: {tls: {options: strict}}}
http:
  routers:
    plain: {rule: PathPrefix(`/a`), service: ping@internal}
    own: {rule: Host(`x.test`) || Host(`*.y.test`), service: ping@internal, tls: true, entryPoints: [secure]}
    web: {rule: PathPrefix(`/c`), service: ping@internal, entryPoints: [web]}
tls: {options: {strict: {sniStrict: true}}}
"""
    )
    found = {
        name: [(each.name, each.options, each.own) for each in secured_routers(made, name, entry)]
        for name, entry in made.entry_points.items()
    }
    assert found == {"web": [], "secure": [("plain", "strict", False), ("own", "default", True)]}
    secure = made.entry_points["secure"]
    assert fallback_options(secure) == "strict"
    assert fallback_options(made.entry_points["web"]) == "default"
    assert host_options(secured_routers(made, "secure", secure)) == {
        "x.test": {"default"},
        "*.y.test": {"default"},
    }


def test_what_clients_must_show() -> None:
    assert ClientAuth().wanted == "none"
    assert ClientAuth(("ca",)).wanted == "required"
    assert ClientAuth(("ca",), "VerifyClientCertIfGiven").wanted == "optional"
    assert ClientAuth(("ca",), "NoClientCert").wanted == "none"
    strict, same, none = (
        TLSOptions(client_auth=ClientAuth(("ca",))),
        TLSOptions(client_auth=ClientAuth(("ca",))),
        TLSOptions(),
    )
    assert asks_more(strict, none)
    assert not asks_more(strict, same)
    assert not asks_more(none, strict)


def test_options_that_nothing_defines_take_the_routers_away() -> None:
    read = document(
        """\
entryPoints:
  web: {address: ':80'}
  secure: {address: ':443', http: {tls: {options: missing}}}
http:
  routers:
    a: {rule: Host(`a`), service: ping@internal, entryPoints: [secure]}
    b: {rule: Host(`b`), service: ping@internal, entryPoints: [web], tls: {options: missing}}
    c: {rule: Host(`c`), service: ping@internal, entryPoints: [web]}
"""
    )
    assert read.config is not None
    found = usable(read.config, read.problems)
    assert set(found.config.http.routers) == {"c"}
    assert {each.name for each in found.disabled} == {"a", "b"}


def write(tmp_path: Path, files: Files | None = None, **tls: object) -> Path:
    path = tmp_path / "f.yaml"
    section = {**({"certificates": [files.section]} if files else {}), **tls}
    path.write_text(yaml.safe_dump({"tls": section, "http": {}}))
    return path


def found(path: Path) -> list[tuple[str, str, str]]:
    return [(each.key_path, each.severity, f"{each.message} ({each.hint})") for each in check_files([path])]


def test_good_files_are_no_problem(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("a", "a.test")
    auth = {"clientAuth": {"caFiles": [str(authority.file)]}}
    path = write(
        tmp_path, files, options={"default": auth}, stores={"default": {"defaultCertificate": files.section}}
    )
    assert found(path) == []


@pytest.mark.parametrize(
    ("begins", "ends", "said"),
    [
        (-30, 20, None),
        (-30, 13, "expires on 2"),
        (-30, -1, "has expired on 2"),
        (1, 90, "is not valid before 2"),
    ],
)
def test_check_looks_at_dates(tmp_path: Path, begins: int, ends: int, said: str | None) -> None:
    files = self_signed(tmp_path, "dated", begins=timedelta(days=begins), ends=timedelta(days=ends))
    path = write(tmp_path, files)
    assert check_files([path]) == []  # without a time nothing is judged by it
    problems = check_files([path], now=NOW)
    assert [(each.key_path, each.severity) for each in problems] == (
        [] if said is None else [("tls.certificates[0].certFile", "warning")]
    )
    assert all(said is not None and said in each.message for each in problems)


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    good, other = authority.issue("a", "a.test"), authority.issue("b", "b.test")
    locked = self_signed(tmp_path, "locked", password=b"secret")
    text = tmp_path / "text.pem"
    text.write_text("hello")
    key, cert = "tls.certificates[0].keyFile", "tls.certificates[0].certFile"
    for files, where, words in (
        (Files(good.cert, other.key), key, "is not the key of the first certificate in"),
        (Files(good.cert, good.cert), key, "has no private key in PEM"),
        (Files(text, good.key), cert, "has no certificate in PEM"),
        (Files(tmp_path / "none", good.key), cert, "cannot be read: No such file or directory"),
        (Files(tmp_path, good.key), cert, "is not a regular file"),
        (locked, key, "is encrypted (write the key without a password"),
    ):
        ((where_found, severity, message),) = found(write(tmp_path, files))
        assert (where_found, severity) == (where, "error")
        assert words in message
        assert "PRIVATE" not in message
    ((where_found, severity, message),) = found(
        write(tmp_path, options={"x": {"clientAuth": {"caFiles": [str(text)]}}})
    )
    assert where_found == "tls.options.x.clientAuth.caFiles[0]"
    assert (severity, "has no certificate in PEM" in message) == ("error", True)


def test_without_names_of_its_own_the_common_name_counts(tmp_path: Path) -> None:
    files = self_signed(tmp_path, "old", common_name="Old.Test", san=None)
    facts = read_certificate(Certificate(str(files.cert), str(files.key)), read_file)
    assert (facts.names, facts.has_san, facts.common_name) == (("old.test",), False, "Old.Test")
    ((where, severity, message),) = found(write(tmp_path, files))
    assert (where, severity) == ("tls.certificates[0].certFile", "warning")
    assert "no subjectAltName" in message


def test_facts(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("a", "A.test", "*.b.test", "127.0.0.1", "::1")
    pair = Certificate(str(files.cert), str(files.key))
    facts = read_certificate(pair, read_file)
    assert facts.names == ("a.test", "*.b.test", "127.0.0.1", "::1")
    assert facts.not_after > facts.not_before
    assert read_certificate(pair, read_file) == facts
    authority.issue("a", "A.test", "*.b.test", "127.0.0.1", "::1")
    assert read_certificate(pair, read_file).digest != facts.digest


def test_a_name_that_is_no_host_is_none(tmp_path: Path) -> None:
    files = self_signed(tmp_path, "odd", common_name="An Organisation", san=None, ends=timedelta(days=2))
    assert read_certificate(Certificate(str(files.cert), str(files.key)), read_file).names == ()


def test_the_error_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(CertificateFileError) as raised:
        read_certificate(Certificate("/none.pem", "/none.key"), read_file)
    assert raised.value.key == "certFile"
    assert str(raised.value) == '"/none.pem" cannot be read: No such file or directory'
