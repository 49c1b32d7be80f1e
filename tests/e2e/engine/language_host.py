"""The language host for Python programs, where no installation of Pulumi brings its own.

A test double of ``pulumi-language-python``. It runs a program as that does: in the program's
folder, in the virtual environment that the project names, errors told once. It does not install
dependencies, make projects or SDKs, run other plugins than policy packs, attach a debugger, or say
which plugins a program needs.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import language_pb2, language_pb2_grpc, plugin_pb2

from . import properties
from .errors import EngineError
from .serving import serve

RUNNER = Path(__file__).with_name("run_program.py")
PYTHON_ENVIRONMENT = {"PATH", "VIRTUAL_ENV", "PYTHONHOME"}
"""What the chosen interpreter decides, not the engine."""
TOLD = 32
"""The exit code of a program whose error the user has already been told."""


class LanguageHost(language_pb2_grpc.LanguageRuntimeServicer):
    """Runs programs; one after another is enough for one engine."""

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._running: set[subprocess.Popen[str] | subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    def Handshake(
        self, request: language_pb2.LanguageHandshakeRequest, context: grpc.ServicerContext
    ) -> language_pb2.LanguageHandshakeResponse:
        return language_pb2.LanguageHandshakeResponse()

    def GetPluginInfo(
        self, request: empty_pb2.Empty, context: grpc.ServicerContext
    ) -> plugin_pb2.PluginInfo:
        return plugin_pb2.PluginInfo(version="3.0.0")

    def About(
        self, request: language_pb2.AboutRequest, context: grpc.ServicerContext
    ) -> language_pb2.AboutResponse:
        version = ".".join(map(str, sys.version_info[:3]))
        return language_pb2.AboutResponse(executable=sys.executable, version=version)

    def GetRequiredPlugins(
        self, request: language_pb2.GetRequiredPluginsRequest, context: grpc.ServicerContext
    ) -> language_pb2.GetRequiredPluginsResponse:
        return language_pb2.GetRequiredPluginsResponse()

    def GetRequiredPackages(
        self, request: language_pb2.GetRequiredPackagesRequest, context: grpc.ServicerContext
    ) -> language_pb2.GetRequiredPackagesResponse:
        return language_pb2.GetRequiredPackagesResponse()

    def GetProgramDependencies(
        self, request: language_pb2.GetProgramDependenciesRequest, context: grpc.ServicerContext
    ) -> language_pb2.GetProgramDependenciesResponse:
        return language_pb2.GetProgramDependenciesResponse()

    def Run(
        self, request: language_pb2.RunRequest, context: grpc.ServicerContext
    ) -> language_pb2.RunResponse:
        try:
            python, environment = _python(request.info)
        except EngineError as error:
            return language_pb2.RunResponse(error=str(error))
        # Unbuffered, so that what it prints is in the engine's log as it is printed, and in this
        # process's own stdout and stderr, which the engine reads.
        program = subprocess.Popen(
            [str(python), "-u", str(RUNNER)],
            cwd=request.info.program_directory,
            env=environment,
            stdin=subprocess.PIPE,
            text=True,
        )
        with self._lock:
            self._running.add(program)
        try:
            program.communicate(json.dumps(self._start(request)))
        finally:
            with self._lock:
                self._running.discard(program)
        if program.returncode == TOLD:
            return language_pb2.RunResponse(bail=True)
        if program.returncode:
            error = f"Program exited with non-zero exit code: {program.returncode}"
            return language_pb2.RunResponse(error=error)
        return language_pb2.RunResponse()

    def RunPlugin(
        self, request: language_pb2.RunPluginRequest, context: grpc.ServicerContext
    ) -> Iterator[language_pb2.RunPluginResponse]:
        """Run a policy pack's folder, and pass on what it says: its port comes first."""
        if request.kind != "analyzer":
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "this test double runs policy packs only")
        try:
            python, environment = _python(request.info)
        except EngineError as error:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        given = dict(entry.split("=", 1) for entry in request.env if "=" in entry)
        environment |= {key: value for key, value in given.items() if key not in PYTHON_ENVIRONMENT}
        pack = subprocess.Popen(
            [str(python), "-u", request.info.program_directory, *request.args],
            cwd=request.pwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with self._lock:
            self._running.add(pack)
        # A pack serves until it is ended: the engine does so by ending this call.
        context.add_callback(pack.terminate)
        yield from _said(pack)
        with self._lock:
            self._running.discard(pack)
        yield language_pb2.RunPluginResponse(exitcode=pack.wait())

    def Cancel(self, request: empty_pb2.Empty, context: grpc.ServicerContext) -> empty_pb2.Empty:
        self.cancel()
        return empty_pb2.Empty()

    def cancel(self) -> None:
        """End every program under way."""
        with self._lock:
            for program in self._running:
                program.terminate()

    def _start(self, request: language_pb2.RunRequest) -> dict[str, Any]:
        """What the program's process is told, on its standard input: no one else sees it there."""
        return {
            "options": {
                "project": request.project,
                "stack": request.stack,
                "root_directory": request.info.root_directory,
                "parallel": request.parallel,
                "engine_address": self._engine,
                "monitor_address": request.monitor_address,
                "preview": request.dryRun,
                "organization": request.organization,
            },
            "config": dict(request.config),
            "secrets": list(request.configSecretKeys),
            "program": request.info.entry_point or ".",
            "arguments": list(request.args),
        }


def _said(process: subprocess.Popen[bytes]) -> Iterator[language_pb2.RunPluginResponse]:
    """What a process writes, as it writes it, until it has ended."""
    ended = object()
    parts: queue.SimpleQueue[language_pb2.RunPluginResponse | object] = queue.SimpleQueue()

    def read(stream: IO[bytes], name: str) -> None:
        for line in stream:
            parts.put(language_pb2.RunPluginResponse(**{name: line}))
        parts.put(ended)

    streams = {"stdout": process.stdout, "stderr": process.stderr}
    for name, stream in streams.items():
        threading.Thread(target=read, args=(stream, name), daemon=True).start()
    open_streams = len(streams)
    while open_streams:
        part = parts.get()
        if isinstance(part, language_pb2.RunPluginResponse):
            yield part
        else:
            open_streams -= 1


def _python(info: language_pb2.ProgramInfo) -> tuple[Path, dict[str, str]]:
    """The interpreter for a program and its environment.

    Raises EngineError where the project names a virtual environment that is none.
    """
    environment = dict(os.environ)
    name = properties.decode(info.options).get("virtualenv")
    if name is None:
        found = shutil.which("python3") or shutil.which("python")
        if found is None:
            raise EngineError("no python3 on PATH")
        return Path(found), environment
    folder = Path(info.root_directory, name)
    python = folder / "bin" / "python"
    if not python.exists():
        raise EngineError(f"the virtualenv {name} of Pulumi.yaml is no virtual environment")
    environment.pop("PYTHONHOME", None)
    environment["VIRTUAL_ENV"] = str(folder)
    environment["PATH"] = os.pathsep.join([str(python.parent), environment.get("PATH", "")])
    return python, environment


def main() -> None:
    # The engine's address is the last of the arguments.
    host = LanguageHost(sys.argv[-1])
    serve(
        lambda server: language_pb2_grpc.add_LanguageRuntimeServicer_to_server(host, server),
        host.cancel,
    )
