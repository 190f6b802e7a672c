"""The emulator put together, and served: one port, loopback only."""

from __future__ import annotations

import asyncio
import faulthandler
import ipaddress
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated, Any

import orjson
import typer
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from llm_assets.emulator import anthropic, control, openai_files
from llm_assets.emulator.accounting import Accounting
from llm_assets.emulator.anthropic import Anthropic
from llm_assets.emulator.clock import Clock
from llm_assets.emulator.control import Control, ControlError
from llm_assets.emulator.faults import ANTHROPIC, FaultFileError, Faults, parse_rules, read_rules
from llm_assets.emulator.gate import Gate, TransportInState, provider_of
from llm_assets.emulator.jobs import Engine, Settings
from llm_assets.emulator.limits import Limits
from llm_assets.emulator.models import Model, ModelUnavailable, load_model
from llm_assets.emulator.openai import OpenAI
from llm_assets.emulator.openai_files import OpenAIError
from llm_assets.emulator.rows import Problem
from llm_assets.emulator.storage import Storage

_BACKLOG = 512


class NotLoopback(ValueError):
    """The emulator would be reachable from elsewhere, where it could be taken for a vendor."""


@dataclass(frozen=True)
class Emulator:
    """The application and what it is made of. `close` it when done."""

    app: ASGIApp
    engine: Engine

    def close(self) -> None:
        """End the worker and close the state."""
        self.engine.stop_worker()
        self.engine.storage.close()


def build(model: Model, state_dir: Path, *, faults_path: Path | None = None, latency_s: float = 0.0) -> Emulator:
    """Put the emulator together over a state directory, which may hold an earlier state."""
    storage = Storage(state_dir)
    clock = Clock(**(storage.setting("clock") or {}))
    settings = Settings(latency_s=latency_s, held=bool(storage.setting("held")))
    engine = Engine(storage, clock, _faults(storage, clock, faults_path), model, settings)
    limits, accounting = Limits(), Accounting(storage)
    vendors = (Anthropic(engine, limits, accounting), OpenAI(engine, limits, accounting))
    routes = [route for vendor in vendors for route in vendor.routes()]
    for vendor in vendors:
        engine.register(vendor)
    app = Starlette(
        routes=[*routes, *Control(engine, limits, accounting).routes()],
        exception_handlers={
            anthropic.ApiError: _anthropic_error,
            OpenAIError: _openai_error,
            ControlError: _control_error,
            HTTPException: _http_error,
        },
    )
    gate = Gate(
        app, routes, model=model.name, storage=storage, clock=clock, faults=engine.faults, accounting=accounting
    )
    engine.start_worker()
    return Emulator(gate, engine)


def serve(
    host: str, port: int, model: str, faults_path: Path | None, state_dir: Path | None, latency_s: float = 0.0
) -> None:
    """Serve until interrupted. When ready, prints one line of JSON: `{"url": …, "model": …}`.

    Port 0 takes a free one. NotLoopback, ModelUnavailable and FaultFileError say what is wrong before anything starts.
    """
    check_loopback(host)
    folder = state_dir or Path(mkdtemp(prefix="llm_assets_emulator_"))
    loaded = load_model(model)
    emulator = build(loaded, folder, faults_path=faults_path, latency_s=latency_s)
    try:
        with _listening(host, port) as listener:
            asyncio.run(_run(emulator, listener, loaded.name))
    except KeyboardInterrupt:
        pass
    finally:
        emulator.close()
        typer.echo("emulator: stopped", err=True)  # whose log ends without this was killed


def main(
    host: Annotated[str, typer.Option(help="The address to listen on; loopback only.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port; 0 takes a free one.")] = 8089,
    model: Annotated[str, typer.Option(help="What answers: scripted or smollm2.")] = "scripted",
    faults: Annotated[Path | None, typer.Option(help="A YAML or JSON file of faults.")] = None,
    state_dir: Annotated[Path | None, typer.Option(help="The folder that its state lives in.")] = None,
    latency: Annotated[float, typer.Option(min=0, help="Seconds that a batch takes at least.")] = 0,
) -> None:
    """Serve both batch APIs on this machine: Anthropic's at the root, OpenAI's under /v1."""
    faulthandler.enable()  # models run native code
    try:
        serve(host, port, model, faults, state_dir, latency)
    except (NotLoopback, ModelUnavailable, FaultFileError, OSError) as error:
        typer.echo(f"emulator: {error}", err=True)
        raise typer.Exit(1) from None


def check_loopback(host: str) -> None:
    """NotLoopback when a host is not this machine's own."""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise NotLoopback(f"refusing to listen on {host!r}: the emulator serves 127.0.0.1, ::1 or localhost only")


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # A reply's head and body are two writes: without this the second waits 40 ms for the first's acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}; --port takes another") from None
    return listener


async def _run(emulator: Emulator, listener: socket.socket, model: str) -> None:
    config = uvicorn.Config(
        emulator.app,
        http=TransportInState,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    # The socket listens already: who reads this line can connect.
    sys.stdout.write(orjson.dumps({"url": f"http://{shown}:{port}", "model": model}).decode() + "\n")
    sys.stdout.flush()
    await server.serve(sockets=[listener])


def _faults(storage: Storage, clock: Clock, path: Path | None) -> Faults:
    """The rules of the file; without one those that were set before the restart. What fired has fired."""
    kept = storage.setting("faults")
    if path is not None:
        rules = read_rules(path)
        return Faults(rules, set_at=clock.now(), fired=_fired(storage))
    if kept is None:
        return Faults()
    return Faults(parse_rules(kept["rules"]), set_at=kept["set_at"], fired=_fired(storage))


def _fired(storage: Storage) -> dict[tuple[str, bytes], int]:
    return {(row["rule"], row["content"]): row["times"] for row in storage.query("SELECT * FROM fired")}


async def _anthropic_error(request: Request, error: Any) -> Response:
    return anthropic.error_reply(error.problem, request.scope.get("emulator.request_id", ""))


async def _openai_error(request: Request, error: Any) -> Response:
    return openai_files.error_reply(error.problem)


async def _control_error(request: Request, error: Any) -> Response:
    return control.error_reply(error)


async def _http_error(request: Request, error: Any) -> Response:
    """What the router itself refuses: unknown paths and methods."""
    path, method = request.url.path, request.method
    if not path.startswith("/v1"):
        return control.error_reply(ControlError(f"{method} {path}: {error.detail}"))
    if provider_of(path) == ANTHROPIC:
        kind = "not_found_error" if error.status_code == 404 else "invalid_request_error"
        return await _anthropic_error(request, anthropic.ApiError(error.status_code, kind, str(error.detail)))
    message = f"Invalid URL ({method} {path})"
    return openai_files.error_reply(Problem("invalid_request_error", message, error.status_code))
