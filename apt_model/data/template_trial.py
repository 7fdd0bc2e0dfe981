"""Try a chat template out in a process of its own, with limits of time and memory: one may run for ever.

Knows jinja templates; knows nothing of tokenizers. A template is a program that comes with a model: a loop in a loop,
or `'a' * 10**10`, ends neither by itself nor, within one call into C, by us. The process knows transformers' sandbox
only roughly: that a template raises there says nothing; that it does not end, or fills the memory, does.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

SECONDS, MEGABYTES = 5, 1024
STARTS = 60  # seconds that a Python may take to start

_CHILD = """
import json, sys
sys.path += sys.argv[1:]
for name, most in (("RLIMIT_AS", {megabytes} << 20), ("RLIMIT_CORE", 0)):
    try:
        import resource
        resource.setrlimit(getattr(resource, name), (most, most))
    except (ImportError, ValueError, OSError):
        pass
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
print("ready", flush=True)
source, chats = json.load(sys.stdin)
try:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = lambda value, indent=None, **how: json.dumps(value, indent=indent)
    environment.globals["strftime_now"] = lambda form: form
    environment.globals["dict"] = dict
    template = environment.from_string(source)
    for chat in chats:
        for asks in (False, True):
            try:
                template.render(messages=chat, add_generation_prompt=asks, bos_token="", eos_token="")
            except MemoryError:
                raise
            except Exception:
                pass
except MemoryError:
    print("memory")
except Exception:
    pass
"""
_TURNS = (("user", "a river?"), ("assistant", "the Loire"), ("user", "a lake?"), ("assistant", "Como"))


@lru_cache(maxsize=64)
def why_endless(source: str) -> str | None:
    """What a chat template does that it must not, by trying it on short chats; None if it ends as it should.

    The time counts from where the process is ready, however long a Python takes to start. Without one to start (none is
    known, or the program is frozen), without jinja2 beside it, or where none is ready within a minute, nothing is tried
    and None is returned: then only `template_run.apply` ends a template, by its own limit of time. Where the system has
    no limit of memory (macOS, Windows), a template is only tried for whether it ends.
    """
    turns = [{"role": role, "content": words} for role, words in _TURNS]
    parts = [{"role": role, "content": [{"type": "text", "text": words}]} for role, words in _TURNS]
    system = {"role": "system", "content": "be brief"}
    chats = [turns[:1], turns, [system, *turns], parts]
    if not sys.executable or getattr(sys, "frozen", False):
        return None
    code = _CHILD.replace("{megabytes}", str(MEGABYTES))
    command = [sys.executable, "-I", "-c", code, *filter(None, sys.path)]
    try:
        with _started(command) as child:
            return _tried(child, json.dumps([source, chats]).encode())
    except OSError:
        return None


@contextmanager
def _started(command: list[str]) -> Iterator["subprocess.Popen[bytes]"]:
    """Context manager: a process with pipes, killed at the end."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, bufsize=0) as child:
        try:
            yield child
        finally:
            child.kill()


def _tried(child: "subprocess.Popen[bytes]", sent: bytes) -> str | None:
    assert child.stdout is not None  # noqa: S101 - it has a pipe
    late = threading.Timer(STARTS, child.kill)
    late.start()
    is_ready = child.stdout.readline().strip() == b"ready"
    late.cancel()
    if not is_ready:
        return None
    try:
        said, _ = child.communicate(sent, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return f"it does not end within {SECONDS} seconds"
    if said.strip() == b"memory":
        return f"it needs more than {MEGABYTES} MB of memory"
    return "it ends the process" if child.returncode < 0 else None
