"""The kinds of hostile input, by name; each is made ready once a process."""

import functools
import tempfile
from pathlib import Path

from tests.fuzz.checkpoints import Checkpoint, Manifest
from tests.fuzz.commands import OtherCommands, Overrides, RunFiles
from tests.fuzz.configurations import CalibrationFile, Generation, Sections, VariantFile
from tests.fuzz.data import Cache, Corpus
from tests.fuzz.folders import Folder
from tests.fuzz.records import Records, Report
from tests.fuzz.subject import Subject

SUBJECTS: dict[str, type[Subject]] = {
    each.name: each
    for each in (
        Checkpoint,
        Manifest,
        Folder,
        Corpus,
        Cache,
        Sections,
        VariantFile,
        CalibrationFile,
        Generation,
        Records,
        Report,
        Overrides,
        RunFiles,
        OtherCommands,
    )
}

_places: list[tempfile.TemporaryDirectory[str]] = []


@functools.cache
def ready(name: str) -> Subject:
    """The subject of a name; its folder goes with the process."""
    place = tempfile.TemporaryDirectory(prefix=f"zoo-fuzz-{name}-")
    _places.append(place)
    return SUBJECTS[name](Path(place.name))
