"""The guarded client connects to public addresses only, and to the very address that was checked."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import services.ssrf as ssrf
from services.ssrf import AddressRefused, guarded_client, is_public
from tests.fakes.raw_http import RawHttp, reply

T = TypeVar("T")


def with_client(use: Callable[[httpx.AsyncClient], Awaitable[T]], *, allow_private: bool = False) -> T:
    """Run one coroutine function with a client that is closed afterwards."""

    async def run() -> T:
        async with guarded_client(allow_private=allow_private) as client:
            return await use(client)

    return asyncio.run(run())


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "2a00:1450::8a", "::ffff:8.8.8.8"])
def test_global_unicast_is_public(address: str) -> None:
    """Ordinary addresses of the internet pass, also mapped into IPv6."""
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "0.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.0.8",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "192.88.99.1",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "fe80::1%eth0",
        "fc00::1",
        "fec0::1",
        "ff02::1",
        "64:ff9b::7f00:1",
        "64:ff9b::808:808",
        "64:ff9b:1::1",
        "2001::1",
        "2002:7f00:1::",
        "2001:db8::1",
        "3fff::1",
        "100::1",
        "no address",
        "",
    ],
)
def test_everything_else_is_not_public(address: str) -> None:
    """Private, local, reserved, multicast addresses and those that carry another address are refused."""
    assert not is_public(address)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "127.1", "0"]
)
def test_private_address_is_refused_however_it_is_written(host: str) -> None:
    """No spelling of loopback gets a connection."""

    async def use(client: httpx.AsyncClient) -> int:
        async with RawHttp(lambda _: reply(200)) as server:
            with pytest.raises(AddressRefused):
                await client.get(f"http://{host}:{server.port}/")
            return server.connections

    assert with_client(use) == 0


def test_one_private_address_among_public_ones_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with several addresses is refused when any of them is not public."""
    monkeypatch.setattr(ssrf, "_addresses", lambda host, port: ["93.184.216.34", "127.0.0.1"])

    async def use(client: httpx.AsyncClient) -> None:
        with pytest.raises(AddressRefused):
            await client.get("http://tool.example/")

    with_client(use)


def test_name_that_answers_differently_the_second_time_gains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is looked up once, and the connection goes to the address that was checked."""
    asked: list[str] = []

    def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.2"] if len(asked) == 1 else ["127.0.0.1"]

    monkeypatch.setattr(ssrf, "_addresses", rebinding)
    monkeypatch.setattr(ssrf, "is_public", lambda address: address == "127.0.0.2")

    async def use(client: httpx.AsyncClient) -> int:
        async with RawHttp(lambda _: reply(200)) as server:
            with pytest.raises(httpx.ConnectError):
                await client.get(f"http://tool.example:{server.port}/")
            return server.connections

    assert with_client(use) == 0
    assert asked == ["tool.example"]


def test_next_address_is_tried_when_one_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several addresses the first that answers is used."""
    monkeypatch.setattr(ssrf, "_addresses", lambda host, port: ["127.0.0.2", "127.0.0.1"])

    async def use(client: httpx.AsyncClient) -> tuple[int, str]:
        async with RawHttp(lambda _: reply(200)) as server:
            response = await client.get(f"http://tool.example:{server.port}/")
            return response.status_code, server.requests[0].headers["host"].partition(":")[0]

    assert with_client(use, allow_private=True) == (200, "tool.example")


def test_unknown_name_is_a_connect_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that cannot be resolved, or cannot even be asked for, fails like an unreachable host."""
    monkeypatch.setattr(ssrf, "_addresses", lambda host, port: [])

    async def use(client: httpx.AsyncClient) -> None:
        with pytest.raises(httpx.ConnectError):
            await client.get("http://tool.example/")

    with_client(use)
    monkeypatch.undo()

    async def ask(client: httpx.AsyncClient) -> None:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"http://{'a' * 70}.invalid/")

    with_client(ask)


def test_proxy_redirect_and_cookie_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment is not asked, a redirect is not followed, a cookie is not kept for the next call."""

    async def use(client: httpx.AsyncClient) -> tuple[list[int], int, list[bool]]:
        async with RawHttp(lambda _: reply(200)) as proxy:
            monkeypatch.setenv("HTTP_PROXY", proxy.url)
            monkeypatch.setenv("ALL_PROXY", proxy.url)
            async with (
                RawHttp(lambda _: reply(302, Location="http://localhost/secret", Set_Cookie="a=b; Path=/")) as server,
                guarded_client(allow_private=True) as fresh,
            ):
                statuses = [(await fresh.get(server.url)).status_code for _ in range(2)]
                assert server.connections == 1
                return statuses, proxy.connections, ["cookie" in request.headers for request in server.requests]

    assert with_client(use, allow_private=True) == ([302, 302], 0, [False, False])


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Make a self-signed certificate for a name: certificate and key file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begin = datetime.now(UTC) - timedelta(hours=1)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "cert.pem", folder / "key.pem"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


def test_certificate_must_be_for_the_name_not_for_the_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """TLS is verified against the name in the address, although the connection goes to a checked address."""
    monkeypatch.setattr(ssrf, "_addresses", lambda host, port: ["127.0.0.1"])
    cert, key = certificate(tmp_path, "tool.example")
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(cert, key)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply(200, b"{}"))
        await writer.drain()
        writer.close()

    async def run() -> int:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=serving)
        port = server.sockets[0].getsockname()[1]
        trusting = ssl.create_default_context(cafile=str(cert))
        async with guarded_client(allow_private=True, tls=trusting) as client:
            status = (await client.get(f"https://tool.example:{port}/")).status_code
            with pytest.raises(httpx.ConnectError):
                await client.get(f"https://other.example:{port}/")
        server.close()
        await server.wait_closed()
        return status

    assert asyncio.run(run()) == 200


def test_errors_of_the_network_are_httpx_errors() -> None:
    """A broken answer and a connection that ends are httpx's exceptions, without texts of the peer."""

    async def use(client: httpx.AsyncClient) -> list[str]:
        texts = []
        for answer in (b"spoken nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: nine\r\n\r\n"):
            async with RawHttp(lambda _, answer=answer: answer) as server:
                with pytest.raises(httpx.ProtocolError) as caught:
                    await client.get(server.url)
                texts.append(str(caught.value))
        return texts

    assert with_client(use, allow_private=True) == ["RemoteProtocolError", "RemoteProtocolError"]
