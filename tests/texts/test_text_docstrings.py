"""Prose of a package that the test writes."""

import gc
import sys

import pytest

from polymorph.errors import RequestError
from polymorph.tasks.text.docstrings import documents, is_prose, package_facts

FIRST = "This package knows how to count every tree in the small river."
SECOND = "A stone runs under the bridge and over the light of morning."
THIRD = "Nothing that this function gives is ever changed by anybody else."
FOURTH = "Whoever calls it a second time will find what was there before:"

MODULES = {
    "__init__.py": f'"""Short.\n\n{FIRST}\n"""\n',
    "b.py": f'''"""{FIRST}"""

class A:
    """Title of five words here

    {SECOND}

    >>> This is code that looks like prose to anybody who reads it.
    """

    if True:
        def f(self):
            """{THIRD[:26]}
            {THIRD[27:]}"""

try:
    pass
except ValueError:
    def g():
        "{FOURTH}"
''',
    "a/c.py": f'"""{SECOND}"""\nraise RuntimeError("never imported")\n',
    "a/d.py": 'def f(:\n    """This will not be read, as it is not Python for anybody."""\n',
    "a/e.py": 'x = "This is a long text that is not a docstring of anything."\n',
    "a/f.py": '"""An escape like \\ud800 in a docstring of many words is left out."""\n',
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    for name, text in MODULES.items():
        path = tmp_path / "countings" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    facts = tmp_path / "countings-1.2.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: countings\nVersion: 1.2\nLicense-Expression: MIT\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return "countings"


def test_one_document_a_module_and_every_paragraph_once(package):
    """In the order of paths, and of the source within a module: a/c.py comes first and keeps the second paragraph."""
    assert list(documents([package])) == [FIRST, SECOND, f"{THIRD}\n\n{FOURTH}"]
    assert package not in sys.modules
    assert gc.isenabled()


def test_a_package_named_twice_adds_nothing(package):
    assert list(documents([package, package])) == list(documents([package]))


@pytest.mark.parametrize("name", ["no_such_package", "not-a-name", "torch.nn", ""])
def test_a_package_that_is_not_there_is_named_with_its_install(name):
    with pytest.raises(
        RequestError, match=rf"task\.packages: '{name}' is not installed here; .* pip install"
    ):
        list(documents([name]))


def test_a_package_without_source_is_refused(tmp_path, monkeypatch):
    (tmp_path / "hollow").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RequestError, match="'hollow' has no source files"):
        list(documents(["hollow"]))


@pytest.mark.parametrize("paragraph", [FIRST, SECOND, THIRD, FOURTH])
def test_prose_is_let_pass(paragraph):
    assert is_prose(paragraph)


@pytest.mark.parametrize(
    "paragraph",
    [
        "",
        "Seven words are too few for prose.",
        "this does not begin with a capital letter of any kind.",
        "This does not end as a sentence ends in any text",
        ">>> This is an example of code in a docstring there.",
        "Heading of a table --- with many words in every row of it.",
        "Sum of x[0:3] + y[4:7] * 2 ** 10 (see (1), (2) and (3)): 0.",
    ],
)
def test_what_is_no_prose_is_not(paragraph):
    assert not is_prose(paragraph)


def test_facts_are_the_distributions(package):
    assert package_facts([package]) == [{"name": package, "version": "1.2", "licence": "MIT"}]
    assert package_facts(["no_such_package"]) == [
        {"name": "no_such_package", "version": None, "licence": None}
    ]
    (numpy,) = package_facts(["numpy"])
    assert "BSD" in numpy["licence"]
