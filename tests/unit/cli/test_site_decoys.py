"""`heliograph site init --decoys`: both sites plan one record, and a record that was tampered with is refused."""

import json

import pytest
from typer.testing import CliRunner

from heliograph.cli.main import app
from heliograph.errors import ConfigurationError
from heliograph.site.config import read_registration

ENDS = {"site-a": ("site-b", "transmitter"), "site-b": ("site-a", "receiver")}


def init(directory, name, *more):
    peer, role = ENDS[name]
    arguments = ["site", "init", str(directory), "--name", name, "--peer", peer, "--role", role, *more]
    return CliRunner().invoke(app, arguments)


def test_both_sites_plan_the_same_two_decoys(tmp_path):
    for name in ENDS:
        assert init(tmp_path / name, name, "--decoys", "2").exit_code == 0
    registrations = [read_registration(tmp_path / name / "link.json") for name in ENDS]
    assert registrations[0] == registrations[1]
    assert registrations[0].digest() == registrations[1].digest()
    assert {p.theorem for p in registrations[0].parameters} == {"lim2014-serfling"}
    assert {len(p.light.intensities) for p in registrations[0].parameters} == {3}


def test_without_the_option_there_is_one_decoy_and_the_digests_differ(tmp_path):
    assert init(tmp_path / "one", "site-a").exit_code == 0
    assert init(tmp_path / "two", "site-a", "--decoys", "2").exit_code == 0
    one, two = (read_registration(tmp_path / name / "link.json") for name in ("one", "two"))
    assert {p.theorem for p in one.parameters} == {"wiesemann2024"}
    assert one.digest() != two.digest()


@pytest.mark.parametrize("decoys", ["0", "3"])
def test_a_number_of_decoys_without_a_theorem_is_refused_in_one_line(tmp_path, decoys):
    done = init(tmp_path / "s", "site-a", "--decoys", decoys)
    assert done.exit_code == 1
    assert f"decoys = {decoys}" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("theorem", ["wiesemann2024", "lim2014", None, 7])
def test_a_link_file_under_a_theorem_that_does_not_cover_its_light_is_refused(tmp_path, theorem):
    init(tmp_path / "s", "site-a", "--decoys", "2")
    path = tmp_path / "s" / "link.json"
    document = json.loads(path.read_bytes())
    for parameters in document["parameters"]:
        parameters["theorem"] = theorem
    path.write_text(json.dumps(document))
    with pytest.raises(ConfigurationError, match=r"link\.json: .*(theorem|intensities)"):
        read_registration(path)


def test_a_link_file_from_before_there_was_a_choice_is_read_as_one_decoy(tmp_path):
    init(tmp_path / "s", "site-a")
    path = tmp_path / "s" / "link.json"
    before = read_registration(path)
    document = json.loads(path.read_bytes())
    for parameters in document["parameters"]:
        del parameters["theorem"]
    path.write_text(json.dumps(document))
    assert read_registration(path) == before
