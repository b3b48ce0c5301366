"""`bendi pull`: downloads models."""

from __future__ import annotations

import argparse
from dataclasses import replace

from bendi.cli import output
from bendi.errors import UsageError
from bendi.i18n import _
from bendi.settings import load_settings
from bendi.store import Store
from bendi.store.names import AliasName, RepoName, format_name, parse_name, typed
from bendi.store.progress import Progress
from bendi.store.pull import PullEvents, PullResult, pull, pull_record, remote_names
from bendi.store.remote import canonical
from bendi.store.sources import list_remote, open_transport
from bendi.store.transport import DownloadOptions
from bendi.store.variants import group
from bendi.units import format_size


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "names", nargs="+", metavar="NAME",
        help=_("hf:org/repo[:Q4_K_M], ms:org/repo, ollama:name:tag, https://.../file.gguf, or a short name"),
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help=_("only list what a repository has"))
    parser.add_argument("--from", dest="source", choices=("hf", "ms"), help=_("where to take a short name from"))
    parser.add_argument("--force", action="store_true", help=_("download although it is here"))
    parser.add_argument("--connections", type=int, metavar="N", help=_("requests at once (default 4)"))
    parser.add_argument("--retries", type=int, metavar="N", help=_("failures in a row before giving up (default 6)"))
    parser.add_argument(
        "--stall", type=float, metavar="SECONDS", help=_("silence after which a connection is dead (default 30)")
    )
    parser.add_argument("--json", action="store_true", help=_("the result as JSON"))


def run(args: argparse.Namespace) -> int:
    store = Store(load_settings())
    if args.list:
        return _list(store, args)
    results = []
    for text in args.names:
        try:
            results.append(_pull(store, text, args))
        except KeyboardInterrupt:
            output.say("")
            again = f"bendi pull {typed(text)}"
            output.say(_("What has arrived is kept. To continue: {command}").format(command=again))
            raise
    if args.json:
        output.json_data([pull_record(result) for result in results])
    else:
        for result in results:
            output.data(str(result.model.path))
    return 0


def _options(args: argparse.Namespace) -> DownloadOptions:
    options = DownloadOptions()
    for field, value in (("connections", args.connections), ("attempts", args.retries), ("stall_s", args.stall)):
        if value is not None:
            if value <= 0:
                raise UsageError(_("{value} must be more than zero").format(value=value))
            options = replace(options, **{field: value})
    return options


def _pull(store: Store, text: str, args: argparse.Namespace) -> PullResult:
    with output.progress(text) as bar:

        def show(progress: Progress) -> None:
            note = _("checking") if progress.phase == "check" else ""
            bar.update(progress.done_bytes, progress.total_bytes, note)

        events = PullEvents(progress=show, note=output.say)
        result = pull(store, text, options=_options(args), events=events, force=args.force, source=args.source)
    name, size = result.model.name, format_size(result.model.size_bytes)
    if result.status == "downloaded":
        output.say(_("{name}: {size}, downloaded and verified").format(name=name, size=size))
    elif result.status == "present":
        output.say(_("{name}: {size}, already here").format(name=name, size=size))
    else:
        output.say(
            _("{name}: {size}, already on this machine ({origin}); it is used where it lies").format(
                name=name, size=size, origin=result.model.origin
            )
        )
    return result


def _list(store: Store, args: argparse.Namespace) -> int:
    rows: list[tuple[str, str, int, int]] = []
    with open_transport(store.settings, _options(args)) as transport:
        for text in args.names:
            name = parse_name(text)
            target = remote_names(store, text, args.source)[0] if isinstance(name, AliasName) else name
            if not isinstance(target, RepoName):
                raise UsageError(
                    _("{name} is not a repository: it has one model").format(name=text),
                    hint=_("To download it: {command}").format(command=f"bendi pull {typed(text)}"),
                )
            target = replace(target, quant=None, file=None)
            files = list_remote(target, transport, store.settings)
            variants, incomplete = group(files)
            for variant in variants:
                spelled = format_name(canonical(target, files, variant))
                rows.append((spelled, variant.label, variant.size_bytes, len(variant.files)))
            for variant in incomplete:
                output.say(_("{file}: not all of its parts are there").format(file=variant.path))
    if args.json:
        keys = ("name", "quantization", "size_bytes", "files")
        output.json_data([dict(zip(keys, row, strict=True)) for row in rows])
        return 0
    columns = (_("NAME"), _("QUANTIZATION"), _("SIZE"), _("FILES"))
    table = [(name, label, format_size(size), str(count)) for name, label, size, count in rows]
    output.table(columns, table, right=frozenset({2, 3}))
    return 0
