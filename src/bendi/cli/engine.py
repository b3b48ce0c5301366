"""`bendi engine`: builds of llama.cpp made for this machine: make, list, test, use and remove them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from bendi.cli import output
from bendi.cli.calibrate import measure
from bendi.cli.engine_text import build_row, engine_rows, print_rows
from bendi.engines import native_builds
from bendi.engines.native_build import build as make_build
from bendi.engines.native_builds import NativeBuild
from bendi.engines.native_proof import Trial, prove
from bendi.engines.native_recipe import DEFAULT_RECIPE, RECIPES, SMALL_TARGETS, TARGETS
from bendi.errors import BendiError, EngineUnsupported
from bendi.i18n import _
from bendi.settings import Settings, load_settings
from bendi.store.lock import locked
from bendi.units import format_duration


def configure(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar=_("ACTION"), required=True)
    building = verbs.add_parser("build", help=_("compile llama.cpp for this CPU, test it, measure it and use it"))
    recipes_help = "; ".join(f"{recipe.name}: {_(recipe.summary)}" for recipe in RECIPES.values())
    building.add_argument("--recipe", choices=tuple(RECIPES), default=DEFAULT_RECIPE, help=recipes_help)
    building.add_argument("--again", action="store_true", help=_("build even when this build is there"))
    building.add_argument("--small", action="store_true", help=_("only llama-server and llama-quantize"))
    building.add_argument("--no-calibrate", action="store_true", help=_("do not measure its speed"))
    building.add_argument("--no-use", action="store_true", help=_("do not use it yet"))
    listing = verbs.add_parser("list", help=_("the builds, their state and speed; the one in use is marked"))
    testing = verbs.add_parser("test", help=_("compare what a build computes with the wheel, again"))
    testing.add_argument("build", nargs="?", default="", metavar="ID", help=_("all builds, if left out"))
    testing.add_argument(
        "--quick", action="store_true", help=_("only the most used types of weights; only a failure is kept")
    )
    using = verbs.add_parser("use", help=_("load models with this build from now on"))
    using.add_argument("build", metavar="ID|wheel", help=_("a name from `bendi engine list`, or `wheel`"))
    removing = verbs.add_parser("remove", help=_("delete a build"))
    removing.add_argument("build", metavar="ID", help=_("a name from `bendi engine list`"))
    for action in (building, listing, testing, using, removing):
        action.add_argument("--json", action="store_true", help=_("as JSON"))


def run(args: argparse.Namespace) -> int:
    settings = load_settings()
    actions: dict[str, Callable[[argparse.Namespace, Settings], int]] = {
        "build": _build,
        "list": _list,
        "test": _test,
        "use": _use,
        "remove": _remove,
    }
    return actions[args.verb](args, settings)


def _build(args: argparse.Namespace, settings: Settings) -> int:
    if settings.engine not in (None, "native"):
        output.say(
            _("Note: BENDI_ENGINE={name} decides which engine runs, whatever is built.").format(name=settings.engine)
        )
    targets = SMALL_TARGETS if args.small else TARGETS
    try:
        with output.progress(_("building"), unit="items") as bar:
            made = make_build(settings, args.recipe, bar.update, targets, again=args.again)
    except KeyboardInterrupt:
        output.say("")
        again = f"bendi engine build --recipe {args.recipe}" + (" --small" if args.small else "")
        output.say(_("What is compiled is kept. To go on: {command}").format(command=again))
        raise
    output.say(
        _("{name}: built in {time} with {compiler}").format(
            name=made.build_id, time=format_duration(made.manifest.took_s), compiler=made.manifest.compiler
        )
    )
    if native_builds.state_of(made) != "proven" or args.again:
        made = _prove(made, settings, Trial())
    if made.proof is None or not made.proof.proven:
        raise _refusal(made)
    if not args.no_use:
        native_builds.set_in_use(settings, made)
        output.say(
            _("{name} is used from now on. Back to the wheel: bendi engine use wheel").format(name=made.build_id)
        )
    if not args.no_calibrate and (args.again or not build_row(settings, made).speed):
        measure(replace(settings, engine=made.build_id))
    return _show([made], settings, as_json=args.json)


def _prove(build: NativeBuild, settings: Settings, trial: Trial) -> NativeBuild:
    with (
        locked(native_builds.engines_folder(settings) / ".lock", wait=False),
        output.progress(_("testing"), unit="items") as bar,
    ):
        proven = prove(build, settings, bar.update, trial)
    assert proven.proof is not None
    if proven.proof.proven:
        output.say(
            _("{name}: {count} comparisons with the wheel passed in {time}").format(
                name=build.build_id, count=proven.proof.cases, time=format_duration(proven.proof.took_s)
            )
        )
    else:
        output.say(native_builds.why_not(proven, "refused"))
    return proven


def _refusal(build: NativeBuild) -> BendiError:
    return EngineUnsupported(
        native_builds.why_not(build, "refused"),
        hint=_("It is kept aside and not used; the wheel goes on working. Another way: {command}").format(
            command="bendi engine build --recipe zig"
        ),
    )


def _list(args: argparse.Namespace, settings: Settings) -> int:
    return _show(native_builds.all_builds(settings), settings, as_json=args.json, wheel=True)


def _test(args: argparse.Namespace, settings: Settings) -> int:
    builds = [native_builds.find_build(settings, args.build)] if args.build else native_builds.all_builds(settings)
    if not builds:
        output.say(_("There is no native build yet: {command}").format(command="bendi engine build"))
    started_s = time.monotonic()
    tested = [_prove(build, settings, Trial(quick=args.quick)) for build in builds]
    if args.json:
        output.json_data([_as_json(build, settings) for build in tested])
    else:
        for build in tested:
            state = native_builds.state_of(build)
            output.data(f"{build.build_id}  {state}")
    output.say(_("tested in {time}").format(time=format_duration(time.monotonic() - started_s)))
    failed = [build for build in tested if not (build.proof and build.proof.proven)]
    return EngineUnsupported.exit_code if failed else 0


def _use(args: argparse.Namespace, settings: Settings) -> int:
    wheel = args.build == native_builds.WHEEL
    build = None if wheel else native_builds.find_build(settings, args.build)
    native_builds.set_in_use(settings, build)
    name = build.build_id if build else native_builds.WHEEL
    if args.json:
        output.json_data({"in_use": name})
    else:
        output.say(_("{name} is used from now on.").format(name=name))
    return 0


def _remove(args: argparse.Namespace, settings: Settings) -> int:
    build = native_builds.find_build(settings, args.build)
    with locked(native_builds.engines_folder(settings) / ".lock", wait=False):
        native_builds.remove(settings, build)
    if args.json:
        output.json_data({"removed": build.build_id})
    else:
        output.say(_("{name}: removed").format(name=build.build_id))
    return 0


def _show(builds: list[NativeBuild], settings: Settings, *, as_json: bool, wheel: bool = False) -> int:
    if as_json:
        found = [_as_json(build, settings) for build in builds]
        output.json_data({"in_use": native_builds.in_use(settings) or native_builds.WHEEL, "builds": found})
        return 0
    rows = engine_rows(settings, builds) if wheel else [build_row(settings, build) for build in builds]
    print_rows(rows)
    return 0


def _as_json(build: NativeBuild, settings: Settings) -> dict[str, Any]:
    row = build_row(settings, build)
    return {
        **asdict(build.manifest),
        "state": row.state,
        "in_use": row.in_use,
        "folder": str(build.folder),
        "proof": asdict(build.proof) if build.proof else None,
        "speed": row.speed,
    }
