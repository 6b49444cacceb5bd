"""The sample kernels through both compilers and the SASS stage: what the code must look like."""

from __future__ import annotations

from pathlib import Path

import pytest
from sass_patch.samples import example
from strategies import spec

from gemmgen import sass_patch
from gemmgen.artifact import LOG, UNPATCHED_CUBIN, Artifact
from gemmgen.build import build_kernel
from gemmgen.sass_patch.operations import FFMA, is_wgmma
from gemmgen.spec import GemmSpec
from gemmgen.spec_file import load_specs

pytestmark = pytest.mark.toolchain

SPECS = sorted((Path(__file__).parent.parent / "specs").glob("*.yaml"))


@pytest.fixture(scope="module", params=SPECS, ids=lambda path: path.stem)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEMMGEN_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        (asked,) = load_specs(request.param)
        return build_kernel(asked)


def test_nothing_spills_and_wgmma_stays_asynchronous(built: Artifact) -> None:
    resources = built.manifest.resources
    assert resources["spill_store_bytes"] == resources["spill_load_bytes"] == 0
    assert resources["stack_bytes"] == 0
    if built.plan.warps.moves_registers:  # setmaxnreg counts on exactly these
        assert resources["registers"] == built.plan.warps.launch_registers
    assert "C75" not in built.files[LOG].decode()


def test_the_mainloop_is_wgmma_and_promotion(built: Artifact) -> None:
    """In a loop that issues wgmma: a whole K tile each pass, and one FFMA an accumulator."""
    (listing,) = sass_patch.read_listings(built.cubin)
    plan = built.plan
    loops = listing.wgmma_loop_blocks()
    code = [listing.code[index] for block in loops for index in range(block.start, block.end)]
    wgmmas = sum(is_wgmma(instruction) for instruction in code)
    per_k_tile = plan.mma.waves_m * plan.mma.waves_n * plan.tile.k // plan.mma.k
    assert wgmmas
    assert wgmmas % per_k_tile == 0
    ffmas = sum(instruction.opcode == FFMA for instruction in code)
    assert ffmas == wgmmas // per_k_tile * plan.mma.totals


def test_the_passes_changed_what_the_manifest_says(built: Artifact) -> None:
    result = sass_patch.patch(built.files[UNPATCHED_CUBIN], built.plan.sass.passes)
    assert result.cubin == built.cubin
    (report,) = built.manifest.sass
    assert report["changed"] == len(result.changes) > 0


def test_every_pass_keeps_every_operation(built: Artifact) -> None:
    """Bits 109 and 122-124 of FFMA are all that a pass may touch; stripped of them, codes agree."""
    free = ~(1 << 109 | 7 << 122)

    def stripped(cubin: bytes) -> list[int]:
        (listing,) = sass_patch.read_listings(cubin)
        return [i.word & free if i.opcode == FFMA else i.word for i in listing.code]

    before = stripped(built.files[UNPATCHED_CUBIN])
    for name in sass_patch.PASSES:
        call = example(name, built.files[UNPATCHED_CUBIN])
        patched = sass_patch.patch(built.files[UNPATCHED_CUBIN], [call]).cubin
        assert stripped(patched) == before


@pytest.mark.parametrize("cluster", ["2x1", "1x2"])
def test_the_producer_keeps_few_registers_in_clusters_too(cluster: str) -> None:
    """Three consumer warpgroups leave it the fewest; an unrolled loop of multicasts would spill."""
    asked = GemmSpec(**spec(n=7168, k=7168, tile="192x128", cluster=cluster))
    assert build_kernel(asked).manifest.resources["stack_bytes"] == 0
