"""TLS sessions are resumed where a service gives tickets, and nothing depends on it."""

from __future__ import annotations

import gc
import ssl
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from services.upstream import tickets as tls_tickets
from services.upstream.tickets import MAX_AGE_S, REST_S, TlsTickets
from tests.fakes.certificates import certificate

V1_2, V1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the files of a certificate of 127.0.0.1 and of its key."""
    folder = tmp_path_factory.mktemp("tls")
    made = folder / "c.pem", folder / "k.pem"
    for file, content in zip(made, certificate(), strict=True):
        file.write_bytes(content)
    return made


def server(files: tuple[Path, Path], version: ssl.TLSVersion = V1_3) -> ssl.SSLContext:
    """Return a server's context with keys for tickets of its own."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*files)
    context.maximum_version = version
    return context


def client(files: tuple[Path, Path]) -> ssl.SSLContext:
    """Return a context that trusts that server."""
    return ssl.create_default_context(cafile=str(files[0]))


def connect(
    ours: ssl.SSLContext,
    theirs: ssl.SSLContext,
    *,
    is_clean: bool = True,
    before_tickets: Callable[[], None] = lambda: None,
) -> bool:
    """Shake hands in memory, let one message through and close; return whether the session was resumed."""
    to_us, to_them = ssl.MemoryBIO(), ssl.MemoryBIO()
    us = ours.wrap_bio(to_us, to_them, server_hostname="127.0.0.1")
    them = theirs.wrap_bio(to_them, to_us, server_side=True)
    waiting = [us, them]
    for _ in range(8):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                pass
    assert not waiting
    before_tickets()
    them.write(b"hello")
    assert us.read() == b"hello"  # what came before it, tickets too, is read by now
    if is_clean:
        for side in (us, them, us):
            try:
                side.unwrap()
            except ssl.SSLWantReadError:
                pass
    return bool(us.session_reused)


@pytest.mark.parametrize("version", [V1_2, V1_3])
def test_later_handshakes_are_resumed(files, version):
    """The first is a full one, all others go by a ticket of the one before, in both versions of TLS."""
    ours, theirs = client(files), server(files, version)
    tickets = TlsTickets(ours)
    assert tickets.is_active
    assert [connect(ours, theirs) for _ in range(6)] == [False, *[True] * 5]
    assert tickets.resumed == theirs.session_stats()["hits"] == 5


def test_without_tickets_kept_nothing_is_resumed(files):
    """A shared context alone resumes nothing: what the other tests see is the tickets' doing."""
    ours, theirs = client(files), server(files)
    assert [connect(ours, theirs) for _ in range(3)] == [False] * 3


def test_a_ticket_is_used_once(files):
    """Of two tickets two handshakes come, however many are begun."""
    ours, theirs = client(files), server(files)
    tickets = TlsTickets(ours)
    connect(ours, theirs)
    assert tickets.count == 2  # what OpenSSL gives after a full handshake
    begun = [ours.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="127.0.0.1") for _ in range(3)]
    left = []
    for side in begun:
        with pytest.raises(ssl.SSLWantReadError):
            side.do_handshake()
        left.append(tickets.count)
    assert left == [1, 0, 0]


def test_a_service_that_forgot_its_keys_is_met_in_full(files):
    """An unknown ticket costs nothing but the short cut, and new tickets follow."""
    ours, theirs = client(files), server(files)
    TlsTickets(ours)
    kept = TlsTickets(ours)
    connect(ours, theirs)
    another = server(files)
    assert [connect(ours, another) for _ in range(3)] == [False, True, True]
    assert kept.count > 0


@pytest.mark.parametrize("version", [V1_2, V1_3])
def test_certificate_is_looked_at_again_after_an_hour(files, monkeypatch, version):
    """Tickets got by ticket count from the handshake that showed the certificate."""
    now = [100]
    monkeypatch.setattr(tls_tickets, "_now_s", lambda: now[0])
    ours, theirs = client(files), server(files, version)
    tickets = TlsTickets(ours)
    seen = []
    for later in (0, 1200, 2400, MAX_AGE_S - 1, MAX_AGE_S, MAX_AGE_S + 1200):
        now[0] = 100 + later
        seen.append(connect(ours, theirs))
    assert seen == [False, True, True, True, False, True]
    assert tickets.count <= 2


def test_a_late_ticket_counts_from_its_handshake(files, monkeypatch):
    """A service may send tickets at any time of a long connection."""
    now = [100]
    monkeypatch.setattr(tls_tickets, "_now_s", lambda: now[0])
    ours, theirs = client(files), server(files)
    tickets = TlsTickets(ours)
    connect(ours, theirs, before_tickets=lambda: now.__setitem__(0, 100 + MAX_AGE_S - 1))
    assert tickets.count == 2
    now[0] = 100 + MAX_AGE_S
    assert not connect(ours, theirs)


def test_a_refused_ticket_counts_as_a_look_at_the_certificate(files, monkeypatch):
    """Offered and not taken, a ticket says nothing about the age of what comes next."""
    now = [100]
    monkeypatch.setattr(tls_tickets, "_now_s", lambda: now[0])
    ours = client(files)
    tickets = TlsTickets(ours)
    connect(ours, server(files))
    now[0] += MAX_AGE_S - 1
    theirs = server(files)
    assert not connect(ours, theirs)
    now[0] += MAX_AGE_S - 1
    assert connect(ours, theirs)
    assert tickets.count > 0


@pytest.fixture
def balance(monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], list[int]]:
    """Return the sessions that were taken over, and those given back, in their order."""
    kept: list[int] = []
    freed: list[int] = []
    keep, free = TlsTickets.keep, tls_tickets._openssl.SSL_SESSION_free
    gc.collect()  # tickets of other tests that wait for it

    def count(tickets: TlsTickets, connection: int, session: int) -> bool:
        kept.append(session)
        return keep(tickets, connection, session)

    monkeypatch.setattr(TlsTickets, "keep", count)
    monkeypatch.setattr(tls_tickets._openssl, "SSL_SESSION_free", lambda it: (freed.append(it), free(it)))
    return kept, freed


def test_tickets_are_bounded(files, monkeypatch, balance):
    """The oldest goes; each that is gone was given back to OpenSSL."""
    monkeypatch.setattr(tls_tickets, "MAX_TICKETS", 3)
    now = [0]
    monkeypatch.setattr(tls_tickets, "_now_s", lambda: now[0])
    kept, freed = balance
    ours = client(files)
    tickets = TlsTickets(ours)
    for number in range(1, 6):
        now[0] = number
        connect(ours, server(files))  # takes one, and gives two, as it never knows the tickets of the others
    assert [checked for _, checked in tickets._held] == [4, 5, 5]
    assert len(kept) - len(freed) == 3


@pytest.mark.parametrize("version", [V1_2, V1_3])
@pytest.mark.parametrize("how", ["rest", "owner gone", "expired"])
def test_every_session_is_given_back(files, monkeypatch, balance, version, how):
    """Whatever ends a ticket, OpenSSL has it back, and once."""
    now = [100]
    monkeypatch.setattr(tls_tickets, "_now_s", lambda: now[0])
    kept, freed = balance
    ours, theirs = client(files), server(files, version)
    tickets = TlsTickets(ours)
    for _ in range(4):
        connect(ours, theirs)
    assert len(kept) - len(freed) == tickets.count > 0
    if how == "rest":
        tickets.rest()
    elif how == "expired":
        now[0] += MAX_AGE_S
        ours.wrap_bio(ssl.MemoryBIO(), one := ssl.MemoryBIO(), server_hostname="127.0.0.1")
        with pytest.raises(ssl.SSLWantReadError):
            ours.wrap_bio(ssl.MemoryBIO(), one, server_hostname="127.0.0.1").do_handshake()
    else:
        del tickets
        gc.collect()
    assert len(kept) == len(freed)


def test_a_session_is_nobodys_or_ours(files, monkeypatch):
    """What a callback answers is what became of the session, also when it was disturbed."""
    ours, theirs = client(files), server(files)
    tickets = TlsTickets(ours)
    keep = TlsTickets.keep

    def disturbed(held: TlsTickets, connection: int, session: int) -> bool:
        keep(held, connection, session)
        raise KeyboardInterrupt

    monkeypatch.setattr(TlsTickets, "keep", disturbed)
    took = tls_tickets._ticket_came
    said: list[int] = []
    monkeypatch.setattr(tls_tickets, "_ticket_came", lambda *args: said.append(took(*args)) or said[-1])
    monkeypatch.setattr(tls_tickets, "_openssl", tls_tickets._load())
    again = TlsTickets(ours)
    connect(ours, theirs)
    assert said == [1, 1]
    assert again.count == 2
    assert tickets.count == 0
    monkeypatch.setattr(tls_tickets, "_by_context", {})
    connect(ours, theirs)
    assert said == [1, 1, 0, 0]


def test_only_the_begin_of_a_handshake_may_set_a_session(files, monkeypatch):
    """OpenSSL reports a begin within a connection too, where a session of old would be a disaster."""
    ours, theirs = client(files), server(files)
    tickets = TlsTickets(ours)
    connect(ours, theirs)
    monkeypatch.setattr(tls_tickets._openssl, "SSL_in_before", lambda _: 0)
    assert not connect(ours, theirs)
    assert tickets.count > 2


def test_at_rest_nothing_is_kept_nor_offered(files, monkeypatch):
    """For a minute all handshakes are full; then it begins anew."""
    now = [100]
    monkeypatch.setattr(tls_tickets, "_now_s", lambda: now[0])
    ours, theirs = client(files), server(files)
    tickets = TlsTickets(ours)
    connect(ours, theirs)
    tickets.rest()
    seen = []
    for later in (0, 1, REST_S - 1, REST_S, REST_S + 1):
        now[0] = 100 + later
        seen.append(connect(ours, theirs))
    assert seen == [False, False, False, False, True]


def test_ticket_of_a_connection_that_broke_off_is_passed_over(files):
    """OpenSSL holds its latest for bad; an older one serves."""
    ours, theirs = client(files), server(files)
    tickets = TlsTickets(ours)
    connect(ours, theirs, is_clean=False)
    before = tickets.count
    assert connect(ours, theirs)
    assert before == 2


def test_tickets_end_with_their_owner(files):
    """A connection that outlives it does no harm, and its tickets are nobody's."""
    ours, theirs = client(files), server(files)
    tickets = TlsTickets(ours)
    connect(ours, theirs)
    gone = weakref.ref(tickets)
    del tickets
    gc.collect()
    assert gone() is None
    assert [connect(ours, theirs) for _ in range(2)] == [False, False]


@pytest.mark.parametrize("reason", ["no OpenSSL", "another OpenSSL", "no callbacks", "another layout", "another mode"])
def test_where_openssl_is_out_of_reach_handshakes_are_full(files, monkeypatch, reason):
    """Everything else works as before."""
    if reason == "no OpenSSL":
        monkeypatch.delattr(tls_tickets._ssl, "__file__")
        monkeypatch.setattr(tls_tickets, "_openssl", tls_tickets._load())
    elif reason == "another OpenSSL":
        monkeypatch.setitem(tls_tickets._SIGNATURES, "SSL_of_another_age", (None,))
        monkeypatch.setattr(tls_tickets, "_openssl", tls_tickets._load())
    elif reason == "no callbacks":
        monkeypatch.setattr(tls_tickets, "_OnState", no_memory)
        monkeypatch.setattr(tls_tickets, "_openssl", tls_tickets._load())
    elif reason == "another layout":
        monkeypatch.setattr(tls_tickets._openssl, "SSL_CTX_get_options", lambda _: 0)
    else:
        monkeypatch.setattr(tls_tickets._openssl, "SSL_CTX_get_verify_mode", lambda _: 0)
    ours, theirs = client(files), server(files)
    tickets = TlsTickets(ours)
    assert not tickets.is_active
    assert [connect(ours, theirs) for _ in range(3)] == [False] * 3
    assert (tickets.count, tickets.resumed) == (0, 0)
    tickets.rest()


def no_memory(_: object) -> None:
    """Stand for a system that lets nothing be executed that was written."""
    raise MemoryError
