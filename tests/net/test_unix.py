"""Unix sockets: whose the name is, who may connect, and what a dead process leaves behind."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from tests.privileges import open_folder, unprivileged
from trio_wsb.net.unix import GroupNotOursError, SocketInUseError, UnixListener, peer_credentials


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_it_is_the_owners_alone_whatever_the_umask_is(path: Path) -> None:
    before = os.umask(0)
    try:
        listener = UnixListener(path)
    finally:
        os.umask(before)
    assert mode(path) == 0o600
    assert list(path.parent.iterdir()) == [path]
    listener.close()
    listener.close()
    assert list(path.parent.iterdir()) == []


def test_a_group_may_be_let_in(path: Path) -> None:
    listener = UnixListener(path, group=os.getgid())
    assert mode(path) == 0o660
    assert path.lstat().st_gid == os.getgid()
    listener.close()


def test_any_permissions_may_be_asked_for(path: Path) -> None:
    listener = UnixListener(path, group=os.getgid(), mode=0o666)
    assert mode(path) == 0o666
    listener.close()


def test_a_group_that_is_not_ours_to_give() -> None:
    # Whoever runs this without privileges is in one group at most of these two.
    group = next(each for each in (0, 1) if each not in {os.getgid(), *os.getgroups()} or not os.geteuid())
    with open_folder() as folder:
        with unprivileged(), pytest.raises(GroupNotOursError, match="neither root nor a member"):
            UnixListener(folder / "control.sock", group=group)
        assert list(folder.iterdir()) == []


def test_what_a_dead_process_has_left_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    listener = UnixListener(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listener.close()
    assert not path.exists()


def test_a_living_one_keeps_it(path: Path) -> None:
    first = UnixListener(path)
    with pytest.raises(SocketInUseError, match="another daemon"):
        UnixListener(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    first.close()


def test_a_living_one_whose_queue_is_full_keeps_it_too(path: Path) -> None:
    first = UnixListener(path)
    first.sock.listen(0)
    clients = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) for _ in range(5)]
    codes = [client.connect_ex(str(path)) for client in clients]
    assert any(codes)
    with pytest.raises(SocketInUseError):
        UnixListener(path)
    for client in clients:
        client.close()
    first.close()


def test_what_is_no_socket_stays(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="no socket"):
        UnixListener(path)
    assert path.read_text() == "precious"


def test_a_link_to_a_socket_is_not_followed(path: Path) -> None:
    target = UnixListener(path.with_name("other.sock"))
    path.symlink_to(target.path)
    with pytest.raises(FileExistsError):
        UnixListener(path)
    target.close()


def test_without_its_directory_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        UnixListener(tmp_path / "no" / "control.sock")


def test_closing_leaves_a_successor_alone(path: Path) -> None:
    first = UnixListener(path)
    path.unlink()
    second = UnixListener(path)
    first.close()
    assert path.exists()
    second.close()
    assert not path.exists()


def test_closing_after_somebody_has_removed_it(path: Path) -> None:
    listener = UnixListener(path)
    path.unlink()
    listener.close()
    assert listener.sock.fileno() == -1


def test_the_longest_path(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    # Through a short name for the folder: that of the test is as long as it is.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        prefix = f"/proc/self/fd/{descriptor}/"
        path = Path(prefix + "x" * (99 - len(prefix)))
        listener = UnixListener(path)
        assert path.exists()
        listener.close()
    finally:
        os.close(descriptor)


def test_who_is_at_the_other_end() -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        peer = peer_credentials(one)
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.geteuid(), os.getegid())
