"""The examples run as they stand, and say what they promise."""

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"


def said_by(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def numbers(pattern: str, text: str) -> list[float]:
    return [float(value) for value in re.findall(pattern + r"(-?\d+\.\d+)", text)]


def test_every_example_has_a_test():
    named = set(re.findall(r'said_by\("(\w+)"', Path(__file__).read_text()))
    assert named == {path.stem for path in EXAMPLES.glob("*.py")}


def test_a_rotated_copy_is_told_from_another_seed():
    text = said_by("align_two_models")
    seeds, copy = text.split("a network and a rotated copy")
    assert "undetermined" in seeds
    assert "given: orthogonal" in copy or "given: rotation" in copy
    assert numbers("orthogonal map: ", copy) == [1.0]
    assert numbers("orthogonal map: ", seeds)[0] < 0.9


def test_an_sae_fails_as_it_is_and_works_ported():
    own, naive, ported, unpaired = numbers(": ", said_by("port_an_sae"))
    assert own - 0.03 < ported
    assert max(naive, unpaired) < own - 0.2


def test_a_trajectory_is_a_table(tmp_path):
    text = said_by("trajectory", str(tmp_path))
    assert (tmp_path / "short" / "analysis" / "default" / "report.html").is_file()
    assert re.search(r"│ 0 +┆.*\n.*│ 1 +┆", text)
    assert re.search(r"│ 32 +┆", text)


def test_a_study_of_one_s_own_tells_copies_from_strangers():
    said = said_by("your_own_study")
    copies, permuted, strangers, _ = numbers(r": \|cos\| ", said)
    assert copies > 0.99
    assert max(permuted, strangers) < 0.9
    assert "rotated: |cos| is " in said  # its answer
