"""`tidegauge check`, `targets` and `keys`."""

from typing import Annotated

import typer

from catalog.clock import SystemClock
from service import live_check
from service.auth import KeyFileBroken, KeyStore, Role, UnknownKey
from service.commands import explain
from service.commands.common import (
    FAILED,
    ConfigFile,
    DataDirectory,
    Json,
    ask,
    fail,
    load,
    out,
    print_json,
    print_table,
)

keys_app = typer.Typer(no_args_is_help=True, help="API keys of a data directory.")


def check(
    config: ConfigFile = None,
    live: Annotated[bool, typer.Option("--live", help="Scrape every target; name queries without data.")] = False,
    as_json: Json = False,
) -> None:
    """Validate the configuration; with --live also what it points at, and what arrives.

    Example: tidegauge check -c tidegauge.yaml --live
    """
    loaded = load(config)
    if not live:
        if as_json:
            print_json({"valid": True})
        else:
            out.print("configuration is valid")
        return
    targets, silent = live_check.look(loaded)
    arrivals = explain.look(loaded)["findings"]
    if as_json:
        print_json({"targets": targets, "silent": [vars_of(item) for item in silent], "arrivals": arrivals})
    else:
        print_table(["target", "up", "engine", "problem"], (list(row.values()) for row in targets), "Targets")
        print_table(
            ["kind", "where", "no data because"],
            ([item.kind, item.place, "; ".join(item.reasons)] for item in silent),
            "Queries that find no data now",
        )
        out.print("\nWhat arrived over OTLP (see 'tidegauge explain')", style="italic")
        explain.show(arrivals)
    if any(not row["up"] for row in targets):
        raise typer.Exit(FAILED)


def vars_of(item: live_check.Silent) -> dict[str, object]:
    """The finding as JSON."""
    return {"kind": item.kind, "where": item.place, "reasons": list(item.reasons)}


def targets(config: ConfigFile = None, data: DataDirectory = None, as_json: Json = False) -> None:
    """Show what the running service scrapes, and how it goes.

    Example: tidegauge targets
    """
    answer = ask(load(config, data), "/api/v1/targets")
    if as_json:
        print_json(answer["targets"])
        return
    print_table(
        ["target", "up", "engine", "models", "samples", "took", "found by", "last error"],
        (
            [row["name"], row["up"], row["engine"], ", ".join(row["models"]), row["samples"],
             "" if row["last_duration_s"] is None else f"{1000 * row['last_duration_s']:.0f} ms", row["source"],
             row["last_error"]]
            for row in answer["targets"]
        ),
    )  # fmt: skip
    for fault in answer["discovery"]["errors"]:
        typer.echo(f"targets: {fault}", err=True)
    for reason, count in answer["discovery"]["dropped"].items():
        typer.echo(f"{count} targets left out: {reason}")


def _store(config: ConfigFile, data: DataDirectory) -> KeyStore:
    directory = load(config, data).data
    directory.mkdir(parents=True, exist_ok=True)
    return KeyStore(directory, SystemClock())


@keys_app.command("create")
def keys_create(
    role: Annotated[Role, typer.Option("--role", help="What the key may do.")] = Role.READ,
    name: Annotated[str, typer.Option("--name", help="Whose it is.")] = "",
    tenant: Annotated[list[str] | None, typer.Option("--tenant", help="Bind it; may be given several times.")] = None,
    config: ConfigFile = None,
    data: DataDirectory = None,
) -> None:
    """Make a key; its text is shown once.

    Example: tidegauge keys create --role ingest --name gateway
    """
    try:
        key, text = _store(config, data).create(role, name=name, tenants=tenant)
    except (ValueError, KeyFileBroken) as error:
        fail(str(error))
    typer.echo(text)
    out.print(f"key {key.key_id}, role {key.role}; the text above is not shown again", style="dim")


@keys_app.command("list")
def keys_list(config: ConfigFile = None, data: DataDirectory = None, as_json: Json = False) -> None:
    """Show the keys, without their texts.

    Example: tidegauge keys list
    """
    try:
        rows = [key.public() for key in _store(config, data).list()]
    except KeyFileBroken as error:
        fail(str(error))
    if as_json:
        print_json(rows)
        return
    print_table(
        ["id", "role", "tenants", "name", "revoked"],
        ([r["key_id"], r["role"], ", ".join(r["tenants"] or ()), r["name"], r["revoked_at"]] for r in rows),
    )


@keys_app.command("revoke")
def keys_revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id.")], config: ConfigFile = None, data: DataDirectory = None
) -> None:
    """End a key at once.

    Example: tidegauge keys revoke 1f2e3d4c
    """
    try:
        _store(config, data).revoke(key_id)
    except (UnknownKey, KeyFileBroken) as error:
        fail(str(error), FAILED)
    out.print(f"revoked {key_id}")
