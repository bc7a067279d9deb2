"""``heliograph store``: after an erasure nothing opens the store, its log, or a copy that was made before."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import pytest
from site_on_disk import make_site
from typer.testing import CliRunner

from heliograph.cli.main import app
from heliograph.errors import ConfigurationError, StoreUnavailable
from heliograph.site.config import read_site
from heliograph.site.control_socket import give_order
from heliograph.site.kek import open_kek
from heliograph.site.store import open_store
from heliograph.storage.database import Database
from heliograph.storage.keys import NewKey
from heliograph.vault.filekek import FileKek
from heliograph.vault.randomness import SystemRandomness


@pytest.fixture
def site(tmp_path):
    return read_site(make_site(tmp_path / "a", light=tmp_path / "l") / "SITE.toml")


def filled(config, *, close=True):
    """Store keys of known bytes. Returns the canaries: the keys, and the key-encryption key."""
    kek = config.path(config.file.kek).read_bytes()
    database = Database(config.path(config.file.store), open_kek(config))
    store = open_store(database, config.path(config.file.anchor), SystemRandomness())
    rows = [NewKey(str(uuid.uuid4()), "sae-a", "sae-b", True, os.urandom(32), 1.0) for _ in range(50)]  # noqa: FBT003
    with database.transaction() as cursor:
        store.keys.add(cursor, 1, 1, rows)
        store.keys.acknowledge(cursor, 1, 1)
    if close:
        database.close()
    return [row.material for row in rows] + [kek]


def run(*words):
    done = CliRunner().invoke(app, ["store", *words])
    return done.exit_code, done.stdout, done.stderr


def everything(directory):
    return b"".join(path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file())


def test_an_erased_store_is_nowhere_and_no_copy_of_it_opens(site, tmp_path):
    canaries = filled(site)
    assert canaries[0] not in everything(site.path(site.file.store).parent)  # sealed from the start
    shutil.copytree(site.path(site.file.store).parent, tmp_path / "copy")  # the backup that somebody made
    (tmp_path / "copy").chmod(0o700)
    code, out, _ = run("erase", str(site.toml), "--approver", "Ann", "--yes")
    assert code == 0
    assert f"the key-encryption key {site.path(site.file.kek)}" in out
    left = everything(site.directory)
    assert not [canary for canary in canaries if canary in left or canary in everything(tmp_path / "copy")]
    assert list(site.path(site.file.store).parent.iterdir()) == [site.path("store/site.db.lock")]
    with pytest.raises(ConfigurationError, match="No such file"):
        open_kek(site)
    # A key-encryption key made anew does not open the copy.
    other = Database(tmp_path / "copy" / "site.db", FileKek.create(tmp_path / "new", SystemRandomness()))
    with pytest.raises(StoreUnavailable, match="not the key-encryption key"):
        open_store(other, tmp_path / "anchor", SystemRandomness())
    other.close()
    audit = site.audit.read_text()
    assert audit.index("erasure ordered") < audit.index("erasure done")


def test_what_a_killed_process_left_in_the_log_is_erased_too(site):
    program = (
        "import os, sys, pathlib; sys.path.insert(0, sys.argv[2]); from test_store_erase import filled;"
        "from heliograph.site.config import read_site;"
        "filled(read_site(pathlib.Path(sys.argv[1])), close=False); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(site.toml), os.path.dirname(__file__)], check=False)  # noqa: PTH120
    wal = site.path("store/site.db-wal")
    assert wal.stat().st_size > 0
    code, out, _ = run("erase", str(site.toml), "--approver", "Ann", "--yes")
    assert code == 0
    assert str(wal) in out
    assert not wal.exists()


def test_a_store_in_use_an_erasure_without_a_yes_and_a_second_one(site):
    filled(site)
    assert run("erase", str(site.toml), "--approver", "Ann")[0] == 1
    assert site.path(site.file.store).exists()
    database = Database(site.path(site.file.store), open_kek(site))
    code, _, error = run("erase", str(site.toml), "--approver", "Ann", "--yes")
    assert code == 1
    assert "another process has it open" in error
    database.close()
    assert run("erase", str(site.toml), "--approver", "Ann", "--yes")[0] == 0
    assert run("erase", str(site.toml), "--approver", "Ann", "--yes")[0] == 0  # again: nothing is left to do


def test_migrate_says_what_it_found(site):
    assert run("migrate", str(site.toml))[0] == 1
    filled(site)
    assert run("migrate", str(site.toml))[1].endswith("nothing to do.\n")


def test_a_file_that_refuses_keeps_no_other_from_being_destroyed(site):
    canaries = filled(site)
    store = site.path(site.file.store)
    store.with_name(store.name + "-journal").mkdir()  # no plain file: it cannot be destroyed
    site.path(site.file.kek).chmod(0o400)
    code, _, err = run("erase", str(site.toml), "--approver", "Ann", "--yes")
    assert code == 1
    assert "site.db-journal: " in err
    assert not store.exists()
    assert not site.path(site.file.kek).exists()
    assert not [canary for canary in canaries if canary in everything(site.directory)]
    assert "refused" in site.audit.read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another user listens in our place")
def test_no_secret_goes_to_another_users_socket(site):
    """Whoever can write where the socket is expected could listen there first."""
    program = (
        "import os, socket, sys; os.setgid(65534); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); os.chmod(sys.argv[1], 0o666); s.listen()\n"
        "print('listening', flush=True); c, _ = s.accept(); c.settimeout(5); print(len(c.recv(4096)), flush=True)"
    )
    # /tmp of its own: another user must be able to reach it.
    with tempfile.TemporaryDirectory() as open_place:
        Path(open_place).chmod(0o777)
        shutil.copytree(site.directory, Path(open_place) / "site")
        (Path(open_place) / "site").chmod(0o777)
        there = read_site(Path(open_place) / "site" / "SITE.toml")
        path = there.path(there.file.status).with_name(there.path(there.file.status).name + ".ctl")
        python = [sys.executable, "-c", program, str(path)]
        with subprocess.Popen(python, stdout=subprocess.PIPE, text=True) as thief:
            assert thief.stdout.readline() == "listening\n"
            with pytest.raises(ConfigurationError, match="another user listens there"):
                asyncio.run(give_order(there, "unseal", b"correct horse"))
            assert thief.stdout.readline() == "0\n"
