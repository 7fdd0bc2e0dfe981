"""A server that runs a real model and answers as vLLM, SGLang and /v1/completions do, or as none should.

Written from vLLM 0.32 (`entrypoints/openai/completion/serving.py`, `sampling_params.py`; its answers were also compared
with a running one's) and from SGLang 0.5.23 (`srt/managers/tokenizer_manager.py`, `srt/entrypoints/http_server.py`).
"""

import json
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

import torch

Row = list[tuple[int, float]]


@dataclass
class Teacher:
    """What is served, and what goes wrong.

    Attributes:
        passing: faults of the next answers, one each.
        lasting: faults of all answers.
        asked: bodies of the requests.
        most: requests that were under way at once.
    """

    model: Any
    tokenizer: Any
    limit: int = 64
    context: int | None = 64
    name: str = "teacher"
    passing: deque[str] = field(default_factory=deque)
    lasting: frozenset[str] = frozenset()
    seconds: float = 0.0
    key: str | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)
    running: int = 0
    most: int = 0
    lock: Any = field(default_factory=Lock)
    address: str = ""

    @torch.no_grad()
    def top(self, ids: list[int], k: int, temperature: float) -> list[Row | None]:
        """For each token of a prompt: itself, then the k likeliest in its place."""
        with self.lock:
            logits = self.model(input_ids=torch.tensor([ids])).logits[0, :-1].float()
        if "scaled" in self.lasting:
            logits = logits / temperature
        if "noisy" in self.lasting:
            logits = logits + torch.randn_like(logits)
        if "flat" in self.lasting:
            logits = logits * 0.5
        log_probs = logits.log_softmax(-1) + ("too likely" in self.lasting) * 1.0
        values, tokens = log_probs.topk(min(k, log_probs.shape[-1]), dim=-1)
        own = log_probs.gather(-1, torch.tensor(ids[1:])[:, None]).flatten()
        rows = zip(ids[1:], own.tolist(), tokens.tolist(), values.tolist(), strict=True)
        return [None, *([(one, value), *zip(ids, values, strict=True)] for one, value, ids, values in rows)]


def vllm(teacher: Teacher, body: dict[str, Any]) -> Any:
    ids, k = _ids(teacher, body["prompt"]), body["prompt_logprobs"]
    if k > teacher.limit:
        return 400, _error(f"Requested prompt logprobs of {k}, which is greater than max allowed: {teacher.limit}")
    told = teacher.top(ids, k, body["temperature"])
    nan = {0: float("nan")} if "nan" in teacher.lasting else {}
    say = str if "texts" not in teacher.lasting else lambda one: f"▁w{one}"
    values = [
        at and {say(one): {"logprob": nan.get(n, value), "rank": n, "decoded_token": "x"} for n, (one, value) in
                enumerate(dict(at).items())}
        for at in told
    ]  # fmt: skip
    if "short" in teacher.lasting:
        values = values[:-1]
    if "few" in teacher.lasting:
        values = [at and dict(list(at.items())[: k - 2]) for at in values]
    if "none" in teacher.lasting:
        values = None
    return 200, {"choices": [{"text": "", "prompt_logprobs": values}], "usage": {"prompt_tokens": len(ids)}}


def openai(teacher: Teacher, body: dict[str, Any]) -> Any:
    ids, k = _ids(teacher, body["prompt"]), body["logprobs"]
    told = teacher.top(ids, k, body["temperature"])
    names = [f"token_id:{one}" if "texts" not in teacher.lasting else f"▁w{one}" for one in range(10**3)]
    logprobs = {
        "tokens": [names[one] for one in ids],
        "token_logprobs": [at and at[0][1] for at in told],
        "top_logprobs": [at and {names[one]: value for one, value in at} for at in told],
    }
    return 200, {"choices": [{"text": "", "logprobs": logprobs}]}


def sglang(teacher: Teacher, body: dict[str, Any]) -> Any:
    ids = body["input_ids"] if "input_ids" in body else _ids(teacher, body["text"])
    told = teacher.top(ids, body["top_logprobs_num"], body["sampling_params"]["temperature"])
    rising = -1 if "rising" in teacher.lasting else 1
    meta = {
        "input_token_logprobs": [[at and at[0][1], one, None] for one, at in zip(ids, told, strict=True)],
        "input_top_logprobs": [at and [[value, one, None] for one, value in at[1:]][::rising] for at in told],
    }
    return 200, {"text": "", "meta_info": meta}


def _ids(teacher: Teacher, prompt: Any) -> list[int]:
    if isinstance(prompt, str):
        ids = teacher.tokenizer(prompt)["input_ids"]
        return [one ^ 1 for one in ids] if "other tokenizer" in teacher.lasting else ids
    return [1, *prompt] if "start token" in teacher.lasting else prompt


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "BadRequestError", "param": "prompt_logprobs", "code": 400}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    teacher: Teacher

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        card = {"id": self.teacher.name, "object": "model", "max_model_len": self.teacher.context}
        self._send(200, {"object": "list", "data": [card]})

    def do_POST(self) -> None:
        teacher = self.teacher
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with teacher.lock:
            teacher.running += 1
            teacher.most = max(teacher.most, teacher.running)
            teacher.asked.append(body)
            fault = teacher.passing.popleft() if teacher.passing else ""
        try:
            time.sleep(teacher.seconds)
            self._answer(body, fault)
        finally:
            with teacher.lock:
                teacher.running -= 1

    def _answer(self, body: dict[str, Any], fault: str) -> None:
        teacher = self.teacher
        if teacher.key is not None and self.headers["Authorization"] != f"Bearer {teacher.key}":
            return self._send(401, {"error": "Unauthorized"})
        if fault.isdigit():
            return self._send(int(fault), _error("busy"), {"Retry-After": "0"} if fault == "429" else {})
        if fault == "closed":
            self.close_connection = True
            return None
        answers = {"/generate": sglang, "/v1/completions": vllm if "prompt_logprobs" in body else openai}
        status, answer = answers[self.path](teacher, body)
        return self._send(status, answer, fault=fault)

    def _send(self, status: int, answer: Any, headers: Any = None, fault: str = "") -> None:
        content = json.dumps(answer).encode()
        if fault == "html":
            content = b"<html>gateway</html>"
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if fault == "half":  # the end of the connection is the end of the answer, and comes too early
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if fault in ("half", "cut") else content)
        self.close_connection = self.close_connection or fault in ("half", "cut")


@contextmanager
def serving(teacher: Teacher, port: int = 0) -> Iterator[Teacher]:
    """The teacher behind an address of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"teacher": teacher}))
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    teacher.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield teacher
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
