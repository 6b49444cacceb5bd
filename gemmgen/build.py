"""A request becomes an artifact: lower, render, compile, patch, store. Knows the order of the work.

The text is rendered every time, since that is cheap, and the cache is asked by the text: a kernel
that is stored costs no compiler. Needs no GPU.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from gemmgen import artifact, bundle, sass_patch
from gemmgen.artifact import Artifact, Buildable
from gemmgen.cache import Cache, cache_key, default_root
from gemmgen.counters import count
from gemmgen.errors import ArtifactError, CompileError, GemmgenError, SpecError, ToolchainError
from gemmgen.passes import lower
from gemmgen.plan import KernelPlan
from gemmgen.render import render
from gemmgen.sealing import refuse_if_sealed
from gemmgen.spec import GemmSpec
from gemmgen.target import H200, Target
from gemmgen.toolchain import CompileResult, Flaw, Toolchain, compile_cuda, find_toolchain


@dataclass(frozen=True)
class Build:
    """One built kernel, and what it cost."""

    artifact: Artifact
    cached: bool  # it was in the cache, or in a bundle: no compiler ran
    seconds: float


def build_kernel(
    spec: GemmSpec, *, out: str | Path | None = None, target: Target = H200
) -> Artifact:
    """The kernel of a spec, from the cache, or compiled, patched and stored there.

    It lies in the cache, or in `<out>/<kernel name>/` when `out` is given.
    Raises SpecError or UnsupportedError for a spec without a kernel, ToolchainError when a compiler
    is missing or refuses the text, PatchError, and OutputError when `out` cannot be written.
    """
    return build_plan(lower(spec, target), out=out).artifact


def build_kernels(
    specs: Sequence[GemmSpec],
    *,
    out: str | Path | None = None,
    target: Target = H200,
    progress: Callable[[], None] = lambda: None,
) -> list[Build | GemmgenError]:
    """Build several kernels side by side: one outcome a spec, in their order.

    A kernel that fails keeps no other from being built; its outcome is its error. `progress` is
    called after each. Raises SpecError when two different kernels have one name.
    """
    plans = [_lowered(spec, target) for spec in specs]
    _refuse_equal_names(plans)
    return build_plans(plans, out=out, progress=progress)


def build_plans(
    plans: Sequence[KernelPlan | GemmgenError],
    *,
    out: str | Path | None = None,
    progress: Callable[[], None] = lambda: None,
) -> list[Build | GemmgenError]:
    """As `build_kernels`, of plans; what is an error stays one. Without `out`, names may be equal:
    the cache goes by content."""
    if out is not None:
        _refuse_equal_names(plans)
    if len(plans) == 1:
        return [_outcome(plans[0], out)]
    from concurrent.futures import ThreadPoolExecutor, as_completed  # 15 ms that one does not pay

    # Threads do: NVRTC runs outside of the interpreter's lock, and ptxas in its own process.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        builds = [pool.submit(_outcome, plan, out) for plan in plans]
        try:
            for _ in as_completed(builds):
                progress()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [build.result() for build in builds]


def pack(
    plans: Sequence[KernelPlan], path: str | Path, *, progress: Callable[[], None] = lambda: None
) -> list[Build]:
    """Build kernels side by side and put them into one file, for machines without a compiler.

    `gemmgen.add_bundle(path)`, or the variable GEMMGEN_BUNDLES, makes builds find them there.
    Raises the error of the first that cannot be built, and OutputError.
    """
    builds = []
    for outcome in build_plans(plans, progress=progress):
        if isinstance(outcome, GemmgenError):
            raise outcome
        builds.append(outcome)
    requests = [_ordered(plan, render(plan)).key({}) for plan in plans]
    bundle.write(Path(path), dict(zip(requests, (b.artifact for b in builds), strict=True)))
    return builds


def build_plan(plan: KernelPlan, *, out: str | Path | None = None) -> Build:
    """The kernel of a plan; see `build_kernel`."""
    return build_text(plan, render(plan), out=out)


def build_text(plan: Buildable, source: str, *, out: str | Path | None = None) -> Build:
    """The kernel whose plan and text these are; see `build_kernel`."""
    start = time.perf_counter()
    built, origin = _obtain(_ordered(plan, source))
    count(f"{origin}s")
    if isinstance(plan, KernelPlan):
        # The key vouches for the plan, and to read it takes longer than the rest of a hit.
        built.__dict__.setdefault("plan", plan)
    if out is not None:
        built = _place(built, Path(out))
    return Build(built, origin != "build", time.perf_counter() - start)


@dataclass(frozen=True)
class Ordered:
    """All that a kernel is made of, but for the compilers."""

    plan: Buildable
    source: str
    passes: tuple[tuple[str, int], ...]  # SASS passes and their versions

    def key(self, toolchain: Mapping[str, str]) -> str:
        """Its name in the cache; with no toolchain, its name in a bundle."""
        return cache_key(self.plan.to_json(), self.source, toolchain, self.passes)


def _ordered(plan: Buildable, source: str) -> Ordered:
    passes = [sass_patch.parse_pass(text) for text in plan.sass.passes]
    return Ordered(plan, source, tuple((str(step), step.version) for step in passes))


def _obtain(ordered: Ordered) -> tuple[Artifact, str]:
    """From the user's cache, from a bundle, or from the compilers, and which of them."""
    try:
        toolchain = find_toolchain(ordered.plan.sass.toolchain)
    except ToolchainError:
        if bundled := bundle.find(ordered.key({})):
            return bundled, "bundle_hit"
        raise
    cache, key = Cache(default_root()), ordered.key(toolchain.identity)
    if found := cache.find(key):
        return found, "cache_hit"
    if bundled := bundle.find(ordered.key({})):
        return bundled, "bundle_hit"
    refuse_if_sealed(
        "a kernel would have to be compiled",
        where=ordered.plan.name,
        fix="build it before sealing: gemmgen warmup, gemmgen build, or a bundle",
    )
    origin = "cache_hit"  # of a kernel that another process builds meanwhile

    def make() -> dict[str, bytes]:
        nonlocal origin
        origin = "build"
        return _make(ordered, toolchain, key)

    return cache.build_once(key, make), origin


def _make(ordered: Ordered, toolchain: Toolchain, key: str) -> dict[str, bytes]:
    """The files of an artifact, from the compilers."""
    plan, source = ordered.plan, ordered.source
    compiled = compile_cuda(
        source, plan.name, toolchain, allow=frozenset(map(Flaw, plan.sass.allow))
    )
    if isinstance(plan, KernelPlan):
        _check_registers(plan, compiled)
    patched = sass_patch.patch(compiled.cubin, passes=plan.sass.passes)
    files = {
        artifact.SOURCE: source.encode(),
        artifact.PTX: compiled.ptx.encode(),
        artifact.UNPATCHED_CUBIN: compiled.cubin,
        artifact.CUBIN: patched.cubin,
        artifact.LOG: compiled.log.encode(),
    }
    return artifact.assemble(
        plan,
        files,
        key=key,
        toolchain=toolchain.identity,
        resources=asdict(compiled.resources),
        sass=tuple(asdict(report) for report in patched.reports),
    )


def _check_registers(plan: KernelPlan, compiled: CompileResult) -> None:
    """setmaxnreg.inc waits for ever when the launch handed out fewer registers than it takes."""
    warps, registers = plan.warps, compiled.resources.registers
    if warps.moves_registers and registers != warps.launch_registers:
        raise CompileError(
            "ptxas allots another number of registers than setmaxnreg counts on",
            where=plan.name,
            expected=f"{warps.launch_registers} registers a thread at launch",
            got=registers,
            fix="another `toolchain:`, or other `warpgroups:`",
        )


def _place(built: Artifact, out: Path) -> Artifact:
    """The artifact in its folder below `out`; what lies there already is not written again."""
    folder = out / built.name
    try:
        present = artifact.read(folder)
    except ArtifactError:
        return artifact.write(built.files, folder)
    return present if present.manifest == built.manifest else artifact.write(built.files, folder)


def _lowered(spec: GemmSpec, target: Target) -> KernelPlan | GemmgenError:
    try:
        return lower(spec, target)
    except GemmgenError as error:
        return error


def _outcome(plan: KernelPlan | GemmgenError, out: str | Path | None) -> Build | GemmgenError:
    if isinstance(plan, GemmgenError):
        return plan
    try:
        return build_plan(plan, out=out)
    except GemmgenError as error:
        return error


def _refuse_equal_names(plans: Sequence[KernelPlan | GemmgenError]) -> None:
    """A name is a folder and a symbol, so it belongs to one kernel."""
    first: dict[str, tuple[int, KernelPlan]] = {}
    for number, plan in enumerate(plans, start=1):
        if isinstance(plan, GemmgenError):
            continue
        earlier, other = first.setdefault(plan.name, (number, plan))
        if other != plan:
            raise SpecError(
                "two different kernels have one name",
                where=f"kernels {earlier} and {number} of {len(plans)}",
                expected="a name for each",
                got=plan.name,
                fix="give one of them a `name:` of its own",
                detail=f"{other.spec}\n{plan.spec}",
            )
