"""The catalogue of VI types: what it takes, and how it says what it does not take."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from packetcloud.cloudlet.errors import CloudletConfigError
from packetcloud.cloudlet.limits import MAX_IO_PER_S, Limits
from packetcloud.cloudlet.vi_types import MAX_TYPES_COUNT, load_catalogue
from packetcloud.domain_controller.core import resources

ONE = """
[[vi_type]]
name = "one"
vcpu = 1
memory_mib = 256
disk_mib = 512
price_tier = 2
"""


def _write(folder: Path, text: str) -> Path:
    path = folder / "types.toml"
    path.write_text(text)
    return path


def test_the_default_catalogue_grows_from_type_to_type() -> None:
    """Each type of the catalogue that comes with us has more of everything than the one before."""
    types = list(load_catalogue().types.values())
    assert [kind.name for kind in types] == ["nano", "small", "medium", "large"]
    for smaller, larger in itertools.pairwise(types):
        assert smaller.price_tier < larger.price_tier
        for name in Limits.__slots__:
            assert getattr(smaller.limits, name) < getattr(larger.limits, name)


def test_a_file_names_its_types(tmp_path: Path) -> None:
    """What a table leaves out has its default."""
    kind = load_catalogue(_write(tmp_path, "catalogue = 1" + ONE)).get("one")
    assert kind.limits == Limits(1.0, 256, 512, 100, 50, 64)
    assert (kind.price_tier, kind.io_per_s) == (2, 0)
    assert resources.MAX_IO_PER_S == MAX_IO_PER_S, "what is declared here can be sold there"
    text = "catalogue = 1" + ONE + "io_per_s = 500\n"
    assert load_catalogue(_write(tmp_path, text)).get("one").io_per_s == 500


def test_an_unknown_type_names_the_known_ones() -> None:
    with pytest.raises(CloudletConfigError, match="no VI type 'huge'; VI types: nano, small"):
        load_catalogue().get("huge")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ONE, "catalogue: missing"),
        ("catalogue = 2" + ONE, "catalogue = 2: Input should be less than or equal to 1"),
        ("catalogue = 1", "vi_type: missing"),
        ("catalogue = 1\nvi_type = []", "vi_type = .*at least 1 item"),
        ("catalogue = 1\ncolour = 3" + ONE, "colour: unknown table; allowed: catalogue, vi_type"),
        ("catalogue = 1" + ONE + ONE, r"\[\[vi_type\]\] name: one stands there 2 times"),
        (
            "catalogue = 1" + ONE + "colour = 3",
            r"\[\[vi_type\]\] number 1 colour: unknown key; allowed: name, vcpu, memory_mib",
        ),
        (
            "catalogue = 1" + ONE.replace("256", "3"),
            r"\[\[vi_type\]\] number 1 memory_mib = 3: Input should be greater than or equal to 64",
        ),
        ("catalogue = 1" + ONE.replace("256", '"much"'), "memory_mib = 'much': .*valid integer"),
        ("catalogue = 1" + ONE.replace('"one"', '"One!"'), "name = 'One!': "),
        ("catalogue = ", "not TOML"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    path = _write(tmp_path, text)
    with pytest.raises(CloudletConfigError, match=said) as caught:
        load_catalogue(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_several_mistakes_are_counted(tmp_path: Path) -> None:
    text = "catalogue = 1" + ONE.replace("256", "1").replace("512", "1")
    with pytest.raises(CloudletConfigError, match=r"memory_mib = 1: .* \(and 1 more\)$"):
        load_catalogue(_write(tmp_path, text))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(CloudletConfigError, match=r"no file .*none\.toml"):
        load_catalogue(tmp_path / "none.toml")
    bytes_file = tmp_path / "bytes.toml"
    bytes_file.write_bytes(b"\xff\xfe")
    with pytest.raises(CloudletConfigError, match=r"bytes\.toml: not TOML"):
        load_catalogue(bytes_file)


@pytest.mark.parametrize(
    ("count", "is_taken"), [(MAX_TYPES_COUNT, True), (MAX_TYPES_COUNT + 1, False)]
)
def test_the_number_of_types_is_capped(tmp_path: Path, count: int, is_taken: bool) -> None:
    tables = (ONE.replace('"one"', f'"t{number}"') for number in range(count))
    path = _write(tmp_path, "catalogue = 1" + "".join(tables))
    if is_taken:
        assert len(load_catalogue(path).types) == count
        return
    with pytest.raises(CloudletConfigError, match="at most 256 items"):
        load_catalogue(path)
