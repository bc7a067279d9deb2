"""A key in a log is found in each form that a log may have it in, and nothing else is."""

import base64
import random

import pytest

from heliograph.lab.key_marks import KeyMarks

# The same in each worker that collects these tests: the cases are named by them.
DICE = random.Random(61)
KEY, SEALED = DICE.randbytes(32), DICE.randbytes(61)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (f"parameters: $1 = '\\x{KEY.hex()}'", (1, 0)),
        (f"parameters: $1 = '\\x00{KEY.hex().upper()}ff'", (1, 0)),
        (f'"key": "{base64.b64encode(KEY).decode()}"', (1, 0)),
        (f"{base64.urlsafe_b64encode(KEY).decode()}", (1, 0)),
        (f"parameters: $3 = '\\x{SEALED.hex()}', $4 = '\\x{KEY.hex()}'", (1, 1)),
        (f"parameters: $1 = '\\x{DICE.randbytes(48).hex()}'", (0, 0)),
        (f"parameters: $1 = '\\x{KEY[:8].hex()}'", (0, 0)),
    ],
)
def test_what_a_line_shows_is_counted(tmp_path, line, found):
    marks, log = KeyMarks(), tmp_path / "log"
    marks.add_key(KEY)
    marks.add_sealed(SEALED)
    log.write_text(f"LOG:  begins\n{line}\nLOG:  ends\n")
    assert marks.search(log) == dict(zip(("key", "sealed"), found, strict=True))
