"""Where the optional package of kernels is absent or does not fit, every way to ask for it says so, and what to do."""

import dataclasses
import importlib.metadata
import sys
import types
from pathlib import Path

import pytest

from tests.zoo.checkpoints.saved import save_all, small_model
from zoo.attention import mechanism, mechanism_names
from zoo.attention.mechanism import AUTO
from zoo.checkpoints import load_checkpoint
from zoo.config import UserError
from zoo.runtime import native

SOURCES = Path(__file__).resolve().parents[3] / "native"


@pytest.fixture
def anew(monkeypatch):
    """Forgets what was found of the package, before and after."""
    for name in [name for name in sys.modules if name.partition(".")[0] == native.PACKAGE]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delenv("ZOO_NATIVE", raising=False)
    native._found.cache_clear()
    yield monkeypatch
    native._found.cache_clear()


def as_built_for(monkeypatch, mlx_version):
    """Puts the package's own sources in the place of what is installed, built for a version of MLX."""
    built = types.ModuleType(f"{native.PACKAGE}._built")
    built.MLX_VERSION = mlx_version
    monkeypatch.syspath_prepend(SOURCES)
    monkeypatch.setitem(sys.modules, built.__name__, built)


def test_a_package_built_for_another_mlx_names_both_versions_and_the_command(anew):
    as_built_for(anew, "0.1.2")
    with pytest.raises(ImportError) as caught:
        importlib.import_module(native.PACKAGE)
    said = str(caught.value)
    assert "0.1.2" in said
    assert importlib.metadata.version("mlx") in said
    assert "`make native`" in said
    assert said in native.why_no_native()


def test_a_package_that_is_not_installed_is_no_error_until_it_is_asked_for(anew):
    anew.setattr(sys, "path", [])
    assert "`make native`" in native.why_no_native()
    with pytest.raises(UserError, match=r"attention\.implementation must be another one here"):
        native.native_kernels()


def test_an_instruction_set_that_is_not_there_is_a_reason_and_no_crash(anew):
    if (reason := native.why_no_native()) is not None:
        pytest.skip(reason)
    package = native.native_kernels()

    def isa():
        raise ValueError("ATTENTION_ZOO_NATIVE_ISA must name an instruction set")

    native._found.cache_clear()
    anew.setattr(package, "isa", isa)
    assert "ATTENTION_ZOO_NATIVE_ISA must name" in native.why_no_native()


def test_a_package_of_another_version_of_the_project_is_not_called(anew):
    if (reason := native.why_no_native()) is not None:
        pytest.skip(reason)
    package = native.native_kernels()
    native._found.cache_clear()
    anew.setattr(package, "INTERFACE", native.INTERFACE + 1)
    assert "`make native` builds the one that fits" in native.why_no_native()
    native._found.cache_clear()
    anew.delattr(package, "INTERFACE")
    assert "`make native` builds the one that fits" in native.why_no_native()


def test_what_is_exported_has_its_number():
    if (reason := native.why_no_native()) is not None:
        pytest.skip(reason)
    names = "adamw after attention cross_entropy descent gated_delta gelu gelu_tanh global_norm isa layer_norm"
    names += " linear_attention lion log_sum_exp muon num_threads rms_norm rotate set_num_threads silu softmax swiglu"
    # Another list needs another number in both places.
    assert {native.INTERFACE: sorted(native.native_kernels().__all__)} == {3: names.split()}


def without_package(monkeypatch):
    monkeypatch.setenv("ZOO_NATIVE", "none")
    native._found.cache_clear()
    assert "ZOO_NATIVE" in native.why_no_native()


@pytest.mark.parametrize("name", mechanism_names())
def test_without_it_a_mechanism_still_has_its_other_implementations(name, anew):
    without_package(anew)
    declared = mechanism(name)
    others = tuple(each for each in declared.implementations if each not in (*declared.packaged, AUTO))
    assert declared.implementations_here() == others
    assert declared.implementations_here()[0] == next(iter(declared.implementations))


def test_every_softmax_that_leaves_its_scores_alone_has_it(anew):
    packaged = {name for name in mechanism_names() if mechanism(name).packaged}
    assert {"softmax", "sliding_window", "block_sparse", "dilated", "learned_sinks", "sinks", "linear"} <= packaged
    assert not {"softcap", "gated_delta"} & packaged


@pytest.fixture
def saved(anew, tmp_path):
    """A checkpoint that was trained with the kernels, on a machine that lacks them."""
    model = small_model("swa")
    trained_with = dataclasses.replace(model.config.attention, implementation="native")
    model.config = dataclasses.replace(model.config, attention=trained_with)
    folder = save_all(tmp_path / "saved", model)
    without_package(anew)
    return folder


def test_a_checkpoint_that_names_it_is_refused_with_the_choices(saved):
    said = (
        r"config\.json: attention\.implementation must be another one here, since .*; got 'native' \(choices: .*masked"
    )
    with pytest.raises(UserError, match=said):
        load_checkpoint(saved)
    # The layers that stay would have to be computed.
    with pytest.raises(UserError, match=said):
        load_checkpoint(saved, attention="mha", layers=[0])


def test_another_attention_opens_such_a_checkpoint(saved):
    assert load_checkpoint(saved, attention="swa_masked").model.config.attention.implementation == "masked"
    kept = load_checkpoint(saved, replaced=True).model.config.attention
    assert (kept.mechanism, kept.implementation) == ("sliding_window", "chunked")
