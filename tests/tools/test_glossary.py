"""tools/glossary: entries by term and context, and questions augmented with them."""

import pytest

from etude.core.errors import FormatError
from etude.tools.glossary import Entry, Glossary

CONTEXTS = {"etching": "plasma", "packing": "boxes"}
ENTRIES = [
    Entry("CFP", "etching", "Cold Fine Pump", "cools", "see page 3"),
    Entry("CFP", "packing", "Clean Flat Press"),
    Entry("BAT", "etching", "Broad Axial Tank"),
    Entry("o'x; --", "packing", "Odd Name"),
]
QUESTION = "Is the CFP near the BAT?"


def test_it_is_asked_by_term_and_context():
    glossary = Glossary(ENTRIES, CONTEXTS)
    assert len(glossary) == 4
    assert glossary.lookup(" cfp ", "etching") == ENTRIES[0]
    assert glossary.lookup("CFP", "packing") == ENTRIES[1]
    assert glossary.lookup("BAT", "packing") is None
    assert glossary.lookup("o'x; --", "packing") == ENTRIES[3]  # data, never SQL
    assert glossary.lookup("x' OR '1'='1", "packing") is None


@pytest.mark.exact(23)
def test_the_entry_of_every_term_in_the_chosen_context_and_no_other():
    asked, unknown = Glossary(ENTRIES, CONTEXTS).augment(QUESTION, ["CFP", "bat", "CFP"], "etching")
    assert not unknown
    assert asked == (
        f"{QUESTION} (Context: etching, plasma. CFP: Cold Fine Pump, cools, see page 3. BAT: Broad Axial Tank.)"
    )


@pytest.mark.exact(23)
def test_one_unknown_term_and_nothing_is_defined():
    glossary = Glossary(ENTRIES, CONTEXTS)
    assert glossary.augment(QUESTION, ["CFP", "XYZ", "BAT"], "packing") == (QUESTION, ["XYZ", "BAT"])


@pytest.mark.exact(23)
def test_an_empty_dictionary_and_a_question_without_jargon_change_nothing():
    assert Glossary([], CONTEXTS).augment(QUESTION, ["CFP", "XYZ"], "etching") == (QUESTION, [])
    assert Glossary(ENTRIES, CONTEXTS).augment(QUESTION, [], "etching") == (QUESTION, [])


def test_what_cannot_be_an_entry():
    with pytest.raises(FormatError, match="'CFP' has the context 'etchin'; did you mean 'etching'"):
        Glossary([Entry("CFP", "etchin", "Cold Fine Pump")], CONTEXTS)
    with pytest.raises(FormatError, match="'cfp' has two entries in 'etching'"):
        Glossary([ENTRIES[0], Entry("cfp", "etching", "Cold Flat Plate")], CONTEXTS)
