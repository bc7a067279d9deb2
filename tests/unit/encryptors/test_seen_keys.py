"""A key that was installed is refused for as long as it is remembered, and what is remembered is bounded."""

from heliograph.encryptors import seen_keys


def test_a_key_is_known_again_and_only_the_oldest_is_forgotten(monkeypatch):
    monkeypatch.setattr(seen_keys, "_REMEMBERED", 3)
    seen = seen_keys.SeenKeys()
    for key_id in (b"1", b"2", b"3", b"4"):
        assert key_id not in seen
        seen.add(key_id)
    assert [key_id in seen for key_id in (b"1", b"2", b"3", b"4")] == [False, True, True, True]
