"""A running node takes over what it can of a changed NODE.toml, all of it or nothing; keys go on meanwhile."""

import asyncio
import json
import signal
import subprocess
import sys

import pytest
from cryptography import x509
from dealt_network import dealt_network

from heliograph.errors import ConfigurationError, KeySupplyError
from heliograph.http.tls import client_tls
from heliograph.lab.network_layout import NetworkPlan
from heliograph.lab.ports import free_ports
from heliograph.vault.certificates import SiteCa
from heliograph.vault.passphrasekek import Argon2Cost, PassphraseKek
from heliograph.vault.randomness import SystemRandomness

CHAIN = NetworkPlan.around(1, threshold=1)


def change(path, *pairs):
    text = path.read_text()
    for before, after in pairs:
        assert before in text
        text = text.replace(before, after)
    path.write_text(text)


@pytest.mark.slow
def test_a_node_reloads_while_keys_are_relayed(tmp_path):
    async def act():
        async with dealt_network(tmp_path, CHAIN) as net, net.sae("node-a") as sae:
            node, path = net.nodes["node-a"], net.files["node-a"]
            await net.transfer(4)
            await sae.get_key()
            sound = path.read_text()
            line = next(line for line in sound.splitlines() if line.startswith("stock = "))
            change(path, (line, "stock = 5"), ("[kme]\n", "[kme]\nmax_key_per_request = 7\n"))
            pki = path.parent / "pki"
            fresh = SiteCa.load(pki).issue_kme("kme-node-a", ["127.0.0.1"])
            fresh.write(pki, "kme")
            said = await node.reloads.reload("SIGHUP")
            assert said == (
                "renewed: pki/kme.pem, pki/kme.key; "
                "changed: [kme] max_key_per_request, [[pairs]] sae-node-a - sae-node-c: stock"
            )
            assert (await sae.status()).max_key_per_request == 7
            await node.origin.tick()
            assert (await sae.status()).stored_key_count == 5
            # The peer finds the new certificate, and the pair's keys are still the same at both ends.
            _, writer = await asyncio.open_connection("127.0.0.1", node.kme_port, ssl=_tls(net))
            shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            writer.transport.abort()
            assert x509.load_der_x509_certificate(shown) == x509.load_pem_x509_certificate(fresh.certificate)
            async with net.sae("node-c") as other:
                key = await sae.get_key()
                assert await other.get_key_with_id(key.key_id) == key
            # A pair that is taken away loses access over its open connection; it may come back.
            text = path.read_text()
            path.write_text(text[: text.index("[[pairs]]")])
            await node.reloads.reload("SIGHUP")
            with pytest.raises(KeySupplyError):
                await sae.status()
            assert (await node.status()).pairs == ()
            path.write_text(text)
            await node.reloads.reload("SIGHUP")
            await sae.get_key()
            assert (await node.status()).configuration.reloads == 3

    asyncio.run(act())


def _tls(net):
    pki = net.files["node-a"].parent / "pki"
    return client_tls(pki / "sae.pem", pki / "sae.key", pki / "ca.pem", "kme-node-a")


@pytest.mark.slow
def test_what_a_nodes_keys_rest_on_waits_for_a_restart_and_nothing_beside_it_is_taken_over(tmp_path):
    async def act():
        async with dealt_network(tmp_path, CHAIN) as net, net.sae("node-a") as sae:
            node, path = net.nodes["node-a"], net.files["node-a"]
            sound = path.read_text()
            assurance = next(line for line in sound.splitlines() if line.startswith("assurance = "))
            for before, after, name in (
                ("threshold = 1", "threshold = 1\npaths = [['node-a', 'node-r', 'node-c']]", "[[pairs]]"),
                (assurance, 'assurance = "vendor\'s claim"', "[[links]] node-r: assurance"),
                ('kek = "kek"', 'kek = "kek2"', "kek"),
                ('name = "node-a"', 'name = "node-b"', ""),
                ("[kme]\n", "[kme]\nnonsense = 1\n", "nonsense"),
            ):
                path.write_text(sound)
                change(path, (before, after), ("[kme]\n", "[kme]\nmax_key_per_request = 7\n"))
                with pytest.raises(ConfigurationError) as refusal:
                    await node.reloads.reload("SIGHUP")
                assert name in str(refusal.value)
                assert "\n" not in str(refusal.value)
                assert (await sae.status()).max_key_per_request == 128
            status = (await node.status()).configuration
            assert (status.reloads, status.refused) == (0, 5)
            assert status.last.startswith("nothing was reloaded, the running configuration stays in force: ")

    asyncio.run(act())


PASSPHRASE = b"correct horse battery"


def start(*words, secret):
    """Start a command with the passphrase at descriptor 9, without a terminal."""
    run = [sys.executable, "-m", "heliograph.cli.main", *map(str, words)]
    shell = ["sh", "-c", 'exec "$@" 9<&0 </dev/null', "sh", *run]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(shell, start_new_session=True, **pipes)
    process.stdin.write(secret)
    process.stdin.close()
    process.stdin = None
    return process


def said(stream, phrase):
    for line in iter(stream.readline, b""):
        if phrase in line:
            return line
    raise AssertionError(f"it ended without a word of {phrase!r}")


@pytest.mark.slow
def test_a_node_under_a_passphrase_runs_reloads_at_sighup_and_ends_with_0_at_sigterm(tmp_path):
    home, (listen, kme) = tmp_path / "r", free_ports(2)
    made = start(
        *("network", "init", home, "--name", "node-r", "--edge", "node-a:node-r", "--edge", "node-r:node-c"),
        *("--listen", f"127.0.0.1:{listen}", "--kme-listen", f"127.0.0.1:{kme}"),
        *("--kek", "passphrase", "--secret", "fd:9"),
        secret=PASSPHRASE,
    )
    _, error = made.communicate(timeout=60)
    assert made.returncode == 0, error
    toml = home / "NODE.toml"
    assert '[seal]\nkind = "passphrase"\nsecret = "fd:9"\n' in toml.read_text()
    # No neighbour is there to be named: a node of a network in which it has no link yet.
    change(toml, ('[["node-a", "node-r"], ["node-r", "node-c"]]', '[["node-a", "node-c"]]'))
    (home / "kek").unlink()  # the same, quicker to open
    PassphraseKek.create(home / "kek", PASSPHRASE, SystemRandomness(), Argon2Cost(64 * 1024, 3, 1))

    wrong = start("network", "run", toml, secret=b"wrong horse battery")
    _, error = wrong.communicate(timeout=60)
    assert wrong.returncode == 1
    assert len(error.splitlines()) == 1
    assert not (home / "store").exists()

    node = start("network", "run", toml, secret=PASSPHRASE)
    try:
        assert json.loads(said(node.stdout, b"ready")) == {"ready": True}
        change(toml, ('name = "node-r"', 'name = "node-r"\nlog_level = "warning"'), ('"kek"', '"kek3"'))
        node.send_signal(signal.SIGHUP)
        assert b"kek: changed by a restart only" in said(node.stderr, b"nothing was reloaded")
        change(toml, ('"kek3"', '"kek"'), ("[kme]\n", "[kme]\nmax_key_per_request = 7\n"))
        node.send_signal(signal.SIGHUP)
        toml.write_text("nonsense")  # whichever of the two it reads: at this level only refusals are logged
        node.send_signal(signal.SIGHUP)
        said(node.stderr, b"not valid TOML")
        node.send_signal(signal.SIGTERM)
        assert node.wait(30) == 0
    finally:
        node.kill()
        node.communicate()
