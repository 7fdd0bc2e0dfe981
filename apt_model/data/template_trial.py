"""Try a chat template out in a process of its own, with limits of time and memory: one may run for ever.

Knows jinja templates; knows nothing of tokenizers. A template is a program that comes with a model: a loop in a loop,
or `'a' * 10**10`, ends neither by itself nor, within one call into C, by us. The process knows transformers' sandbox
only roughly: that a template raises there says nothing; that it does not end, or fills the memory, does.
"""

import json
import subprocess
import sys
from functools import lru_cache

SECONDS, MEGABYTES = 5, 1024

_CHILD = """
import json, sys
try:
    import resource
    room = {megabytes} << 20
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except ImportError:
    pass
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
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
except (Exception, RecursionError):
    pass
"""
_TURNS = (("user", "a river?"), ("assistant", "the Loire"), ("user", "a lake?"), ("assistant", "Como"))


@lru_cache(maxsize=64)
def why_endless(source: str) -> str | None:
    """What a chat template does that it must not, by trying it on short chats; None if it ends as it should.

    Without a Python to start, or without jinja2 beside it, nothing is tried.
    """
    turns = [{"role": role, "content": words} for role, words in _TURNS]
    parts = [{"role": role, "content": [{"type": "text", "text": words}]} for role, words in _TURNS]
    system = {"role": "system", "content": "be brief"}
    chats = [turns[:1], turns, [system, *turns], parts]
    command = [sys.executable, "-I", "-c", _CHILD.replace("{megabytes}", str(MEGABYTES))]
    try:
        tried = subprocess.run(
            command, input=json.dumps([source, chats]).encode(), capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it does not end within {SECONDS} seconds"
    except OSError:
        return None
    if tried.stdout.strip() == b"memory":
        return f"it needs more than {MEGABYTES} MB of memory"
    return "it ends the process" if tried.returncode < 0 else None
