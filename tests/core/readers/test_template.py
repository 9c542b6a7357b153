"""Templates: fields by name, and nothing else."""

from __future__ import annotations

import pytest

from toastrack.ingestion.readers.template import Template


def test_names_and_their_text() -> None:
    template = Template.parse("{first name} -- {b}{{}}")
    assert template.names == ["first name", "b"]
    assert template.fill({"first name": "Rye", "b": True}) == "Rye -- true{}"


@pytest.mark.parametrize(
    "text",
    [
        "{a.__class__}",
        "{a[0]}",
        "{a!r}",
        "{a:>10}",
        "{a:{b}}",
        "{}",
        "{ }",
        "{a",
        "a}",
        "no field",
        "",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"text=.*\{title\}: \{body\}"):
        Template.parse(text)
